"""Recorded embeddings of which no pair has one: the keys of the file and those of the source differ."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from pipeline.errors import ModelError
from pipeline.scorers.recorded import RecordedSpec, Recording
from pipeline.scorers.spec import Spec
from pipeline.store import duck
from pipeline.store.stage import Stage


def check(
    con: duckdb.DuckDBPyConnection, scorers: Mapping[str, Spec], scores: Mapping[str, Stage], rows: Sequence[Path]
) -> None:
    """Raises ModelError for a recorded scorer without a similarity of any downloaded pair in these files of rows."""
    for name, spec in scorers.items():
        if not isinstance(spec, RecordedSpec):
            continue
        ((downloaded, scored),) = con.execute(
            f"SELECT count(*) FILTER (status = 'ok'), count(\"{name}_similarity\") FROM {duck.parquet(rows)}"
        ).fetchall()
        if downloaded and not scored:
            sides = "; ".join(
                f"{side}: {_keys(con, recording, rows)}"
                for side, recording in (("image", spec.image), ("text", spec.text))
            )
            raise ModelError(
                f"scorers.{name}: no key was found, so none of {downloaded:,} pairs has a similarity. {sides}. Correct "
                f"key, by and where; if they are right, remove the folder {scores[name].folder} to look them up again"
            )


def _keys(con: duckdb.DuckDBPyConnection, recording: Recording, rows: Sequence[Path]) -> str:
    """A key of the file beside a value that is looked up."""
    batch = next(pq.ParquetFile(recording.file).iter_batches(1, columns=[recording.key]))
    key = batch[recording.key][0].as_py()
    found = con.execute(
        f'SELECT "{recording.by}" FROM {duck.parquet(rows)} WHERE "{recording.by}" IS NOT NULL LIMIT 1'
    ).fetchone()
    return f"{recording.by} is {found and found[0]!r}, {recording.key} in {recording.file.name} is {key!r}"
