"""How long it takes to choose a set: PYTHONPATH=. python tests/benchmarks/sets.py [ROWS [PART ...]]

Makes a store with the embeddings that pool.py makes, 512 numbers around topics of uneven size, for 1,000,000 pairs
unless told otherwise, and prints seconds, processor time, and the memory at its peak. Reading the embeddings of all
pairs is included. The parts, the last two unless some are named:

flickr    (needs WINNOW_DATA, whose embeddings of 1,077 photographs by OpenAI's ViT-B/32 it reads) ten seeds: how many
          planted near-copies density-based pruning keeps; how many photographs of three kinds matching keeps, whose
          targets are 15 of each kind
density   density-based pruning to 30 % of the rows: 500 clusters
matching  greedy matching of 5,000 target pictures of some topics, to 30 % and to 2 % of the rows: 256 features; how far
          the sums of the features are from the target's, of a random choice, of the rows that are nearest to a feature,
          and of the greedy choice (total variation, 0 to 1)
"""

import os
import re
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pool import DIM, filled, loaded

from filters.selections import DensityPruning, Matching
from pipeline.manifest.document import StageKeys
from pipeline.manifest.embeddings import Embeddings
from pipeline.neighbours import soft_assignment
from pipeline.neighbours.soft_assignment import Assigned
from pipeline.process import machine
from pipeline.scorers import target_features
from pipeline.scoring.plan import Plan
from pipeline.selection import choosing, density, matching
from pipeline.selection.survivors import Survivors
from pipeline.store.storage import Storage

PARTS = ("density", "matching")
SHARE, SMALL, TARGETS = 0.3, 0.02, 5_000
RECORDED = """
[scorers.recorded]
kind = "recorded"
model = "some/model"
image = { file = "recorded.parquet", key = "key", by = "caption" }
text = { file = "recorded.parquet", key = "key", by = "caption" }
"""
SEEDS = range(10)
KINDS = ("dog|puppy", "surf|swim|wave|pool|ocean", "bike|bicycle|motorcycl")
"""Words of captions, of which three of five must have one."""


@contextmanager
def timed(what):
    started, used = time.perf_counter(), time.process_time()
    yield
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    peak = machine.peak_memory_mb() / 1024
    print(f"{seconds:8.2f} s, {processor:8.2f} of processor time, {peak:5.2f} GB at most so far  {what}", flush=True)


def pool_of(folder, rows, target):
    """All pairs as the survivors of a recipe without filters."""
    storage, described = Storage(Path(folder, "store")), loaded(folder, "sets", RECORDED)
    ledger = filled(described, storage, np.zeros(rows, np.uint64))
    uids = pa.array([f"{row:032x}" for row in range(rows)])
    shards = np.repeat(np.arange(len(ledger.shards)), [shard.rows for shard in ledger.shards])
    keys = StageKeys("none", {"recorded": Plan.of(described).scores["recorded"].key})
    return Survivors(
        uids.to_pylist(),
        rows,
        {},
        lambda scorer: Embeddings(storage, keys, scorer, uids, shards),
        lambda scorer: target[0],
    )


def of_density(survivors, target):
    selection = DensityPruning(of="recorded", budget=SHARE)
    with timed(f"density-based pruning of {len(survivors):,} pairs, {selection.clusters} clusters"):
        chosen = choosing.choose(selection, survivors)
    print(f"{int(chosen.copies.sum()):,} kept")


def of_matching(survivors, target):
    """The target has another mixture than the pool: most of it is near one direction."""
    vectors = survivors.embeddings("recorded").pictures[: min(100_000, len(survivors))].astype(np.float32)
    targets = vectors[np.argsort(-vectors @ vectors[7], kind="stable")[:TARGETS]]
    with timed(f"features of {TARGETS:,} targets"):
        target.append(target_features.summarize("recorded", targets, 256, 0.05))
    assigned = soft_assignment.assign(vectors, target[0].centroids, target[0].temperature)
    for share in (SHARE, SMALL):
        with timed(f"greedy matching of {TARGETS:,} targets, {share:.0%} of {len(survivors):,} pairs"):
            chosen = choosing.choose(Matching(of="target", budget=share), survivors).copies[: len(vectors)]
        random = np.random.default_rng(0).choice(len(vectors), int(chosen.sum()), replace=False)
        near = np.argsort(-assigned.values.max(axis=1), kind="stable")[: len(random)]
        for name, rows in (("random", random), ("nearest", near), ("greedy", np.flatnonzero(chosen))):
            print(f"{len(rows):,} of {len(vectors):,}, {name}: {apart(assigned, rows, target[0].shares):.3f}")


def apart(assigned, rows, shares):
    sums = Assigned(assigned.numbers[rows], assigned.values[rows]).sums(len(shares))
    return np.abs(sums / sums.sum() - shares).sum() / 2


def of_flickr():
    folder = Path(os.environ["WINNOW_DATA"])
    table = pq.read_table(folder / "clip_b32" / "image_embeddings.parquet", columns=["image", "embedding"])
    photographs = np.stack([np.asarray(row, np.float32) for row in table["embedding"].to_pylist()])
    photographs /= np.linalg.norm(photographs, axis=1, keepdims=True)
    told = {}
    for row in pq.read_table(folder / "flickr8k" / "captions.parquet").to_pylist():
        told.setdefault(row["image"], []).append(row["caption"].lower())
    names = table["image"].to_pylist()
    shows = np.array(
        [[sum(bool(re.search(rf"\b({words})", each)) for each in told[name]) >= 3 for name in names] for words in KINDS]
    )
    print_means("near-copies kept of 300, and photographs of 1,077", [copies_kept(photographs, seed) for seed in SEEDS])
    found = [kinds_kept(photographs, shows, seed) for seed in SEEDS]
    print_means(f"{', '.join(KINDS)}; all that are wanted, and all", found)


def copies_kept(photographs, seed):
    """30 photographs have 10 near-copies each, at a cosine of about 0.98. 40 % of all are kept."""
    random = np.random.default_rng(seed)
    noise = random.normal(size=(300, DIM)).astype(np.float32) * 0.2 / DIM**0.5
    copies = np.repeat(photographs[random.choice(len(photographs), 30, replace=False)], 10, axis=0) + noise
    copies /= np.linalg.norm(copies, axis=1, keepdims=True)
    order = random.permutation(len(photographs) + 300)
    vectors = np.concatenate([photographs, copies])[order].astype(np.float16)
    budget = int(0.4 * len(vectors))
    kept = {"random": random.choice(len(vectors), budget, replace=False)}
    for temperature in (0.01, 0.1):
        kept[f"density, {temperature}"] = density.prune(vectors, budget, density.CLUSTERS, temperature, silent)
    is_copy = order >= len(photographs)
    return {name: [is_copy[rows].sum(), (~is_copy[rows]).sum()] for name, rows in kept.items()}


def kinds_kept(photographs, shows, seed):
    """Half as many as there are photographs of the three kinds, besides the targets."""
    random = np.random.default_rng(seed)
    target = np.concatenate([random.choice(np.flatnonzero(each), 15, replace=False) for each in shows])
    rest = np.setdiff1d(np.arange(len(photographs)), target)
    budget = int(shows[:, rest].any(axis=0).sum()) // 2
    found = target_features.summarize("clip", photographs[target], 256, 0.05)
    assigned = soft_assignment.assign(photographs[rest], found.centroids, found.temperature)
    near = (photographs[rest] @ photographs[target].T).max(axis=1)
    kept = {
        "random": random.choice(len(rest), budget, replace=False),
        "nearest": np.argsort(-near, kind="stable")[:budget],
        "matching": matching.choose(assigned, found.shares, budget, silent),
    }
    wanted = {name: shows[:, rest[rows]] for name, rows in kept.items()}
    return {name: [*each.sum(axis=1), each.any(axis=0).sum(), budget] for name, each in wanted.items()}


def print_means(what, found):
    print(what)
    for name in found[0]:
        figures = np.array([each[name] for each in found])
        means, spread = figures.mean(axis=0), figures.std(axis=0, ddof=1)
        cells = [f"{mean:.1f} ({sd:.1f})" for mean, sd in zip(means, spread, strict=True)]
        print(f"  {name:14s} {'  '.join(cells)}", flush=True)


def silent(done, total):
    pass


def main(rows, parts):
    if len(os.sched_getaffinity(0)) > 2:
        os.sched_setaffinity(0, {0, 1})
    if "flickr" in parts:
        of_flickr()
    chosen = [{"density": of_density, "matching": of_matching}[part] for part in parts if part != "flickr"]
    if chosen:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "list.tsv").touch()
            pq.write_table(pa.table({"key": ["nobody"], "embedding": [[1.0] * DIM]}), Path(folder, "recorded.parquet"))
            target = []
            survivors = pool_of(folder, rows, target)
            for each in chosen:
                each(survivors, target)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000, sys.argv[2:] or PARTS)
