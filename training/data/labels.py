"""What is to be learnt of each pair: one label, derived from its caption or told by a column, or a number.

The task is single-label. A caption names a class if it holds one of the class's words, whole and in any case. The label
of a training pair is the only class that its caption names; with none or several the pair is not used: noise in
captions is noise in labels. The label of a held-out picture is the only class that at least `agree` of its captions
name, whatever else they name. A column's label is the class that has its value, and a held-out picture whose rows
say different things is left out.

Where learners read captions and nobody tells them a label, every pair that has a caption is used.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.settings.task import Task

Classes = Mapping[str, Sequence[str]]
"""Class -> the words that name it. A label is a class's position."""

NONE, SEVERAL = -1, -2
"""In place of a label: no class, or more than one."""


def named(captions: pa.Array | pa.ChunkedArray, classes: Classes) -> npt.NDArray[np.bool_]:
    """Which classes each caption names, [captions, classes]. A missing caption names none."""
    columns = [
        pc.match_substring_regex(captions, pattern=_pattern(words), ignore_case=True) for words in classes.values()
    ]
    return np.stack([pc.fill_null(column, False).to_numpy(zero_copy_only=False) for column in columns], axis=1)


def only(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int16]:
    """The one class that is chosen in each row of [rows, classes], or NONE or SEVERAL."""
    count = chosen.sum(axis=1)
    return np.where(count == 1, chosen.argmax(axis=1), np.where(count, SEVERAL, NONE)).astype(np.int16)


def valued(values: pa.Array | pa.ChunkedArray, classes: Classes) -> npt.NDArray[np.int16]:
    """The class that has each value, as text without blanks around it, in any case; NONE where none has it."""
    by_value = {word.lower(): number for number, words in enumerate(classes.values()) for word in words}
    return np.array([by_value.get(str(value).strip().lower(), NONE) for value in values.to_pylist()], np.int16)


def numbers(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Each value as a number; NaN for what is none, or not finite."""
    return np.array([_number(value) for value in values.to_pylist()], np.float64)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def captioned(captions: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which captions are there, and not blank."""
    there = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(captions)), 0)
    found: npt.NDArray[np.bool_] = pc.fill_null(there, False).to_numpy(zero_copy_only=False)
    return found


def labelled(batches: Iterable[pa.RecordBatch], task: Task) -> tuple[pa.Table, dict[str, int]]:
    """The pairs that can be trained on, what is to be learnt of each as `label`, and how many were looked at and left.

    A label is a class, a number, or NONE where the caption is all there is to learn. `batches` have at least the
    columns caption and uid, and `target` where the task has a column; both are dropped.
    """
    one = "no_caption" if task.trains_on_captions else "no_number" if task.kind == "number" else None
    every = "captioned" if task.trains_on_captions else "labelled"
    counts = {"downloaded": 0, **dict.fromkeys([one] if one else _LEFT, 0), every: 0}
    tables = []
    for batch in batches:
        found = _labels(batch, task)
        there = ~np.isnan(found) if task.kind == "number" else found >= 0
        if task.trains_on_captions:
            there = captioned(batch["caption"])
        counts["downloaded"] += len(found)
        for name in counts.keys() & _LEFT.keys():
            counts[name] += int((found == _LEFT[name]).sum())
        if one:
            counts[one] += int((~there).sum())
        spent = ["caption", *(["target"] if task.column else [])]
        rest = batch.drop_columns(spent).append_column("label", pa.array(found))
        tables.append(pa.Table.from_batches([rest.filter(pa.array(there))]))
    table = pa.concat_tables(tables) if tables else pa.table({"uid": pa.array([], pa.string())})
    counts[every] = len(table)
    return table.combine_chunks(), counts


_LEFT = {"no_class": NONE, "several_classes": SEVERAL}


def _labels(batch: pa.RecordBatch, task: Task) -> npt.NDArray[np.int16] | npt.NDArray[np.float64]:
    if task.kind == "number":
        return numbers(batch["target"])
    if task.kind == "label":
        return valued(batch["target"], task.classes)
    return np.full(len(batch), NONE, np.int16) if task.evaluates_pairs else only(named(batch["caption"], task.classes))


def _pattern(words: Iterable[str]) -> str:
    """RE2's own word boundary knows ASCII letters only."""
    quoted = "|".join(rf"\Q{word}\E" for word in words)
    return rf"(?:^|[^\pL\pN_])(?:{quoted})(?:$|[^\pL\pN_])"
