"""What a selection chooses from, and what it chose."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.scorers.target_file import Target

Copies = npt.NDArray[np.uint16]
"""How many times each pair is kept."""

MOST_COPIES = 2**16 - 1
"""Of one pair."""


class Vectors(Protocol):
    """Stored embeddings of one side: `vectors[rows]` is float16 [rows, dim], read from disk where it is used.

    A row without an embedding is NaN.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and dimensions."""
        ...

    def __getitem__(self, rows: Any) -> npt.NDArray[np.float16]: ...


class StoredEmbeddings(Protocol):
    """The embeddings of the survivors by one scorer, in their order."""

    @property
    def pictures(self) -> Vectors:
        """Those of the pictures."""
        ...

    @property
    def captions(self) -> Vectors:
        """Those of the captions."""
        ...


@dataclass(frozen=True)
class Scorers:
    """The scorers that a selection may name: those that store embeddings, and those of kind target_features."""

    embeddings: Collection[str]
    features: Collection[str]


@dataclass(frozen=True)
class Survivors:
    """The pairs that pass every filter and `distinct`, in ledger order.

    `pool` is the number of downloaded pairs. `values` has the numbers that the selection asked for, by name, NaN for
    NULL: float64 [survivors]. `embeddings` opens those of a scorer; it raises ModelError if it stored none. `target`
    reads the features that a scorer of kind target_features stored.
    """

    uids: list[str]
    pool: int
    values: Mapping[str, npt.NDArray[np.float64]]
    embeddings: Callable[[str], StoredEmbeddings]
    target: Callable[[str], Target]

    def __len__(self) -> int:
        return len(self.uids)


@dataclass(frozen=True)
class Chosen:
    """How many times each survivor is kept, and which survivors lack what the selection needs: these are not kept."""

    copies: Copies
    unknown: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Size:
    """How many survivors a selection keeps, and how many of them lack what it needs."""

    kept: int
    unknown: int
