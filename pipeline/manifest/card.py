"""The card of a manifest: facts about how it was made that are not part of its id."""

import json
import math
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from filters.core import Recipe
from pipeline.manifest import chain
from pipeline.store import duck
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    from pipeline.scoring.plan import Results
    from pipeline.sources.source import Source

_LIBRARIES = ("duckdb", "pyarrow", "torch", "open_clip_torch", "img2dataset", "pillow", "winnow")


def key(manifest: str) -> str:
    """The storage key of the card of a manifest with this id."""
    return f"manifests/{manifest}.card.json"


def describe(con: duckdb.DuckDBPyConnection, storage: Storage, made: "Results", rows: Sequence[Path]) -> dict[str, Any]:
    """The stages, versions, certificates and trainings behind the rows in these files, and the range of every score.

    `repeats` counts the downloaded pairs, and their different pictures (a URL in a shard has one) and captions.
    """
    plan = made.plan
    certified = {name: plan.certificate(name) for name in plan.scores}
    return {
        "made_by": {stage.name: dict(stage.made_by) for stage in made.stages},
        "certificates": {
            name: json.loads(storage.fetch(key).read_bytes()) for name, key in certified.items() if storage.done(key)
        },
        "trainings": chain.records(plan.source.scorers),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES},
        "ranges": _ranges(con, rows, _numbers(plan.source)),
        "repeats": _repeats(con, rows),
    }


def why(recipe: Recipe) -> dict[str, Any]:
    """The sentences of the recipe's filters, by name."""
    return {"why": {each.name: each.why for each in recipe.filters}}


def _repeats(con: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> dict[str, int]:
    """Digests are counted, of 64 bits: captions of ten million pairs would fill memory."""
    counts = "count(*), count(DISTINCT hash(shard, member)), count(DISTINCT hash(caption))"
    row = con.execute(f"SELECT {counts} FROM {duck.parquet(paths)} WHERE status = 'ok'").fetchone() or ()
    return dict(zip(("pairs", "pictures", "captions"), row, strict=True))


def _ranges(
    con: duckdb.DuckDBPyConnection, paths: Sequence[Path], columns: Sequence[str]
) -> dict[str, dict[str, float | int | None]]:
    """For each score column: the number of pairs that have a score, the lowest, the mean and the highest."""
    if not columns:
        return {}
    sums = [f'count("{name}"), min("{name}"), avg("{name}"), max("{name}")' for name in columns]
    row = con.execute(f"SELECT {', '.join(sums)} FROM {duck.parquet(paths)}").fetchone() or ()
    values = [float(f"{value:.6g}") if value is not None and math.isfinite(value) else None for value in row]
    four = [values[at : at + 4] for at in range(0, len(values), 4)]
    return {
        name: dict(zip(("count", "min", "mean", "max"), each, strict=True))
        for name, each in zip(columns, four, strict=True)
    }


def _numbers(source: "Source") -> list[str]:
    """The score columns that have a range. Hashes have none."""
    from pipeline.sources.columns import row_columns, score_columns

    columns = row_columns(pa.schema([]), source.scorers)
    return [
        name
        for name in score_columns(source.scorers)
        if pa.types.is_floating(columns.field(name).type) or pa.types.is_signed_integer(columns.field(name).type)
    ]
