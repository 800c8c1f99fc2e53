"""The labels of a source's pairs: those given on the page of `winnow explore`, and those that `winnow labels` took in.

`winnow calibrate` and `winnow caught` read them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.store.storage import Storage
from pipeline.uids import uid

KEY = "labels/labels.parquet"

WORDS = ("match", "no match", "good", "bad picture")
"""The labels of `winnow explore`: the caption matches the picture or not, or the picture is good or bad."""

GOOD = ("match", "good")
"""The labels of good pairs, for `calibration.good` in the source file."""

EXPLORE = "explore"
"""The labeller of labels that were given in `winnow explore`."""

SCHEMA = pa.schema({
    "uid": pa.string(),
    "url": pa.string(),
    "caption": pa.string(),
    "label": pa.string(),
    "labeller": pa.string(),
    "time": pa.timestamp("us", "UTC"),  # when the label was given; NULL where nobody knows
})  # fmt: skip


@dataclass(frozen=True)
class Added:
    """How many labels were new, replaced another of the same labeller, were there before, or were older than such."""

    new: int
    changed: int
    same: int
    older: int


@dataclass(frozen=True)
class Labels:
    """The labels of a source. Each is written at once and atomically. Several processes may write."""

    storage: Storage

    @property
    def table(self) -> pa.Table:
        """The columns of `SCHEMA`: a row for a pair and a labeller, in the order in which they were first labelled.

        Raises StorageError for a file that is no list of labels.
        """
        if not self.storage.done(KEY):
            return SCHEMA.empty_table()
        path = self.storage.fetch(KEY)
        try:
            rows = pq.read_table(path, schema=SCHEMA).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"{path} is no list of labels, and is left as it is: move it away ({error})") from None
        # Labels had neither a uid nor a labeller once, when only `winnow explore` made them.
        filled = [
            row | {"uid": uid(row["url"], row["caption"]), "labeller": row["labeller"] or EXPLORE}
            for row in rows
            if row["url"] is not None and row["caption"] is not None
        ]
        return pa.Table.from_pylist(filled, SCHEMA)

    def counts(self, labeller: str = EXPLORE) -> Mapping[str, int]:
        """The number of pairs that the labeller gave each label; those of `WORDS` are always there."""
        table = self.table.to_pylist()
        return dict.fromkeys(WORDS, 0) | Counter(row["label"] for row in table if row["labeller"] == labeller)

    def put(self, url: str, caption: str, label: str | None, labeller: str = EXPLORE) -> None:
        """Set the label that a labeller gave a pair; None removes it."""
        with self.storage.turn("labels"):
            rows = _by_pair(self.table)
            key = uid(url, caption), labeller
            if label is None:
                rows.pop(key, None)
            else:
                words = {"url": url, "caption": caption, "label": label}
                rows[key] = {"uid": key[0], "labeller": labeller, "time": datetime.now(UTC), **words}
            self._write(rows.values())

    def add(self, rows: Iterable[Mapping[str, Any]]) -> Added:
        """Take in rows of `SCHEMA`. Of two labels by one labeller for one pair, the later counts.

        A row without a time counts as later.
        """
        counts: Counter[str] = Counter()
        with self.storage.turn("labels"):
            known = _by_pair(self.table)
            for row in rows:
                before = known.get((row["uid"], row["labeller"]))
                change = _change(before, row)
                counts[change] += 1
                if change in ("new", "changed"):
                    known[row["uid"], row["labeller"]] = row
            if counts["new"] or counts["changed"]:
                self._write(known.values())
        return Added(counts["new"], counts["changed"], counts["same"], counts["older"])

    def remove(self, pairs: Collection[tuple[str, str]]) -> None:
        """Remove all labels of these (url, caption) pairs."""
        with self.storage.turn("labels"):
            rows = self.table.to_pylist()
            kept = [row for row in rows if (row["url"], row["caption"]) not in pairs]
            if len(kept) < len(rows):
                self._write(kept)

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        with self.storage.making(KEY) as path:
            pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), path)


def _by_pair(table: pa.Table) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(row["uid"], row["labeller"]): row for row in table.to_pylist()}


def _change(before: Mapping[str, Any] | None, row: Mapping[str, Any]) -> str:
    if before is None:
        return "new"
    if before["label"] == row["label"]:
        return "same"
    if before["time"] and row["time"] and row["time"] < before["time"]:
        return "older"
    return "changed"
