"""How long scores of the whole pool take: python tests/benchmarks/pool.py [ROWS]

Makes a synthetic pool (1,000,000 scored pairs unless told otherwise, a twentieth of them copies with up to 5 bits of
their hash flipped) in shards of 10,000, then prints seconds for the neighbours alone, the scorers duplicates and
caption_counts with their files, choosing by distinct, and one batch of negCLIPLoss; and the memory at its peak.
"""

import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import Distinct, Filter
from pipeline import distinct, download, neighbours, pool, score, source, tables
from pipeline.distinct import Neighbours
from pipeline.pairs import Ledger, Shard
from pipeline.scorers.duplicates import EDGES
from pipeline.scorers.neg_clip_loss import neg_clip_loss
from pipeline.storage import Storage

SHARD = 10_000
RADIUS = 6
BATCH, DIM = 32_768, 512
TOML = f"""
[pairs]
location = "list.tsv"
[scorers.pixels]
kind = "pixels"
[scorers.duplicates]
kind = "duplicates"
radius = {RADIUS}
[scorers.caption_counts]
kind = "caption_counts"
"""


@contextmanager
def timed(what):
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.perf_counter() - started:8.2f} s, {peak:5.2f} GB at most so far  {what}", flush=True)


def hashes(rows):
    random = np.random.default_rng(0)
    made = random.integers(0, 2**64, rows, dtype=np.uint64)
    copies = random.permutation(rows)[: rows // 20]
    made[copies] = made[random.integers(0, rows, len(copies))]
    for _ in range(5):
        made[copies] ^= np.uint64(1) << random.integers(0, 64, len(copies)).astype(np.uint64)
    return made


def filled(described, storage, values):
    """The ledger of shards that are downloaded and have hashes."""
    downloaded = download.stage(described)
    pixels = score.stages(described, downloaded)["pixels"]
    shards = []
    for number, start in enumerate(range(0, len(values), SHARD)):
        part = values[start : start + SHARD]
        uids = [f"{row:032x}" for row in range(start, start + len(part))]
        captions = [f"a caption with some words, number {row % 400_000}" for row in range(start, start + len(part))]
        urls = [f"http://host-{row % 977}/pictures/{row}.jpg" for row in range(start, start + len(part))]
        tables_ = {
            f"pairs/{number:05d}.parquet": {"uid": uids, "url": urls, "caption": captions},
            downloaded.item(number, ".parquet"): {
                "uid": uids,
                "status": ["ok"] * len(part),
                "sha256": [f"{row:064x}" for row in range(start, start + len(part))],
            },
            pixels.item(number, ".parquet"): {"uid": uids, "pixels_phash": part, "pixels_sharpness": part % 1000},
        }
        for key, columns in tables_.items():
            with storage.scratch() as scratch:
                pq.write_table(pa.table(columns), scratch / "made")
                storage.put_file(key, scratch / "made")
        shards.append(Shard(number, f"pairs/{number:05d}.parquet", len(part)))
    return Ledger(tuple(shards), None, "digest", len(values), 0, len(values), len(values), 0, 0)


def main(rows):
    values = hashes(rows)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "list.tsv").touch()
        Path(folder, "pool.toml").write_text(TOML)
        described, storage = source.load(Path(folder, "pool.toml")), Storage(Path(folder, "store"))
        ledger = filled(described, storage, values)
        with timed(f"neighbours of {rows:,} hashes within {RADIUS} bits"):
            edges = neighbours.within(np.unique(values), RADIUS)
        print(f"{len(edges):,} edges, {edges.capped:,} comparisons left out")
        with timed("duplicates and caption_counts, their files included"):
            pool.run(described, storage, ledger, {})
        stages = score.stages(described, download.stage(described))
        key = score.pool_stages(described, download.stage(described), stages, ledger, {})["duplicates"].folder
        whole = Path(folder, "rows.parquet")
        table = {"uid": [f"{row:032x}" for row in range(rows)], "status": ["ok"] * rows}
        pq.write_table(pa.table(table | {"pixels_phash": values, "pixels_sharpness": values % 1000}), whole)
        with timed("distinct over all rows"), tables.connect(Path(folder)) as con:
            where = Neighbours(f"{key}/{EDGES}", "pixels_phash", RADIUS)
            sharp = Filter("sharp", "pixels_sharpness > 100")
            end = Distinct(RADIUS, "pixels_sharpness")
            lost = distinct.losers(con, storage, [whole], [rows], [sharp], end, where)
        print(f"{len(lost.repeated):,} rows go")
    both = np.random.default_rng(0).normal(size=(2, BATCH, DIM)).astype(np.float32)
    both /= np.linalg.norm(both, axis=2, keepdims=True)
    with timed(f"negCLIPLoss of one batch: {BATCH:,} pairs of {DIM} numbers"):
        neg_clip_loss(both[0], both[1], 0.01, BATCH)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
