"""How long choosing takes: python tests/benchmarks/choose.py [ROWS]

Makes a synthetic manifest (1,000,000 rows of 20 columns unless told otherwise, in parts of 100,000), then prints the
seconds for publishing it, a funnel, a selection, another recipe, a comparison, an audit, and queries typed by a person.
"""

import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import Filter, Recipe
from pipeline import audit, diff, parts, publish, query
from pipeline.manifest import Manifest
from pipeline.queries import QUERIES
from pipeline.storage import Storage

PART = 100_000
RECIPE = Recipe(
    "benchmark",
    (
        Filter("worded", "captions_words > 2 AND captions_length > 5"),
        Filter("large", "least(width, height) >= 200"),
        Filter("shaped", "greatest(width, height) <= 3 * least(width, height)"),
        Filter("english", "captions_language = 'en'"),
        Filter("sharp", "pixels_sharpness >= 50"),
        Filter("most-aligned", "clip_similarity >= (SELECT quantile_cont(clip_similarity, 0.7) FROM rows)"),
    ),
)


@contextmanager
def timed(what):
    started = time.perf_counter()
    yield
    print(f"{time.perf_counter() - started:8.2f} s  {what}", flush=True)


def rows(start, count):
    generator = np.random.default_rng(start)
    missing = generator.random(count) < 0.3
    integers = {
        name: generator.integers(low, high, count).astype(np.int32)
        for name, low, high in (("width", 100, 2000), ("height", 100, 2000), ("captions_words", 1, 30))
    }
    return pa.table(
        {
            "uid": [f"{number:032x}" for number in range(start, start + count)],
            "url": [f"http://host-{number % 977}/pictures/{number}.jpg" for number in range(start, start + count)],
            "caption": [f"a caption with some words, number {number}" for number in range(start, start + count)],
            "status": np.where(missing, "failed", "ok"),
            **{name: pa.array(values, mask=missing) for name, values in integers.items()},
            "captions_length": pa.array(integers["captions_words"] * 6, mask=missing),
            "captions_language": pa.array(np.where(generator.random(count) < 0.8, "en", "de"), mask=missing),
            "clip_similarity": pa.array(generator.normal(0.25, 0.06, count).astype(np.float32), mask=missing),
            "pixels_sharpness": pa.array(generator.gamma(2, 200, count).astype(np.float32), mask=missing),
            **{f"more_{i}": pa.array(generator.random(count).astype(np.float32), mask=missing) for i in range(8)},
            "aesthetic_score": pa.array(generator.normal(5, 1, count).astype(np.float32), mask=missing),
        }
    )


def masks(files):
    """The same six filters over the same files in pandas; gives how many rows pass all."""
    names = ["status", "width", "height", "captions_words", "captions_length", "captions_language"]
    frame = pd.concat(
        [pq.read_table(f, columns=[*names, "clip_similarity", "pixels_sharpness"]).to_pandas() for f in files]
    )
    passes = [
        (frame.captions_words > 2) & (frame.captions_length > 5),
        (frame.width >= 200) & (frame.height >= 200),
        (frame.width <= 3 * frame.height) & (frame.height <= 3 * frame.width),
        frame.captions_language == "en",
        frame.pixels_sharpness >= 50,
        frame.clip_similarity >= frame.clip_similarity.quantile(0.7),
    ]
    kept = frame.status == "ok"
    for each in passes:
        (kept & each).sum()
        kept &= each
    return int(kept.sum())


def main(total):
    with tempfile.TemporaryDirectory() as folder:
        store = Storage(Path(folder))
        with timed(f"write {total:,} rows"):
            made = [
                parts.put_parquet(store, "rows", table.schema, [table])
                for table in (rows(start, min(PART, total - start)) for start in range(0, total, PART))
            ]
        sketch = {
            "source": "benchmark",
            "ledger": {"digest": "", "input": total, "repeated": 0},
            "stages": {"shards": "", "scores": {}},
            "quarantined": [],
            "rows": [asdict(part) for part in made],
            "recipe": publish._written(RECIPE),
        }
        with timed("publish: verdicts, one thread, and the catalogue"):
            published = publish._decide(store, sketch, {}, RECIPE, 0.0)
        manifest = Manifest.open(store)
        with timed("funnel and selection of six filters"):
            steps = manifest.funnel(RECIPE)
            kept = manifest.select(RECIPE)
        assert len(kept) == published.counts.kept == steps[-1].sequence
        with timed("the same six filters as masks in pandas"):
            assert masks([store.fetch(part.key) for part in made]) == len(kept)
        others = [RECIPE.without(each.name) for each in RECIPE.filters]
        with timed(f"funnel of {len(others)} recipes side by side"):
            manifest.compare(others)
        with timed("publish another recipe from what is there"):
            publish.republish(store, others[-1])
        with timed("diff of the two"):
            diff.between(Manifest.open(store, "-2"), Manifest.open(store, "-1"), 5)
        with timed("audit"):
            audit.audit(manifest, RECIPE)
        with timed("winnow sql: count and mean by verdict"):
            query.run("SELECT kept, count(*), avg(clip_similarity) FROM rows GROUP BY kept", [store])
        with timed("winnow sql: history"):
            query.run(QUERIES["flipped"].sql, [store])
        print(f"{len(kept):,} kept; {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB at most")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
