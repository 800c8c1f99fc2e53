"""How long choosing takes: python tests/benchmarks/choose.py [ROWS]

Makes a synthetic manifest (1,000,000 rows unless told otherwise, in parts of 100,000), then prints seconds for a first
publish's verdicts, a funnel, a selection and a query typed by a person.
"""

import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from filters.core import Filter, Recipe
from pipeline import parts, publish, query, tables
from pipeline.manifest import Manifest
from pipeline.stage import canonical_json
from pipeline.storage import Storage

PART = 100_000
RECIPE = Recipe(
    "benchmark",
    (
        Filter("worded", "captions_words > 2 AND captions_length > 5"),
        Filter("large", "least(width, height) >= 200"),
        Filter("shaped", "greatest(width, height) <= 3 * least(width, height)"),
        Filter("english", "captions_language = 'en'"),
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
            "aesthetic_score": pa.array(generator.normal(5, 1, count).astype(np.float32), mask=missing),
        }
    )


def main(total):
    with tempfile.TemporaryDirectory() as folder:
        store = Storage(Path(folder))
        with timed(f"write {total:,} rows"):
            made = [
                parts.put_parquet(store, "rows", table.schema, [table])
                for table in (rows(start, min(PART, total - start)) for start in range(0, total, PART))
            ]
        with timed("verdicts, one thread"), store.scratch() as scratch, tables.connect(scratch, threads=1) as con:
            verdicts, told = publish._verdicts(con, store, made, RECIPE.filters)
        document = {
            "source": "benchmark",
            "rows": [{"key": part.key, "count": part.count} for part in made],
            "verdicts": verdicts,
            "counts": {"input": total, "repeated": 0, **told},
            "recipe": {
                "name": "benchmark",
                "filters": [{"name": each.name, "sql": each.sql} for each in RECIPE.filters],
            },
        }
        store.put_if_absent("manifests/benchmark.json", canonical_json(document))
        publish._commit(store, "benchmark")
        manifest = Manifest.open(store)
        with timed("funnel"):
            steps = manifest.funnel(RECIPE)
        with timed("select another recipe"):
            kept = manifest.select(RECIPE.without("english"))
        with timed("what was kept"):
            assert len(manifest.select()) == told["kept"] == steps[-1].sequence
        with timed("winnow sql: count and mean by verdict"):
            query.run("SELECT kept, count(*), avg(clip_similarity) FROM rows GROUP BY kept", [store])
        with timed("winnow sql: reasons"):
            query.run(
                "SELECT reason, count(*) FROM (SELECT unnest(dropped_by) AS reason FROM rows) GROUP BY ALL", [store]
            )
        print(f"{told}; the other recipe keeps {len(kept):,}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
