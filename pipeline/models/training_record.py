"""What a trained model says of its training: `training.json` beside its weights, and which pairs it has learned.

A manifest names the models that scored it by the digests of their weights. A model's record names the manifest that it
was trained on. Together they are the chain of a learned filter.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError

RECORD, LEARNED = "training.json", "learned.npz"
"""The files of a model's folder: the record, and numbers of what it was trained on."""

FOLDER = "fold-{}"
"""The folder of a fold's model in the folder of all folds, by its number."""

_DIGITS = 16
"""Hex digits of a uid or sha256 that identify it: 64 bits."""

Numbers = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Fold:
    """The model is number `number` of `of`. It was not trained on shards whose number modulo `of` is `number`.

    `shards` has every shard of the ledger at that time: the storage key of its pairs, by its number as text.
    """

    number: int
    of: int
    shards: Mapping[str, str]


@dataclass(frozen=True)
class TrainingRecord:
    """The source, the manifest's id, the recipe and the seed of a training.

    `test` identifies the test set whose pictures were left out: its digest, or how it is split off; None without one.
    `fold` is None for a model that was trained on the kept pairs of all shards.
    """

    source: str
    manifest: str
    recipe: str
    seed: int
    test: Any = None
    fold: Fold | None = None

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The record of a model's folder; None for a model without one. Raises ModelError for a broken one."""
        path = folder / RECORD
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            fold = found.get("fold")
            known = {name: found[name] for name in ("source", "manifest", "recipe")}
            if not all(value.isprintable() for value in known.values()):
                raise ValueError("control characters")
            return cls(**known, seed=found["seed"], test=found.get("test"), fold=Fold(**fold) if fold else None)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(f"{path} is no record of a training ({error!r}): train the model again") from None

    @property
    def facts(self) -> dict[str, Any]:
        """JSON for the card of a manifest."""
        facts = {name: value for name, value in asdict(self).items() if name != "fold"}
        return facts | ({"folds": self.fold.of} if self.fold else {})


@dataclass(frozen=True)
class Learned:
    """What a model was trained on: `pairs` and `pictures` are the sorted leading 64 bits of uids and of sha256."""

    pairs: Numbers
    pictures: Numbers

    @classmethod
    def of(cls, uids: Iterable[str], pictures: Iterable[str]) -> Self:
        """From uids and sha256 in hex."""
        return cls(np.unique(_numbers(uids)), np.unique(_numbers(pictures)))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What the model of a folder was trained on. Raises ModelError."""
        try:
            with np.load(folder / LEARNED, allow_pickle=False) as found:
                return cls(found["pairs"], found["pictures"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ModelError(f"{folder / LEARNED} cannot be read ({error}): train the model again") from None

    def write(self, folder: Path) -> None:
        """Write the file. The same pairs give the same bytes."""
        np.savez(folder / LEARNED, pairs=self.pairs, pictures=self.pictures)

    def has_pairs(self, uids: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Whether the model was trained on each of these pairs."""
        return _among(_numbers(uids), self.pairs)

    def has_pictures(self, sha256: Iterable[str]) -> npt.NDArray[np.bool_]:
        """Whether the model was trained on each of these pictures."""
        return _among(_numbers(sha256), self.pictures)


def _numbers(hexadecimal: Iterable[str]) -> Numbers:
    return np.array([int(each[:_DIGITS], 16) for each in hexadecimal], np.uint64)


def _among(values: Numbers, known: Numbers) -> npt.NDArray[np.bool_]:
    """Which values are in `known`, which is sorted."""
    if not len(known):
        return np.zeros(len(values), bool)
    place = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: npt.NDArray[np.bool_] = known[place] == values
    return found
