"""The vocabulary of answers: a model chooses among them, as a classifier does."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt

from pipeline.ledger.asked import agreed

UNKNOWN = -1
"""The number of an answer that is not in the vocabulary."""


@dataclass(frozen=True)
class Vocabulary:
    """Distinct `answers`, the most frequent first. The number of an answer is its place."""

    answers: tuple[str, ...]

    @classmethod
    def of(cls, answers: Iterable[Sequence[str]], most: int = 0) -> Self:
        """The `most` frequent answers of questions, or all of them for 0. Of equally frequent ones the first by name.

        Each question counts once, by the answer that most people gave to it.
        """
        counts = Counter(chosen for each in answers if (chosen := agreed(each)) is not None)
        ordered = sorted(counts, key=lambda answer: (-counts[answer], answer))
        return cls(tuple(ordered[:most] if most else ordered))

    def encode(self, answers: Iterable[Sequence[str]]) -> npt.NDArray[np.int64]:
        """The number of the answer that most people gave to each question, int64 [questions], or `UNKNOWN`."""
        chosen = [agreed(each) for each in answers]
        return np.array([UNKNOWN if each is None else self._numbers.get(each, UNKNOWN) for each in chosen], np.int64)

    def share_unanswerable(self, answers: Sequence[Sequence[str]]) -> float:
        """The share of questions none of whose answers is in the vocabulary."""
        known = [any(each in self._numbers for each in given) for given in answers]
        return 1 - sum(known) / len(known) if known else 0.0

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {answer: number for number, answer in enumerate(self.answers)}
