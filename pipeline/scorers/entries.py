"""How captions match a list of entries, and how many others match the same: what balances a pool over its subjects.

MetaCLIP (Xu et al. 2023, arXiv 2309.16671, algorithm 1): an entry that c captions of the pool match lets each of them
in with the probability min(1, t / c), drawn for each entry apart; one success is enough. CLIP (Radford et al. 2021,
section 2.2) takes at most 20,000 pairs for each of its queries.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.errors import ModelError
from pipeline.progress import StepProgress
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec
from pipeline.settings.fields import ExistingPath
from pipeline.store import duck
from pipeline.store.digests import file_digest
from pipeline.uids import fractions, random_bits

VERSION = 1
"""Raised whenever the same pool and list would get other columns."""

LIMIT, OF = 20_000, 400_000_000
"""Of pairs for an entry, and of how many pairs: MetaCLIP's and CLIP's. The 400 million are those that were left; in
MetaCLIP's case of 1.6 billion, so that this keeps a larger share of a pool that is as lopsided."""

ROWS = 65_536
"""Captions that are looked through at once."""

_APART = str.maketrans({mark: f" {mark} " for mark in ",.;:?!`"} | dict.fromkeys("\t\n\r", " "))


class EntriesSpec(PoolSpec):
    """A list of entries (words, names, titles) to look for in captions, as MetaCLIP's metadata."""

    kind: Literal["entries"]
    file: ExistingPath = Field(description="UTF-8 text, an entry a line, or a .json list; letter case counts")
    limit: float | None = Field(
        None,
        gt=0,
        description="t; unset, 20,000 for 400 million pairs, as much less as the pool is smaller, at least 1",
    )

    def columns(self) -> Mapping[str, pa.DataType]:
        """matched: entries that the caption has; rarest: captions of the pool with the least common of them;
        probability: 1 - the product over these entries of 1 - min(1, t / captions with the entry), 0 without one;
        draw: 0 up to 1, by lot; rank: in the order by lot of an entry's captions, the best place it has, from 1.

        rarest and rank are NULL where nothing matched.
        """
        return {
            "matched": pa.int32(),
            "rarest": pa.int32(),
            "probability": pa.float32(),
            "draw": pa.float32(),
            "rank": pa.int32(),
        }

    def identity(self) -> Mapping[str, Any]:
        """The version, the list, and the limit."""
        return {"version": VERSION, "file": file_digest(self.file), "limit": self.limit}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """It reads captions alone."""

    def load(self, of: Callable[[], Any] | None = None) -> "Entries":
        """The list in memory. Raises ModelError where there is no entry in it."""
        return Entries(_listed(self.file), self.limit)


class Matcher:
    """Finds entries in captions as MetaCLIP does: with a space on either side, once , . ; : ? ! ` are set apart.

    Such an entry is a run of the words between single spaces, so that runs are looked up, as long as entries with that
    first word are. An entry with one of these marks inside a word is never found.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._numbers = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
        lengths: dict[str, set[int]] = {}
        for entry in self._numbers:
            words = entry.split(" ")
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: tuple(sorted(found)) for word, found in lengths.items()}

    def find(self, caption: str) -> set[int]:
        """The numbers of the entries that the caption has."""
        words = caption.translate(_APART).split(" ")
        runs = (
            " ".join(words[start : start + length])
            for start, word in enumerate(words)
            for length in self._lengths.get(word, ())
        )
        return {self._numbers[run] for run in runs if run in self._numbers}


class Entries:
    """Looks entries up caption by caption; counts and ranks in DuckDB, which spills what memory does not hold."""

    def __init__(self, entries: Iterable[str], limit: float | None) -> None:
        self.matcher, self._limit = Matcher(entries), limit

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `EntriesSpec`."""
        drawn = random_bits("entries", pool.column("uid").to_pylist())
        limit = self._limit or max(1.0, LIMIT * len(pool) / OF)
        matches = pool.folder / "matches.parquet"
        with pq.ParquetWriter(matches, pa.schema({"row": pa.int64(), "entry": pa.int32(), "draw": pa.uint64()})) as to:
            for rows, numbers in self._matches(pool, progress):
                columns = [pa.array(rows, pa.int64()), pa.array(numbers, pa.int32()), pa.array(drawn[rows])]
                to.write_batch(pa.record_batch(columns, schema=to.schema))
        with duck.connect(pool.folder) as con:
            found = con.sql(
                f"""
                WITH matches AS (FROM {duck.parquet([matches])}),
                counts AS (SELECT entry, count(*) AS pairs FROM matches GROUP BY entry),
                placed AS (SELECT *, row_number() OVER (PARTITION BY entry ORDER BY draw, row) AS place
                           FROM matches JOIN counts USING (entry))
                SELECT row, count(*)::INTEGER AS matched, min(pairs)::INTEGER AS rarest,
                       (1 - product(1 - least(1, $limit / pairs) ORDER BY entry))::FLOAT AS probability,
                       min(place)::INTEGER AS rank
                FROM placed GROUP BY row ORDER BY row
                """,
                params={"limit": limit},
            ).to_arrow_table()
        place = np.full(len(pool), -1)
        place[found["row"].to_numpy()] = np.arange(len(found))
        told = {name: found[name].combine_chunks().take(pa.array(place, mask=place < 0)) for name in found.column_names}
        return {
            "matched": told["matched"].fill_null(0),
            "rarest": told["rarest"],
            "probability": told["probability"].fill_null(0.0),
            "draw": pa.array(fractions(drawn, bits=24), pa.float32()),
            "rank": told["rank"],
        }

    def _matches(self, pool: Pool, progress: StepProgress) -> Iterator[tuple[npt.NDArray[np.int64], list[int]]]:
        """Rows of the pool and the entries that their captions have, as many of either."""
        start = 0
        with pq.ParquetFile(pool.rows) as file:
            for batch in file.iter_batches(ROWS, columns=["caption"]):
                found = [sorted(self.matcher.find(caption)) for caption in batch["caption"].to_pylist()]
                rows = np.repeat(np.arange(start, start + len(found)), [len(each) for each in found])
                start += len(found)
                progress(start, len(pool))
                yield rows, [number for each in found for number in each]


def _listed(path: Path) -> list[str]:
    """The entries of a list, without spaces at their ends. Raises ModelError for a file that is none."""
    try:
        text = path.read_text(encoding="utf-8")
        lines = json.loads(text) if path.suffix == ".json" else text.splitlines()
        entries = [line.strip() for line in lines]
    except (ValueError, TypeError, AttributeError):
        raise ModelError(
            f"{path} is no list of entries: UTF-8 text, an entry a line, or a .json list of texts"
        ) from None
    if not any(entries):
        raise ModelError(f"{path} has no entries")
    return [entry for entry in entries if entry]
