"""Questions about pictures, with the answers that people gave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ledger.asked import answers_of


@dataclass(frozen=True)
class Questions:
    """`picture`, int64 [questions], numbers the pictures. Each question has one answer or several, in their order."""

    picture: npt.NDArray[np.int64]
    question: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, rows: pa.Table, picture: npt.NDArray[np.int64]) -> Self:
        """The columns `question` and `target`, an answer or a list of answers, of rows about these pictures."""
        asked = tuple(each or "" for each in rows["question"].cast(pa.string()).to_pylist())
        return cls(picture, asked, tuple(answers_of(each) for each in rows["target"].to_pylist()))

    @property
    def content(self) -> list[Any]:
        """All fields, for a digest."""
        return [self.picture.tolist(), list(self.question), [list(each) for each in self.answers]]


def answered(questions: Sequence[Any], answers: Sequence[Any]) -> npt.NDArray[np.bool_]:
    """Which rows have a question that is not blank, and an answer."""
    both = zip(questions, answers, strict=True)
    return np.array([bool(str(asked or "").strip()) and bool(answers_of(each)) for asked, each in both], bool)
