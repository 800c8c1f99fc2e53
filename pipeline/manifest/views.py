"""The views and tables of SQL: rows, kept, dropped, failed and history over Parquet, manifests and trials as tables."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.store import duck
from pipeline.store.storage import Storage
from pipeline.trials.trials import finished

MANIFESTS = pa.schema(
    {
        "id": pa.string(),
        "parent": pa.string(),
        "source": pa.string(),
        "recipe": pa.string(),
        "rows": pa.int64(),
        "kept": pa.int64(),
        "dropped": pa.int64(),
        "failed": pa.int64(),
        "quarantined": pa.int64(),
        "time": pa.string(),
        "complete": pa.bool_(),
    }
)
"""The view `manifests`: a row for each time that a manifest became the newest, oldest first. A manifest that is not
`complete` lost rows to a takedown, and cannot be read."""

TRIALS = pa.schema(
    {
        "key": pa.string(),
        "source": pa.string(),
        "manifest": pa.string(),
        "learner": pa.string(),
        "arm": pa.string(),
        "augmented": pa.bool_(),
        "augmentation": pa.string(),
        "seed": pa.int64(),
        "draw": pa.string(),
        "kind": pa.string(),
        "score": pa.float64(),
        "f1_macro": pa.float64(),
        "precision_macro": pa.float64(),
        "recall_macro": pa.float64(),
        "accuracy": pa.float64(),
        "r2": pa.float64(),
        "mae": pa.float64(),
        "mean_recall": pa.float64(),
        "f1": pa.float64(),
        "baseline": pa.float64(),
        "learning_rate": pa.float64(),
        "images": pa.int64(),
        "seconds": pa.float64(),
        "seconds_per_point": pa.float64(),
        "memory_mb": pa.int64(),
        "curve": pa.list_(pa.struct({"images": pa.int64(), "score": pa.float64()})),
        "losses": pa.list_(
            pa.struct({"epoch": pa.int64(), "steps": pa.int64(), "train": pa.float64(), "validation": pa.float64()})
        ),
    }
)
"""The minimum columns of the view `trials`. Every other plain value of a trial is a column, too.

`score` is the main score. `images` are seen in `seconds` of training, without the features, which are computed once for
all trials. A point is a hundredth of the main score above `baseline`, the score of a constant prediction. Energy is not
measured. `curve` has the score after each number of images, `losses` those of a model by epoch.
"""


def of_rows(manifests: Sequence[Manifest]) -> dict[str, str]:
    """The SELECTs over the rows of these manifests, one for each source, by the name of the view."""
    parts = [f"SELECT *, {duck.literal(each.source)} AS source FROM ({each.view()})" for each in manifests]
    return {
        "rows": "\nUNION ALL BY NAME\n".join(parts),
        "kept": "FROM rows WHERE kept",
        "dropped": "FROM rows WHERE status = 'ok' AND NOT kept",
        "failed": "FROM rows WHERE status = 'failed'",
    }


def every(storages: Iterable[Storage]) -> list[Manifest]:
    """Every complete published manifest, without repetitions, the oldest first. One that the store lost is left out."""
    known = ((storage, name) for storage in storages for name in dict.fromkeys(each.id for each in commits(storage)))
    there = (Manifest.open(storage, name) for storage, name in known if storage.done(f"manifests/{name}.json"))
    return [each for each in there if each.complete]


def history(storages: Iterable[Storage]) -> dict[str, str]:
    """The view `history`: which row was in which manifest, and on which side. Empty without a manifest.

    Its columns: source, manifest, uid, url, sha256, status, kept, dropped_by, copies.
    """
    parts = [
        f"SELECT {duck.literal(each.source)} AS source, {duck.literal(each.id)} AS manifest, "
        f"uid, url, sha256, status, kept, dropped_by, copies FROM ({each.view()})"
        for each in every(storages)
    ]
    return {"history": "\nUNION ALL\n".join(parts)} if parts else {}


def draws(storages: Iterable[Storage]) -> list[Path]:
    """The files with the rows that were drawn for trials."""
    return [path for storage in storages for path in storage.fetch_all(storage.keys("draws"))]


def trained_on(storages: Iterable[Storage]) -> dict[str, str]:
    """The view `trained_on`: which trial was trained on which row, how many times, and with which score.

    Its columns: uid, times, and of the trial source, manifest, key, learner, arm, augmented, seed, score, f1_macro, r2.
    It needs the table `trials`.
    """
    drawn = (
        "SELECT NULL::VARCHAR AS uid, NULL::VARCHAR AS arm, NULL::BIGINT AS times, NULL::VARCHAR AS draw WHERE false"
    )
    if files := draws(storages):
        read = duck.parquet(files, "filename")
        drawn = f"SELECT uid, arm, times, parse_filename({duck.FILE}, true) AS draw FROM {read}"
    columns = "source, manifest, key, learner, arm, augmented, seed, score, f1_macro, r2"
    return {"trained_on": f"SELECT uid, times, {columns} FROM trials JOIN ({drawn}) USING (draw, arm)"}


def manifests(storages: Iterable[Storage]) -> pa.Table:
    """The table `manifests`."""
    rows = []
    for storage in storages:
        for commit in commits(storage):
            manifest = Manifest.open(storage, commit.id)
            counts = asdict(manifest.counts)
            rows.append(
                {
                    **asdict(commit),
                    **counts,
                    "source": manifest.source,
                    "recipe": manifest.document.inputs.recipe.name,
                    "complete": manifest.complete,
                    "rows": counts["input"] - counts["repeated"],
                }
            )
    return pa.Table.from_pylist(rows, MANIFESTS)


def trials(storages: Iterable[Storage]) -> pa.Table:
    """The table `trials`."""
    rows = []
    for storage in storages:
        for path in storage.fetch_all(finished(storage)):
            trial: dict[str, Any] = json.loads(path.read_bytes())
            plain = {n: v for n, v in trial.items() if n in TRIALS.names or isinstance(v, str | int | float | bool)}
            rows.append({"key": path.stem, **plain})
    others = sorted({name for row in rows for name in row} - set(TRIALS.names))
    found = {name: pa.array([row.get(name) for row in rows]) for name in others}
    return pa.table(
        {**{field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in TRIALS}, **found}
    )
