"""A manifest of synthetic rows, in parts and row groups like those of every manifest."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.core import Recipe
from pipeline.bench import synthetic
from pipeline.manifest import card, parts, publish
from pipeline.manifest.document import Inputs, LedgerState, StageKeys, without_why
from pipeline.manifest.manifest import Manifest
from pipeline.settings.download import Download
from pipeline.store import parquet
from pipeline.store.storage import Storage

PART = parts.SHARDS * Download().shard_size
"""Rows of a part."""

FAILED = 0.3
"""Share of the rows without a picture; they have no score."""


def publish_rows(
    storage: Storage,
    rows: int,
    recipe: Recipe,
    tell: Callable[[str], None] = lambda line: None,
    make: Callable[[int, int], pa.Table] | None = None,
) -> Manifest:
    """Publish `rows` synthetic rows under a recipe. `make` is called as `table` is, which makes them by default."""
    made: list[parquet.Rows] = []

    def part(start: int) -> parquet.Rows:
        whole = (make or table)(start, min(PART, rows - start))
        return parquet.put_parquet(storage, "rows", whole.schema, [whole])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for each in pool.map(part, range(0, rows, PART)):
            made.append(each)
            if len(made) % 10 == 1:
                tell(f"made {sum(one.count for one in made):,} of {rows:,} rows")
    tell("publishing them")
    inputs = Inputs(
        format=parts.FORMAT,
        source="benchmark",
        ledger=LedgerState("", rows, 0),
        stages=StageKeys("", {}),
        quarantined=(),
        rows=tuple(made),
        recipe=without_why(recipe),
        neighbours={},
    )
    return Manifest.open(storage, publish.decide(storage, inputs, card.why(recipe)).id)


def table(start: int, count: int) -> pa.Table:
    """`count` synthetic rows from number `start` on, in 20 columns. The same numbers give the same rows."""
    generator = np.random.default_rng(start)
    missing = generator.random(count) < FAILED
    words = generator.integers(1, 30, count, dtype=np.int32)
    numbers = pa.array(np.arange(start, start + count)).cast(pa.string())
    phrases = _phrases().take(pa.array(generator.integers(len(_phrases()), size=count)))
    hosts = pa.array(generator.integers(997, size=count)).cast(pa.string())

    def measured(values: npt.NDArray[Any]) -> pa.Array:
        return pa.array(values, mask=missing)

    return pa.table(
        {
            "uid": _hexadecimal(generator.bytes(16 * count)),
            "url": pc.binary_join_element_wise("http://host-", hosts, ".example/pictures/", numbers, ".jpg", ""),
            "caption": pc.binary_join_element_wise(phrases, numbers, " "),
            "status": pa.array(["ok", "failed"]).take(pa.array(missing.astype(np.int8))),
            "width": measured(generator.integers(100, 2000, count, dtype=np.int32)),
            "height": measured(generator.integers(100, 2000, count, dtype=np.int32)),
            "captions_words": measured(words),
            "captions_length": measured(words * 6),
            "captions_language": pa.array(["en", "de"]).take(measured((generator.random(count) < 0.2).astype(np.int8))),
            "clip_similarity": measured(generator.normal(0.25, 0.06, count).astype(np.float32)),
            "pixels_sharpness": measured(generator.gamma(2, 200, count).astype(np.float32)),
            "sha256": pa.nulls(count, pa.string()),
            **{f"more_{number}": measured(generator.random(count, np.float32)) for number in range(8)},
        }
    )


def _hexadecimal(content: bytes) -> pa.Array:
    """Uids of these bytes, 16 each."""
    count = len(content) // 16
    ends = np.arange(count + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(content.hex().encode()))


@cache
def _phrases() -> pa.Array:
    return pa.array(synthetic.captions(2_000))
