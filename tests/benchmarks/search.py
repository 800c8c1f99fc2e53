"""How long a search takes: python tests/benchmarks/search.py [ROWS] [FOLDER]

Makes a manifest of ROWS pairs (1,000,000 by default) in shards of 1,000, with embeddings of 512 numbers around 1,000
topics, and searches it: seconds without the model that embeds the query, and the memory at its peak. A million rows
take 2 GB of the disk. Of more rows, the embeddings of each next million are the first million's files under other
names: as many rows are read and compared, and the files stay in memory, as on a machine with enough of it.

If faiss is installed, which winnow does not need, it also builds an inverted file over the first million, and measures
the time and the recall of the ten nearest.
"""

import importlib.util
import os
import resource
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import Recipe
from pipeline.bench import synthetic_manifest
from pipeline.query.embeddings import PictureEmbeddings
from pipeline.query.search import search
from pipeline.store.storage import Storage

SHARD, DIM, TOPICS, DISTINCT = 1000, 512, 1000, 1_000_000
STAGE = "clip-0a1b2c3d"
TOP = 10
QUERIES = 5


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def topics():
    return unit(np.random.default_rng(0).standard_normal((TOPICS, DIM), np.float32))


def near(centres, generator, count):
    """Vectors with a cosine of about .7 with a topic."""
    noise = generator.standard_normal((count, DIM), np.float32) / DIM**0.5
    return unit(centres[generator.integers(TOPICS, size=count)] + noise)


def store(root, rows):
    """The embeddings of all shards, and the scores that name their uids."""
    centres = topics()
    embeddings, scores = root / "embeddings" / STAGE, root / "scores" / STAGE
    embeddings.mkdir(parents=True)
    scores.mkdir(parents=True)
    for shard in range(rows // SHARD):
        path, first = embeddings / f"{shard:05d}.npy", embeddings / f"{shard % (DISTINCT // SHARD):05d}.npy"
        if shard < DISTINCT // SHARD:
            stored = np.zeros((SHARD, 2, DIM), np.float16)
            stored[:, 0] = near(centres, np.random.default_rng(shard + 1), SHARD)
            np.save(path, stored)
        else:
            os.link(first, path)
        pq.write_table(table(shard * SHARD, SHARD).select(["uid"]), scores / f"{shard:05d}.parquet")


def table(start, count):
    """Rows of as many pictures, in shards."""
    numbers = [f"{number:032x}" for number in range(start, start + count)]
    return pa.table(
        {
            "uid": numbers,
            "url": [f"http://host/pictures/{number}.jpg" for number in numbers],
            "caption": [f"a photograph of something, number {number}" for number in numbers],
            "status": ["ok"] * count,
            "sha256": [number * 2 for number in numbers],
            "shard": pa.array(np.arange(start, start + count) // SHARD, pa.int32()),
            "member": [f"{number % SHARD:05d}.jpg" for number in range(start, start + count)],
        }
    )


def timed(what, call):
    started, used = time.perf_counter(), time.process_time()
    answer = call()
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    print(f"{what}: {seconds:.2f} s, {processor:.2f} s of processor time", flush=True)
    return answer


def forget_cached(root):
    """Drop the embeddings from the memory of the system, so that the disk is read."""
    os.sync()
    for path in (root / "embeddings" / STAGE).iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def indexed(root, queries):
    """An inverted file of faiss's, with float16 vectors, over the first million rows."""
    import faiss

    stored = [np.load(path)[:, 0] for path in sorted((root / "embeddings" / STAGE).iterdir())[: DISTINCT // SHARD]]
    vectors = np.concatenate(stored)
    cells = 4096
    index = faiss.index_factory(DIM, f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
    timed("faiss: train", lambda: index.train(vectors[:: len(vectors) // (40 * cells)].astype(np.float32)))
    timed(
        "faiss: add",
        lambda: [index.add(vectors[at : at + 50_000].astype(np.float32)) for at in range(0, len(vectors), 50_000)],
    )
    timed("faiss: write", lambda: faiss.write_index(index, str(root / "index")))
    read = timed("faiss: read", lambda: faiss.read_index(str(root / "index")))
    exact = [set(PictureEmbeddings(Storage(root), STAGE, query).nearest(TOP)[0].tolist()) for query in queries]
    for probes in (1, 8, 32, 128):
        read.nprobe = probes
        found = timed(f"faiss: {len(queries)} queries, {probes} cells", lambda: read.search(np.stack(queries), TOP)[1])
        recall = np.mean([len(one & set(other.tolist())) / TOP for one, other in zip(exact, found, strict=True)])
        print(f"  recall at {TOP}: {recall:.3f}")


def main(rows, folder):
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        storage = Storage(Path(scratch) / "store")
        storage.root.mkdir()
        timed("embeddings made", lambda: store(storage.root, rows))
        manifest = timed(
            "rows published", lambda: synthetic_manifest.publish_rows(storage, rows, Recipe("all", ()), make=table)
        )
        queries = list(near(topics(), np.random.default_rng(10**6), QUERIES))
        if rows <= DISTINCT:
            forget_cached(storage.root)
            timed("search, read from disk", lambda: search(manifest, STAGE, queries[0], TOP))
        for query in queries:
            found = timed("search", partial(search, manifest, STAGE, query, TOP))
            assert len(found) == TOP
        timed("  of which all inner products", lambda: PictureEmbeddings(storage, STAGE, queries[0]).nearest(TOP))
        print(f"peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB, mapped files included")
        print(f"load: {os.getloadavg()[0]:.1f}")
        if rows <= DISTINCT and importlib.util.find_spec("faiss"):
            indexed(storage.root, queries)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else DISTINCT, sys.argv[2] if len(sys.argv) > 2 else None)
