"""A labelled sample: pairs with a label each.

It is a list like any other (Parquet, CSV, TSV or JSON lines) with the columns url, caption and label, and perhaps
labeller. A label says that the pair is good, or names its one fault. Where several people labelled a pair, the label
counts that more than half of them gave. Without one the pair is disputed, and left out.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa

from pipeline.errors import MissingColumnError, SourceError
from pipeline.ledger import lists
from pipeline.settings.pairs import Pairs
from pipeline.store import duck
from pipeline.uids import uid

LABEL = "label"
"""The column of the label."""

LABELLER = "labeller"
"""The column that names who gave the label; a list may be without it."""

_BLANKS = duck.literal("".join(filter(str.isspace, map(chr, range(0x3001)))))
"""What `str.strip` takes away, for SQL."""


_TABLE = pa.schema({"uid": pa.string(), LABEL: pa.string()})
_TEXTS = pa.schema({"url": pa.string(), "caption": pa.string()})
_VOTES = pa.schema({name: pa.string() for name in ("uid", "url", "caption", LABEL, LABELLER)})


@dataclass(frozen=True)
class Labelled:
    """`table` has the columns uid and label, a row a distinct pair in the list's order; `good` are the good labels.

    `repeated` counts the rows that repeat an earlier one. `texts` has the url of each row, and its caption without
    blanks around. `votes` has every label as it was given: uid, url, caption, label, labeller ("" where the list names
    nobody). `disputed` counts the pairs that are not in `table`, because no label has more than half of the votes.
    """

    path: Path
    table: pa.Table
    good: tuple[str, ...]
    repeated: int
    texts: pa.Table
    votes: pa.Table
    disputed: int = 0

    @classmethod
    def read(cls, path: Path, good: Iterable[str]) -> Self:
        """Raises SourceError for a missing file or column, a row without a label, and two labels by one labeller."""
        if not path.is_file():
            raise SourceError(f"there is no labelled sample {path}")
        votes: dict[tuple[str, str], dict[str, str]] = {}
        rows = 0
        for rows, (url, caption, word, labeller) in enumerate(read_rows(path), 1):
            if not word:
                raise SourceError(f"{path.name}, row {rows}: there is no label; add one, or delete the row")
            vote = {"uid": uid(url, caption), "url": url, "caption": caption, LABEL: word, LABELLER: labeller}
            before = votes.setdefault((vote["uid"], labeller), vote)[LABEL]
            if before != word:
                raise SourceError(f"{path.name}, row {rows}: {url} was {before!r} before and is {word!r} here")
        return cls._decided(path, list(votes.values()), tuple(good), rows - len(votes))._sound()

    @classmethod
    def _decided(cls, path: Path, votes: Sequence[dict[str, str]], good: tuple[str, ...], repeated: int) -> Self:
        given: dict[str, list[dict[str, str]]] = {}
        for vote in votes:
            given.setdefault(vote["uid"], []).append(vote)
        decided = [(each[0], word) for each in given.values() if (word := majority(vote[LABEL] for vote in each))]
        table = pa.table({"uid": [vote["uid"] for vote, _ in decided], LABEL: [word for _, word in decided]}, _TABLE)
        texts = [{"url": vote["url"], "caption": vote["caption"].strip()} for vote, _ in decided]
        every = pa.Table.from_pylist(list(votes), _VOTES)
        return cls(path, table, good, repeated, pa.Table.from_pylist(texts, _TEXTS), every, len(given) - len(decided))

    def located(self, con: duckdb.DuckDBPyConnection) -> Self:
        """The sample with the uids of `rows` where a caption there differs by blanks around it alone.

        A spreadsheet or an editor adds such blanks. Of two such captions the first counts.
        """
        sample = self.texts.append_column("uid", self.table["uid"]).append_column("label", self.table["label"])
        con.from_arrow(sample.append_column("place", pa.array(range(len(sample)), pa.int64()))).create("labelled")
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
        if not known and self.disputed:
            raise SourceError(f"{self.path.name}: its labellers disagree on every pair: {self.disputed:,} are disputed")
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


def majority(labels: Iterable[str]) -> str | None:
    """The label that more than half of the labels are; None without one."""
    counts = Counter(labels)
    label, count = counts.most_common(1)[0]
    return label if 2 * count > counts.total() else None


def read_rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """url, caption, label and labeller of each row of a list, "" for a label or a labeller that is not there."""
    with tempfile.TemporaryDirectory() as scratch:
        for batch in lists.read(_pairs(path, LABEL, *_labeller(path, Path(scratch))), Path(scratch)):
            columns = {name: batch[name].to_pylist() for name in batch.schema.names}
            words = (
                ["" if value is None else str(value).strip() for value in columns.get(name, [None] * len(batch))]
                for name in (LABEL, LABELLER)
            )
            yield from zip(columns["url"], columns["caption"], *words, strict=True)


def _pairs(path: Path, *extra: str) -> Pairs:
    return Pairs(location=str(path.resolve()), extra=extra)


def _labeller(path: Path, scratch: Path) -> tuple[str, ...]:
    """The column of the labellers, if the list has one."""
    try:
        next(lists.read(_pairs(path, LABELLER), scratch), None)
    except MissingColumnError:
        return ()
    return (LABELLER,)


def _found(known: Iterable[str]) -> str:
    return f"; its labels are {', '.join(sorted(known)[:10])}"
