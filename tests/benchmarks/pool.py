"""How long scores of the whole pool take: python tests/benchmarks/pool.py [ROWS [PART ...]]

Makes a synthetic pool (1,000,000 scored pairs unless told otherwise) in shards of 10,000, and prints seconds, and the
memory at its peak. The parts, all of them unless some are named:

hashes    a twentieth of the pictures are copies with up to 5 bits of their hash flipped: the neighbours alone, the
          scorers duplicates and caption_counts with their files, and choosing by distinct
semantic  embeddings of 512 numbers around topics, a twentieth of them near others: the scorer semantic with its files
          (on cores 0 and 1 alone, where the machine has more), and choosing by distinct; of the first 50,000, how many
          neighbours an exact search finds that it does not
mixed     a mix of two columns, for a reference of 1,000 pairs of the pool
loss      one batch of negCLIPLoss
"""

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import Distinct, Filter
from pipeline.filtering import distinct
from pipeline.filtering.distinct import Neighbours
from pipeline.ledger.ledger import Ledger, Shard
from pipeline.neighbours import cosine, hamming
from pipeline.process import machine
from pipeline.scorers.edges import EDGES
from pipeline.scorers.neg_clip_loss import neg_clip_loss
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store import duck
from pipeline.store.storage import Storage

PARTS = ("hashes", "semantic", "mixed", "loss")
SHARD = 10_000
RADIUS, EPS = 6, 0.05
BATCH, DIM, RANK = 32_768, 512, 64
EXACT = 50_000
TOML = """
[pairs]
location = "list.tsv"
[scorers.pixels]
kind = "pixels"
"""
OF_HASHES = f"""
[scorers.duplicates]
kind = "duplicates"
radius = {RADIUS}
[scorers.caption_counts]
kind = "caption_counts"
"""
RECORDED = """
[scorers.recorded]
kind = "recorded"
model = "some/model"
image = { file = "recorded.parquet", key = "key", by = "caption" }
text = { file = "recorded.parquet", key = "key", by = "caption" }
"""
OF_EMBEDDINGS = f"""{RECORDED}
[scorers.semantic]
kind = "semantic"
of = "recorded"
radius = {EPS}
"""
OF_MIX = f"""{RECORDED}
[scorers.mixed]
kind = "mixed"
of = "recorded"
mixes = ["recorded.similarity", "pixels.sharpness"]
reference = {{ location = "reference.parquet" }}
"""


@contextmanager
def timed(what):
    started = time.perf_counter()
    yield
    peak = machine.peak_memory_mb() / 1024
    print(f"{time.perf_counter() - started:8.2f} s, {peak:5.2f} GB at most so far  {what}", flush=True)


def hashes(rows):
    random = np.random.default_rng(0)
    made = random.integers(0, 2**64, rows, dtype=np.uint64)
    copies = random.permutation(rows)[: rows // 20]
    made[copies] = made[random.integers(0, rows, len(copies))]
    for _ in range(5):
        made[copies] ^= np.uint64(1) << random.integers(0, 64, len(copies)).astype(np.uint64)
    return made


def embeddings(number, topics):
    """float16 [SHARD, 2, DIM] of one shard: a cone, as CLIP's lie in, of topics of uneven size; the text is the image.

    Pictures of a topic, and copies, differ along `RANK` directions: in fewer dimensions neighbours are more often on
    both sides of a border. Two pictures of a topic have a cosine of about 0.85.
    """
    random = np.random.default_rng([1, number])
    along = np.linalg.qr(np.random.default_rng(3).normal(size=(DIM, RANK)))[0].T.astype(np.float32)
    topic = (len(topics) * random.random(SHARD) ** 2).astype(int)
    made = topics[topic] + 1.5 * random.normal(size=(SHARD, RANK)).astype(np.float32) @ along
    copies = random.permutation(SHARD)[: SHARD // 20]
    made[copies] = made[random.integers(0, SHARD, len(copies))]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    away = random.normal(size=(len(copies), RANK)).astype(np.float32) / np.sqrt(RANK)
    made[copies] += away @ along * random.uniform(0, 0.4, (len(copies), 1)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return np.repeat(made[:, None], 2, axis=1).astype(np.float16)


def filled(described, storage, values):
    """The ledger of shards that are downloaded, and have hashes, and embeddings if the source has them."""
    plan = Plan.of(described)
    random = np.random.default_rng(2)
    topics = random.normal(size=(len(values) // 200 + 1, DIM)).astype(np.float32) + 0.8
    shards = []
    for number, start in enumerate(range(0, len(values), SHARD)):
        part = values[start : start + SHARD]
        uids = [f"{row:032x}" for row in range(start, start + len(part))]
        captions = [f"a caption with some words, number {row % 400_000}" for row in range(start, start + len(part))]
        urls = [f"http://host-{row % 977}/pictures/{row}.jpg" for row in range(start, start + len(part))]
        tables_ = {
            f"pairs/{number:05d}.parquet": {"uid": uids, "url": urls, "caption": captions},
            plan.shards.item(number, ".parquet"): {
                "uid": uids,
                "status": ["ok"] * len(part),
                "sha256": [f"{row:064x}" for row in range(start, start + len(part))],
            },
            plan.scores["pixels"].item(number, ".parquet"): {
                "uid": uids,
                "pixels_phash": part,
                "pixels_sharpness": part % 1000,
            },
        }
        for key, columns in tables_.items():
            with storage.scratch() as scratch:
                pq.write_table(pa.table(columns), scratch / "made")
                storage.put_file(key, scratch / "made")
        if "recorded" in plan.scores:
            stage = plan.embeddings["recorded"]
            with storage.scratch() as scratch:
                np.save(scratch / "made.npy", embeddings(number, topics)[: len(part)])
                storage.put_file(stage.item(number, ".npy"), scratch / "made.npy")
                similarity = random.random(len(part)).astype(np.float32)
                pq.write_table(pa.table({"uid": uids, "recorded_similarity": similarity}), scratch / "made")
                storage.put_file(plan.scores["recorded"].item(number, ".parquet"), scratch / "made")
        shards.append(Shard(number, f"pairs/{number:05d}.parquet", len(part)))
    return Ledger(tuple(shards), None, "digest", len(values), 0, len(values), len(values), 0, 0)


def chosen(folder, storage, made, columns, name, radius):
    """How many rows go by distinct, of those that pass a filter; `made` has a column for each row."""
    whole = Path(folder, f"{name}.parquet")
    rows = len(next(iter(made.values())))
    table = {"uid": [f"{row:032x}" for row in range(rows)], "status": ["ok"] * rows}
    pq.write_table(pa.table(table | made), whole)
    edges, picture = columns
    with timed(f"distinct by {name} over all rows"), duck.connect(Path(folder)) as con:
        where, end = Neighbours(edges, picture, radius), Distinct(radius, "sharpness", name)
        lost = distinct.losers(con, storage, [whole], [rows], [Filter("sharp", "sharpness > 100")], end, where)
    print(f"{len(lost.rejected):,} rows go", flush=True)


def loaded(folder, name, more):
    Path(folder, f"{name}.toml").write_text(TOML + more)
    return loading.load(Path(folder, f"{name}.toml"))


def of_hashes(folder, rows):
    values, storage = hashes(rows), Storage(Path(folder, "store"))
    described = loaded(folder, "hashes", OF_HASHES)
    ledger = filled(described, storage, values)
    with timed(f"neighbours of {rows:,} hashes within {RADIUS} bits"):
        edges = hamming.within(np.unique(values), RADIUS)
    print(f"{len(edges):,} edges, {edges.capped:,} comparisons left out")
    with timed("duplicates and caption_counts, their files included"):
        pool.run(Plan.of(described), storage, ledger, {})
    key = Plan.of(described).pool(ledger, {})["duplicates"].folder
    made = {"picture": values, "sharpness": values % 1000}
    chosen(folder, storage, made, (f"{key}/{EDGES}", "picture"), "duplicates", RADIUS)


def of_embeddings(folder, rows):
    storage, described = Storage(Path(folder, "store")), loaded(folder, "semantic", OF_EMBEDDINGS)
    values = hashes(rows)
    ledger = filled(described, storage, values)
    if len(os.sched_getaffinity(0)) > 2:
        os.sched_setaffinity(0, {0, 1})
    with timed(f"semantic: {rows:,} embeddings of {DIM} numbers, its files included"):
        pool.run(Plan.of(described), storage, ledger, {})
    key = Plan.of(described).pool(ledger, {})["semantic"].folder
    edges = pq.read_table(storage.fetch(f"{key}/{EDGES}"))
    print(f"{len(edges):,} edges, {edges.schema.metadata[b'capped'].decode()} comparisons left out")
    made = {"picture": np.arange(rows, dtype=np.uint64), "sharpness": values % 1000}
    chosen(folder, storage, made, (f"{key}/{EDGES}", "picture"), "semantic", EPS)
    stage = Plan.of(described).embeddings["recorded"]
    first = [np.load(storage.fetch(stage.item(number, ".npy")))[:, 0] for number in range(min(EXACT, rows) // SHARD)]
    recalled(np.concatenate(first))


def recalled(vectors):
    """Of the pairs that an exact search finds, how many are found."""
    with timed(f"exact search of {len(vectors):,}"):
        wide = cosine.normalize(vectors)
        exact = []
        for start in range(0, len(wide), 2000):
            row, column = np.nonzero(wide[start : start + 2000] @ wide.T >= 1 - EPS)
            exact.append(((start + row) * len(wide) + column)[start + row < column])
    with timed(f"the same by {len(vectors) // cosine.SIZE} clusters"):
        found = cosine.within(vectors, EPS)
    pairs = found.low.astype(np.int64) * len(wide) + found.high.astype(np.int64)
    exact = np.concatenate(exact)
    both = np.intersect1d(exact, pairs)
    print(
        f"{len(exact):,} pairs within {EPS}; of them {len(both) / len(exact):.4%} were found, {found.capped:,} left out"
    )


def of_mix(folder, rows):
    reference = [f"{row:032x}" for row in range(0, rows, max(rows // 1000, 1))]
    pq.write_table(pa.table({"uid": reference}), Path(folder, "reference.parquet"))
    storage, described = Storage(Path(folder, "store")), loaded(folder, "mixed", OF_MIX)
    ledger = filled(described, storage, hashes(rows))
    used = time.process_time()
    with timed(f"a mix of two columns of {rows:,} rows, its files included"):
        pool.run(Plan.of(described), storage, ledger, {})
    print(f"{time.process_time() - used:.1f} s of processors")


def of_loss(folder, rows):
    both = np.random.default_rng(0).normal(size=(2, BATCH, DIM)).astype(np.float32)
    both /= np.linalg.norm(both, axis=2, keepdims=True)
    with timed(f"negCLIPLoss of one batch: {BATCH:,} pairs of {DIM} numbers"):
        neg_clip_loss(both[0], both[1], 0.01, BATCH)


def main(rows, parts):
    run = {"hashes": of_hashes, "semantic": of_embeddings, "mixed": of_mix, "loss": of_loss}
    for part in parts:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "list.tsv").touch()
            pq.write_table(pa.table({"key": ["nobody"], "embedding": [[1.0] * DIM]}), Path(folder, "recorded.parquet"))
            run[part](folder, rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, sys.argv[2:] or PARTS)
