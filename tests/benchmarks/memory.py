"""Whether memory stays flat: python tests/benchmarks/memory.py [MODEL] [PAIRS ...]

Scores that many synthetic pairs, each count in a process of its own, and prints what that took at most. A small model
will do: what could grow is what comes and goes with the pairs.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline import bench, engine, score, synthetic
from pipeline.scorers.clip import ClipSpec

SIDE, SHARD = 224, 1000


def once(model, pairs):
    with tempfile.TemporaryDirectory() as folder:
        described, storage, shards = synthetic.source(Path(folder), pairs, SIDE, SHARD)
        made = bench.random_model(model, Path(folder) / "model")
        spec = ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{made}"})
        described = described.model_copy(update={"scorers": {"clip": spec}})
        started = time.perf_counter()
        for _, error in engine.run(lambda: score.make(described, storage), shards):
            if error:
                raise error
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{pairs:>7,} pairs: {peak:,.0f} MiB at most, {pairs / (time.perf_counter() - started):.0f} pairs/s",
            flush=True,
        )


if __name__ == "__main__":
    model, *counts = sys.argv[1:] or ["ViT-S-32-alt", "2000", "20000"]
    if len(counts) == 1:
        once(model, int(counts[0]))
    for count in counts if len(counts) > 1 else ():
        subprocess.run([sys.executable, __file__, model, count], check=True)
