"""How long entries and clusters take: python tests/benchmarks/subjects.py [ROWS]

Captions of ten words, as common as words are (the n-th as 1 / n), against a list of 100,000 of them; then k-means over
pictures of 512 numbers, one centroid for 128, and the cluster of every picture. Prints seconds, seconds of the
processor, and the memory at its peak.
"""

import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.neighbours import kmeans, kmeans_tree
from pipeline.process import machine
from pipeline.scorers import clusters
from pipeline.scorers.entries import Entries

WORDS, LONG, DIM = 100_000, 10, 512


@dataclass(frozen=True)
class Pool:
    """As much of a pool as `Entries` asks for."""

    folder: Path
    rows: Path
    pairs: int

    def __len__(self):
        return self.pairs

    def column(self, name):
        return pq.read_table(self.rows, columns=[name])[name]


@contextmanager
def timed(what):
    started, worked = time.perf_counter(), time.process_time()
    yield
    peak = machine.peak_memory_mb() / 1024
    seconds, processor = time.perf_counter() - started, time.process_time() - worked
    print(f"{seconds:8.1f} s, {processor:6.1f} s of the processor, {peak:5.2f} GB at most so far  {what}", flush=True)


def nothing(done, total):
    pass


def main(rows):
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        ranks = np.exp(random.random((rows, LONG)) * np.log(WORDS)).astype(int)
        captions = [" ".join(f"word{rank}" for rank in row) for row in ranks.tolist()]
        pool = Pool(Path(folder), Path(folder, "pool.parquet"), rows)
        pq.write_table(pa.table({"uid": [f"{row:032x}" for row in range(rows)], "caption": captions}), pool.rows)
        del captions, ranks
        entries = Entries([f"word{rank}" for rank in range(WORDS)], None)
        with timed(f"entries: {rows:,} captions of {LONG} words against {WORDS:,}"):
            found = entries.score(pool, nothing)
        print(f"{np.mean(found['probability'].to_numpy()):.1%} are kept")
        sample = min(rows // 2, 64 * clusters.MOST)
        path = Path(folder, "sample.npy")
        vectors = np.lib.format.open_memmap(path, "w+", np.float16, (sample, DIM))
        for start in range(0, sample, kmeans.BLOCK):
            vectors[start : start + kmeans.BLOCK] = random.normal(size=vectors[start : start + kmeans.BLOCK].shape)
        count = max(rows // clusters.PICTURES, 1)
        with timed(f"clusters: {count:,} centroids of {sample:,} pictures of {DIM} numbers"):
            tree = kmeans_tree.grow(vectors, count, nothing)
        with timed(f"the cluster of {rows:,} pictures"):
            for start in range(0, rows, sample):
                tree.assign(vectors[: rows - start])


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
