"""A labelled sample: pairs with one label each.

It is a list like any other (Parquet, CSV, TSV or JSON lines) with the columns url, caption and label. A label says that
the pair is good, or names its one fault.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.ledger import lists
from pipeline.settings.pairs import Pairs
from pipeline.store import duck
from pipeline.uids import uid

LABEL = "label"
"""The column of the label."""

_BLANKS = duck.literal("".join(filter(str.isspace, map(chr, range(0x3001)))))
"""What `str.strip` takes away, for SQL."""


@dataclass(frozen=True)
class Labelled:
    """`table` has the columns uid and label, a row a distinct pair in the list's order; `good` are the good labels.

    `repeated` counts the rows that repeat an earlier one. `texts` has the url of each row, and its caption without
    blanks around.
    """

    path: Path
    table: pa.Table
    good: tuple[str, ...]
    repeated: int
    texts: pa.Table

    @classmethod
    def read(cls, path: Path, good: Iterable[str]) -> Self:
        """Raises SourceError for a missing file or column, a row without a label, and a pair with two labels."""
        if not path.is_file():
            raise SourceError(f"there is no labelled sample {path}")
        labels: dict[str, str] = {}
        texts: dict[str, tuple[str, str]] = {}
        rows = 0
        with tempfile.TemporaryDirectory() as scratch:
            for batch in lists.read(Pairs(location=str(path.resolve()), extra=(LABEL,)), Path(scratch)):
                for url, caption, label in zip(*(batch[name].to_pylist() for name in batch.schema.names), strict=True):
                    rows += 1
                    word = str("" if label is None else label).strip()
                    if not word:
                        raise SourceError(f"{path.name}, row {rows}: there is no label; add one, or delete the row")
                    texts[uid(url, caption)] = url, caption.strip()
                    before = labels.setdefault(uid(url, caption), word)
                    if before != word:
                        raise SourceError(f"{path.name}, row {rows}: {url} was {before!r} before and is {word!r} here")
        table = pa.table({"uid": list(labels), "label": list(labels.values())})
        urls, captions = ([each[place] for each in texts.values()] for place in (0, 1))
        return cls(path, table, tuple(good), rows - len(labels), pa.table({"url": urls, "caption": captions}))._sound()

    def located(self, con: duckdb.DuckDBPyConnection) -> Self:
        """The sample with the uids of `rows` where a caption there differs by blanks around it alone.

        A spreadsheet or an editor adds such blanks. Of two such captions the first counts.
        """
        sample = self.texts.append_column("uid", self.table["uid"]).append_column("label", self.table["label"])
        con.from_arrow(sample.append_column("place", pa.array(range(len(sample))))).create("labelled")
        found = con.sql(
            "WITH other AS (SELECT place, min(rows.uid) AS uid FROM labelled JOIN rows USING (url) "
            "WHERE labelled.uid NOT IN (SELECT uid FROM rows SEMI JOIN labelled USING (uid)) "
            f"AND trim(rows.caption, {_BLANKS}) = labelled.caption GROUP BY place), "
            "every AS (SELECT place, coalesce(other.uid, labelled.uid) AS uid, label "
            "FROM labelled LEFT JOIN other USING (place)) "
            "SELECT uid, first(label ORDER BY place) AS label FROM every GROUP BY uid ORDER BY min(place)"
        ).to_arrow_table()
        con.execute("DROP TABLE labelled")
        return replace(self, table=found, repeated=self.repeated + len(self.table) - len(found))

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
