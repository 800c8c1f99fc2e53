"""Recorded embeddings and the pairs of a source: no pair has one because the keys differ, or some do not fit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from pipeline.errors import ModelError
from pipeline.schema import score_column
from pipeline.scorers.aligned import AlignedSpec
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scorers.spec import NORM, Spec
from pipeline.store import duck
from pipeline.store.stage import Stage

_FAULTS = {
    "absent": "without a row",
    "several": "with several rows that differ",
    "unusable": "with a vector that is not finite or has length 0",
    "unnormalised": "with a vector that was not normalised, and is now",
}
"""What is counted of pairs, in words. All but the last have no similarity."""


def check(
    con: duckdb.DuckDBPyConnection, scorers: Mapping[str, Spec], scores: Mapping[str, Stage], rows: Sequence[Path]
) -> None:
    """Raises ModelError for a recorded scorer that found the key of no downloaded pair of these files of rows."""
    for name, spec in scorers.items():
        if not isinstance(spec, RecordedSpec | AlignedSpec):
            continue
        found = f'"{name}_rows" > 0' if isinstance(spec, AlignedSpec) else f'"{name}_similarity" IS NOT NULL'
        ((downloaded, matched),) = con.execute(
            f"SELECT count(*) FILTER (status = 'ok'), count(*) FILTER ({found}) FROM {duck.parquet(rows)}"
        ).fetchall()
        if downloaded and not matched:
            sides = "; ".join(_keys(con, *each, rows) for each in _joins(spec))
            raise ModelError(
                f"scorers.{name}: no key was found, so none of {downloaded:,} pairs has a similarity. {sides}. Correct "
                f"key, by and where; if they are right, remove the folder {scores[name].folder} to look them up again"
            )


def count(con: duckdb.DuckDBPyConnection, scorers: Mapping[str, Spec], rows: Sequence[Path]) -> dict[str, Any]:
    """For a card: by scorer of aligned embeddings, what fits the downloaded pairs in these files of rows.

    `rows` are those of the embeddings' files, `used` those whose key a pair has. The others count pairs: see `_FAULTS`.
    """
    found = {name: _count(con, name, spec, rows) for name, spec in scorers.items() if isinstance(spec, AlignedSpec)}
    return {"aligned": found} if found else {}


def remarks(card: Mapping[str, Any]) -> list[str]:
    """A line for each scorer of aligned embeddings."""
    return [_remark(name, found) for name, found in card.get("aligned", {}).items()]


def _remark(name: str, found: Mapping[str, int]) -> str:
    pairs = "".join(f"; pairs {text}: {found[key]:,}" for key, text in _FAULTS.items() if found[key])
    spare = found["rows"] - found["used"]
    used = f"embeddings of {found['used']:,} of {found['rows']:,} rows are used"
    return f"{name}: {used}; rows of no downloaded pair: {spare:,}{pairs}"


def _count(con: duckdb.DuckDBPyConnection, name: str, spec: AlignedSpec, rows: Sequence[Path]) -> dict[str, int]:
    similarity, found, image, text = (
        duck.identifier(score_column(name, column)) for column in ("similarity", "rows", "image_norm", "text_norm")
    )
    scored = f"FROM {duck.parquet(rows)} WHERE {found} IS NOT NULL"
    lone = f"({found} > 1 AND {image} IS NULL AND {text} IS NULL)"
    off = " OR ".join(f"abs({each} - 1) > {NORM}" for each in (image, text))
    ((absent, several, unusable, unnormalised),) = con.execute(
        f"SELECT count(*) FILTER ({found} = 0), count(*) FILTER ({lone}), "
        f"count(*) FILTER ({found} > 0 AND {similarity} IS NULL AND NOT {lone}), "
        f"count(*) FILTER ({similarity} IS NOT NULL AND ({off})) FROM ({scored})"
    ).fetchall()
    by = ", ".join(map(duck.identifier, spec.columns_of_source))
    ((used,),) = con.execute(
        "SELECT coalesce(sum(there), 0)::BIGINT "
        f"FROM (SELECT any_value({found}) AS there FROM ({scored}) GROUP BY {by})"
    ).fetchall()
    every = sum(pq.read_metadata(part.keys).num_rows for part in spec.parts())
    counts = {"absent": absent, "several": several, "unusable": unusable, "unnormalised": unnormalised}
    return {"rows": every, "used": used, **counts}


def _joins(spec: RecordedSpec | AlignedSpec) -> Iterator[tuple[str, Path, str, str]]:
    """For each side: its name, its file of keys, the column of the file, and the column of the source."""
    if isinstance(spec, AlignedSpec):
        for key, by in zip(spec.keys, spec.columns_of_source, strict=True):
            yield "key", spec.parts()[0].keys, key, by
    else:
        yield "image", spec.image.file, spec.image.key, spec.image.by
        yield "text", spec.text.file, spec.text.key, spec.text.by


def _keys(con: duckdb.DuckDBPyConnection, side: str, file: Path, key: str, by: str, rows: Sequence[Path]) -> str:
    """A key of the file beside a value that is looked up."""
    batch = next(pq.ParquetFile(file).iter_batches(1, columns=[key]))
    found = con.execute(f'SELECT "{by}" FROM {duck.parquet(rows)} WHERE "{by}" IS NOT NULL LIMIT 1').fetchone()
    return f"{side}: {by} is {found and found[0]!r}, {key} in {file.name} is {batch[key][0].as_py()!r}"
