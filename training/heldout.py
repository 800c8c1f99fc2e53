"""The held-out pictures: read, labelled by agreement, and kept away from training."""

import difflib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.stage import digest
from pipeline.task import TestSet
from training import labels
from training.labels import Classes

NEAR = 4
"""Bits, of the 64 of a perceptual hash, in which two pictures may differ and still be taken for the same."""

LEAK_RULE = (
    f"a pair is left out of every arm if its picture has the sha256 of a held-out one, "
    f"or a perceptual hash (pHash, 64 bits) within {NEAR} bits of a held-out one's"
)


@dataclass(frozen=True)
class HeldOut:
    """Pictures with an agreed label, sorted by name; `labels` and `sha256` are aligned with `paths`.

    `ambiguous` pictures had several classes that enough captions name, `unlabelled` ones had none: they are left out.
    """

    paths: tuple[Path, ...]
    labels: npt.NDArray[np.int16]
    ambiguous: int
    unlabelled: int

    @classmethod
    def read(cls, test: TestSet, classes: Classes) -> "HeldOut":
        """Raises SourceError for a missing column or picture, or where no picture has a label."""
        table = _table(test)
        names = pc.dictionary_encode(table[test.image].cast(pa.string())).combine_chunks()
        named = labels.named(table[test.caption].cast(pa.string()), classes)
        votes = np.zeros((len(names.dictionary), named.shape[1]), np.int64)
        np.add.at(votes, names.indices.to_numpy(), named)
        label = labels.only(votes >= test.agree)
        order = np.argsort(np.array(names.dictionary.to_pylist(), object))
        chosen = order[label[order] >= 0]
        paths = tuple(test.folder / names.dictionary[int(i)].as_py() for i in chosen)
        if not paths:
            raise SourceError(f"{test.location.name}: no picture has {test.agree} captions that name the same class")
        if missing := next((path for path in paths if not path.is_file()), None):
            raise SourceError(f"{test.location.name}: there is no picture {missing}")
        return cls(paths, label[chosen], int((label == labels.SEVERAL).sum()), int((label == labels.NONE).sum()))

    @cached_property
    def sha256(self) -> tuple[str, ...]:
        """Of each file, in hex."""
        return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths)

    @property
    def digest(self) -> str:
        """Of the pictures and their labels."""
        return digest([list(self.sha256), self.labels.tolist()])

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """The files, in order, and what each is called."""
        return ((str(path), path.read_bytes()) for path in self.paths)


def near(hashes: npt.NDArray[np.uint64], others: npt.NDArray[np.uint64], within: int = NEAR) -> npt.NDArray[np.bool_]:
    """Which of `hashes` differ in at most `within` bits from any of `others`."""
    distinct, back = np.unique(hashes, return_inverse=True)
    found = np.zeros(len(distinct), bool)
    for other in np.unique(others):
        found |= np.bitwise_count(distinct ^ other) <= within
    return found[back]


def _table(test: TestSet) -> pa.Table:
    try:
        if test.location.suffix == ".parquet":
            table = pq.read_table(test.location)
        else:
            table = pyarrow.csv.read_csv(test.location)
    except (pa.ArrowInvalid, OSError) as error:
        raise SourceError(f"{test.location.name}: this is neither Parquet nor CSV: {error}") from None
    for column in (test.image, test.caption):
        if column not in table.column_names:
            close = difflib.get_close_matches(column, table.column_names, n=1, cutoff=0.4) or table.column_names
            raise SourceError(f"{test.location.name}: there is no column {column!r}; did you mean {close[0]!r}?")
    return table
