"""The class of a caption or of a value, for tasks with classes.

A caption names a class if it contains one of the class's words, whole and in any case.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Classes = Mapping[str, Sequence[str]]
"""The words that name each class. A label is the position of a class."""

NONE, SEVERAL = -1, -2
"""In place of a label: no class, or more than one."""


def classes_named(captions: pa.Array | pa.ChunkedArray, classes: Classes) -> npt.NDArray[np.bool_]:
    """Which classes each caption names, [captions, classes]. A missing caption names none."""
    columns = [
        pc.match_substring_regex(captions, pattern=_pattern(words), ignore_case=True) for words in classes.values()
    ]
    return np.stack([pc.fill_null(column, False).to_numpy(zero_copy_only=False) for column in columns], axis=1)


def single_class(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    """The only class that is true in each row of [rows, classes], or NONE or SEVERAL."""
    count = chosen.sum(axis=1)
    return np.where(count == 1, chosen.argmax(axis=1), np.where(count, SEVERAL, NONE)).astype(np.int16)


def classes_of_values(values: pa.Array | pa.ChunkedArray, classes: Classes) -> npt.NDArray[np.int16]:
    """The class of each value, compared as stripped text in any case; NONE if no class has the value."""
    by_value = {word.lower(): number for number, words in enumerate(classes.values()) for word in words}
    return np.array([_class_of(value, by_value) for value in values.to_pylist()], np.int16)


def _class_of(value: Any, by_value: Mapping[str, int]) -> int:
    """As `classes_of_values`. A whole float is also found as an integer: 1.0 as 1."""
    number = by_value.get(str(value).strip().lower())
    if number is None and isinstance(value, float) and value.is_integer():
        number = by_value.get(str(int(value)))
    return NONE if number is None else number


def _pattern(words: Iterable[str]) -> str:
    """A regular expression for whole words. RE2's own word boundary supports ASCII letters only."""
    quoted = "|".join(rf"\Q{word}\E" for word in words)
    return rf"(?:^|[^\pL\pN_])(?:{quoted})(?:$|[^\pL\pN_])"
