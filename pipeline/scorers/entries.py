"""Matches of captions with a list of entries, and their counts in the pool, for balancing a pool over its subjects.

MetaCLIP (Xu et al. 2023, arXiv 2309.16671, algorithm 1): an entry with c matching captions in the pool keeps each of
them with the probability min(1, t / c), independently for each entry; one success is enough. CLIP (Radford et al. 2021,
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
from pipeline.store.parquet import ROW_GROUP
from pipeline.uids import fractions, random_bits

VERSION = 1

LIMIT, LIMIT_PAIRS = 20_000, 400_000_000
"""The limit for an entry, and the number of pairs that it is for, of MetaCLIP and CLIP. The 400 million are the pairs
that remained, of 1.6 billion for MetaCLIP: this limit keeps a larger share of a pool that is equally unbalanced."""

_APART = str.maketrans({mark: f" {mark} " for mark in ",.;:?!`"} | dict.fromkeys("\t\n\r", " "))


class EntriesSpec(PoolSpec):
    """A list of entries (words, names, titles) to look for in captions, as MetaCLIP's metadata."""

    kind: Literal["entries"]
    file: ExistingPath = Field(description="UTF-8 text, an entry a line, or a .json list; letter case counts")
    limit: float | None = Field(
        None,
        gt=0,
        description="t; unset, 20,000 for 400 million pairs, less in proportion for a smaller pool, at least 1",
    )

    def columns(self) -> Mapping[str, pa.DataType]:
        """matched: entries in the caption; rarest: captions of the pool that match the rarest of them;
        probability: 1 - the product over these entries of 1 - min(1, t / captions with the entry), 0 without one;
        draw: a random number from 0 up to 1; rank: its best place among the captions of an entry by draw, from 1.

        rarest and rank are NULL without a match.
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
        """Always fits: it reads only captions."""

    def load(self, of: Callable[[], Any] | None = None) -> "Entries":
        """The scorer with its list. Raises ModelError for a list without entries."""
        return Entries(_read_list(self.file), self.limit)


class Matcher:
    """Finds entries in captions as MetaCLIP does: between spaces, after spaces are added around , . ; : ? ! and `.

    An entry is then a run of words between single spaces. For each word, runs with the lengths of the entries that
    start with it are looked up. An entry with one of these marks inside a word is never found.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._numbers = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
        lengths: dict[str, set[int]] = {}
        for entry in self._numbers:
            words = entry.split(" ")
            lengths.setdefault(words[0], set()).add(len(words))
        self._lengths = {word: tuple(sorted(found)) for word, found in lengths.items()}

    def find(self, caption: str) -> set[int]:
        """The numbers of the entries in the caption."""
        words = caption.translate(_APART).split(" ")
        runs = (
            " ".join(words[start : start + length])
            for start, word in enumerate(words)
            for length in self._lengths.get(word, ())
        )
        return {self._numbers[run] for run in runs if run in self._numbers}


class Entries:
    """Looks up entries caption by caption. Counts and ranks in DuckDB, which spills to disk."""

    def __init__(self, entries: Iterable[str], limit: float | None) -> None:
        self.matcher, self._limit = Matcher(entries), limit

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `EntriesSpec`."""
        drawn = random_bits("entries", pool.column("uid").to_pylist())
        limit = self._limit or max(1.0, LIMIT * len(pool) / LIMIT_PAIRS)
        matches = pool.folder / "matches.parquet"
        with pq.ParquetWriter(matches, pa.schema({"row": pa.int64(), "entry": pa.int32(), "draw": pa.uint64()})) as to:
            for rows, numbers in self._matches(pool, progress):
                arrays = [pa.array(rows, pa.int64()), pa.array(numbers, pa.int32()), pa.array(drawn[rows])]
                to.write_batch(pa.record_batch(arrays, schema=to.schema))
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
        columns = {
            name: found[name].combine_chunks().take(pa.array(place, mask=place < 0)) for name in found.column_names
        }
        return {
            "matched": columns["matched"].fill_null(0),
            "rarest": columns["rarest"],
            "probability": columns["probability"].fill_null(0.0),
            "draw": pa.array(fractions(drawn, bits=24), pa.float32()),
            "rank": columns["rank"],
        }

    def _matches(self, pool: Pool, progress: StepProgress) -> Iterator[tuple[npt.NDArray[np.int64], list[int]]]:
        """Rows of the pool and the entries in their captions, one entry a row number."""
        start = 0
        with pq.ParquetFile(pool.rows) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=["caption"]):
                found = [sorted(self.matcher.find(caption)) for caption in batch["caption"].to_pylist()]
                rows = np.repeat(np.arange(start, start + len(found)), [len(each) for each in found])
                start += len(found)
                progress(start, len(pool))
                yield rows, [number for each in found for number in each]


def _read_list(path: Path) -> list[str]:
    """The entries of a list, stripped. Raises ModelError for a file that is no list."""
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
