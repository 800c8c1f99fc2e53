"""What Prefect's pages show of a source. Each thing has one key, so that the page of a key shows how it changed.

Keys are those of the source and the thing: demo-counts, demo-funnel, demo-failures, demo-gain, demo-report, and a
progress for each step, such as demo-download.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

if TYPE_CHECKING:
    from pipeline.filtering.funnel import Step
    from pipeline.manifest.manifest import Manifest
    from pipeline.store.storage import Storage

EVERY = 2.0
"""Seconds between two updates of a progress. Each update is a request."""

PAUSE = 60.0
"""Seconds without updates after the server did not take one. The work goes on."""


def key(source: str, name: str) -> str:
    """The key of a thing. Prefect allows small letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", f"{source}-{name}".lower()).strip("-")


def table(rows: Sequence[dict[str, Any]], source: str, name: str, description: str) -> None:
    """A table with a row for each dict. The description is Markdown."""
    create_table_artifact(list(rows), key=key(source, name), description=description)


def publication(manifest: "Manifest", steps: "Sequence[Step]") -> None:
    """The counts, the funnel and the failures of a manifest."""
    from pipeline.pages import failures

    source, counts = manifest.source, manifest.counts
    of = f"of manifest {manifest.id}"
    outcomes = {"of them unscored" if name == "unscored" else name: count for name, count in asdict(counts).items()}
    table([outcomes], source, "counts", f"Where every row went, {of}")
    table(
        [_funnel_row(step) for step in steps], source, "funnel", f"What each filter does to {counts.pool:,} pairs {of}"
    )
    with manifest.connection() as con:
        causes = failures.causes(con, manifest)
    rows = [{"cause": each.name, "pairs": each.count, "share of all": f"{each.share:.1%}"} for each in causes]
    table(
        rows or [{"cause": "none", "pairs": 0, "share of all": "0.0%"}], source, "failures", f"Pairs that failed, {of}"
    )


def report(storage: "Storage", file: str, manifest: str) -> None:
    """A link to the report. A browser opens it only on the machine, or with the rights, that reach the store."""
    where = storage.address(file)
    link = Path(where).as_uri() if isinstance(storage.root, Path) else where
    how = f"Of manifest {manifest}. If your browser refuses the link, open `{where}`."
    create_link_artifact(link, f"report of {storage.name}", key=key(storage.name, "report"), description=how)


class Progress:
    """The progress of a step of a source. It appears with the first update."""

    def __init__(self, source: str, step: str) -> None:
        self._source, self._step = source, step
        self._id: UUID | None = None
        self._next = 0.0

    def update(self, done: int, total: int) -> None:
        """`done` of `total` are done. Updates that follow one another fast are left out, but for the last one."""
        now = time.monotonic()
        if not total or (now < self._next and (done < total or self._id is None)):
            return
        self._next = now + EVERY
        try:
            self._send(100.0 * done / total, f"{self._step}: {done:,} of {total:,}")
        except httpx.HTTPError:
            self._next = time.monotonic() + PAUSE

    def _send(self, share: float, words: str) -> None:
        if self._id is None:
            found = create_progress_artifact(share, key=key(self._source, self._step), description=words)
            self._id = UUID(str(found))
        else:
            update_progress_artifact(self._id, progress=share, description=words)


def _funnel_row(step: "Step") -> dict[str, Any]:
    return {
        "filter": step.filter,
        "sql": step.sql,
        "passes alone": step.alone,
        "in sequence": step.sequence,
        "fails": step.fails,
        "unscored": step.unscored,
        "alone drops": step.costs,
    }
