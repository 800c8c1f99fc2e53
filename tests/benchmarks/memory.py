"""Whether memory stays flat: python tests/benchmarks/memory.py [PAIRS ...]

Scores that many synthetic pairs, each count in a process of its own, and prints what that took at most. The model is
tiny, of two layers: what could grow is what comes and goes with the pairs, and pictures are as large as for any other.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import open_clip

from pipeline.bench import synthetic, weights
from pipeline.engine import local
from pipeline.process import machine
from pipeline.scorers.clip import ClipSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring

SIDE, SHARD = 224, 1000
TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


def once(pairs):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny.json").write_text(json.dumps(TINY))
        open_clip.add_model_config(Path(folder) / "tiny.json")
        described, storage, shards = synthetic.source(Path(folder), pairs, SIDE, SHARD)
        made = weights.random_model("tiny", Path(folder) / "model")
        spec = ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{made}"})
        described = described.model_copy(update={"scorers": {"clip": spec}})
        started = time.perf_counter()
        for _, error in local.run(lambda: Scoring(Plan.of(described), storage), shards):
            if error:
                raise error
        peak = machine.peak_memory_mb()
        print(
            f"{pairs:>7,} pairs: {peak:,.0f} MiB at most, {pairs / (time.perf_counter() - started):.0f} pairs/s",
            flush=True,
        )


if __name__ == "__main__":
    counts = sys.argv[1:] or ["2000", "20000"]
    if len(counts) == 1:
        once(int(counts[0]))
    for count in counts if len(counts) > 1 else ():
        subprocess.run([sys.executable, __file__, count], check=True)
