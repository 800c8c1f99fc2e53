"""Seconds of `winnow curate` when downloads and scores are both slow, against each of them alone.

Run as `python tests/benchmarks/overlap.py [SHARDS]`. The server waits before each response, so that downloads take time
and no processor. The scorer of its own waits for a picture, as one does that has a GPU. Each run is a real command in a
folder of its own: neither slow, downloads slow, the scorer slow, both. The first one is what starting and publishing
take, and is subtracted from the others.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.bench import downloading

SHARD = 100
DELAY, SCORE = 0.6, 0.02
"""Seconds that a response and the score of a picture take: about as long for a shard on two cores."""

SCORER = """
import time

columns = {"score": "float32"}


def prepare(image):
    return 0


def score(batch, seconds: float):
    time.sleep(seconds * len(batch.images))
    return {"score": [1.0 for _ in batch.images]}
"""


def curate(folder: Path, port: int, shards: int, seconds: float) -> float:
    """Seconds of `winnow curate` of a new source."""
    folder.mkdir()
    urls = [f"http://127.0.0.1:{port}/{number}/a.jpg" for number in range(shards * SHARD)]
    pq.write_table(pa.table({"url": urls, "caption": list(map(str, range(len(urls))))}), folder / "pairs.parquet")
    (folder / "waits.py").write_text(SCORER)
    (folder / "both.toml").write_text(f"""
[pairs]
location = "pairs.parquet"
[download]
shard_size = {SHARD}
per_host = 512
threads = 64
allow_hosts = ["127.0.0.1:{port}"]
[scorers.waits]
kind = "./waits.py"
seconds = {seconds}
[[filters]]
name = "any"
sql = "waits_score > 0"
""")
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "flows", "curate", str(folder / "both.toml"), "--root", str(folder / "data")],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def main(shards: int) -> None:
    print(f"{shards} shards of {SHARD} pictures, load {os.getloadavg()[0]:.1f}")
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, delay, score in (
            ("neither", 0.0, 0.0),
            ("downloads", DELAY, 0.0),
            ("scorer", 0.0, SCORE),
            ("both", DELAY, SCORE),
        ):
            (Path(folder) / f"bench-{name}").mkdir()
            workload = downloading.Workload(64, 96, delay)
            bench = downloading.Bench(workload, Path(folder) / f"bench-{name}", 2)
            with bench.server():
                seconds[name] = curate(Path(folder) / name, bench.port, shards, score)
            print(f"{name:>10} slow: {seconds[name]:6.1f} s", flush=True)
    alone = max(seconds["downloads"], seconds["scorer"])
    start = seconds["neither"]
    print(f"both against the longer one: {seconds['both'] / alone:.2f}")
    print(f"without what neither takes: {(seconds['both'] - start) / (alone - start):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
