"""A labelled sample: pairs with one label each.

It is a list like any other (Parquet, CSV, TSV or JSON lines) with the columns url, caption and label. A label says that
the pair is good, or names its one fault.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.ledger import lists
from pipeline.settings.pairs import Pairs
from pipeline.uids import uid

LABEL = "label"
"""The column of the label."""


@dataclass(frozen=True)
class Labelled:
    """`table` has the columns uid and label, a row a distinct pair in the list's order; `good` are the good labels.

    `repeated` counts the rows that repeat an earlier one.
    """

    path: Path
    table: pa.Table
    good: tuple[str, ...]
    repeated: int

    @classmethod
    def read(cls, path: Path, good: Iterable[str]) -> Self:
        """Raises SourceError for a missing file or column, a row without a label, and a pair with two labels."""
        if not path.is_file():
            raise SourceError(f"there is no labelled sample {path}")
        labels: dict[str, str] = {}
        rows = 0
        with tempfile.TemporaryDirectory() as scratch:
            for batch in lists.read(Pairs(location=str(path.resolve()), extra=(LABEL,)), Path(scratch)):
                for url, caption, label in zip(*(batch[name].to_pylist() for name in batch.schema.names), strict=True):
                    rows += 1
                    word = str("" if label is None else label).strip()
                    if not word:
                        raise SourceError(f"{path.name}, row {rows}: there is no label; add one, or delete the row")
                    before = labels.setdefault(uid(url, caption), word)
                    if before != word:
                        raise SourceError(f"{path.name}, row {rows}: {url} was {before!r} before and is {word!r} here")
        table = pa.table({"uid": list(labels), "label": list(labels.values())})
        return cls(path, table, tuple(good), rows - len(labels))._sound()

    def _sound(self) -> Self:
        known = self.counts
        if not set(self.good) & set(known):
            good = ", ".join(repr(label) for label in self.good)
            raise SourceError(
                f"{self.path.name}: no pair is labelled {good}, which calibration.good says{_found(known)}"
            )
        return self

    @property
    def counts(self) -> Counter[str]:
        """Pairs by label."""
        return Counter(self.table["label"].to_pylist())

    @property
    def labels(self) -> Sequence[str]:
        """All labels, the good ones first, then the commoner before the rarer."""
        return sorted(self.counts, key=lambda label: (label not in self.good, -self.counts[label], label))


def _found(known: Iterable[str]) -> str:
    return f"; its labels are {', '.join(sorted(known)[:10])}"
