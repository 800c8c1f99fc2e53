"""The training target of each pair: a label from its caption or from a column, or a number.

The task is single-label. A caption names a class if it contains one of the class's words, whole and in any case. The
label of a training pair is the only class that its caption names. A pair whose caption names no class or several is not
used. So noise in captions is noise in labels. The label of a held-out picture is the only class that at least `agree`
of its captions name, regardless of other classes. The label from a column is the class that has its value. A held-out
picture whose rows have different values is excluded.

If learners read captions and need no label, every pair with a caption is used.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import CompareError
from pipeline.scorers.class_labels import NONE, SEVERAL, classes_named, classes_of_values, single_class
from pipeline.settings.task import Task
from training.data.questions import answered

Targets = npt.NDArray[np.int16] | npt.NDArray[np.float64]
"""Class numbers, negative for none, or numbers, NaN for none."""

_UNUSED = {"no_class": NONE, "several_classes": SEVERAL}


def numbers(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Each value as a number; NaN if it is not a finite number."""
    return np.array([_number(value) for value in values.to_pylist()], np.float64)


def has_caption(captions: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which captions are neither missing nor blank."""
    filled = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(captions)), 0)
    has: npt.NDArray[np.bool_] = pc.fill_null(filled, False).to_numpy(zero_copy_only=False)
    return has


def known(targets: Targets) -> npt.NDArray[np.bool_]:
    """Which targets are labels or numbers."""
    is_known: npt.NDArray[np.bool_] = ~np.isnan(targets) if targets.dtype.kind == "f" else targets >= 0
    return is_known


def check_varies(whose: str, values: Targets) -> None:
    """Raises CompareError for numbers to learn or to predict that are all one, or too large for a variance."""
    if len(values) and values.min() == values.max():
        raise CompareError(
            f"the numbers of {whose} are all {values[0]:g}: there is nothing to predict; name another column in [task]"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.var(values))
    if len(values) and not math.isfinite(spread):
        raise CompareError(
            f"the numbers of {whose} are so large that their variance is not finite: rescale the column of [task]"
        )


def label_pairs(batches: Iterable[pa.RecordBatch], task: Task) -> tuple[pa.Table, dict[str, int]]:
    """The pairs that can be trained on, with their targets as `label`, and counts of all pairs by missing target.

    A label is a class, a number, or NONE if only the caption is learnt. `batches` have at least the columns caption and
    uid, and `target` if the task has a column. The columns caption and target are dropped.
    """
    reasons, used = _counts(task)
    counts = {"downloaded": 0, **dict.fromkeys(reasons, 0), used: 0}
    tables = []
    for batch in batches:
        targets = _targets(batch, task)
        usable = _usable(batch, task) if task.trains_on_captions else known(targets)
        counts["downloaded"] += len(targets)
        for name in reasons:
            unused = targets == _UNUSED[name] if name in _UNUSED else ~usable
            counts[name] += int(unused.sum())
        spent = [name for name in ("caption", "target", "question") if name in batch.schema.names]
        rest = batch.drop_columns(spent).append_column("label", pa.array(targets))
        tables.append(pa.Table.from_batches([rest.filter(pa.array(usable))]))
    table = pa.concat_tables(tables) if tables else pa.table({"uid": pa.array([], pa.string())})
    counts[used] = len(table)
    return table.combine_chunks(), counts


def _usable(batch: pa.RecordBatch, task: Task) -> npt.NDArray[np.bool_]:
    """Which rows have a caption, or a question and an answer."""
    if task.kind == "vqa":
        return answered(batch["question"].to_pylist(), batch["target"].to_pylist())
    return has_caption(batch["caption"])


def _counts(task: Task) -> tuple[list[str], str]:
    """The names of the counts: of pairs without a usable target, by reason, and of pairs that can be trained on."""
    if task.kind == "vqa":
        return ["no_answer"], "answered"
    if task.trains_on_captions:
        return ["no_caption"], "captioned"
    if task.kind == "number":
        return ["no_number"], "labelled"
    return list(_UNUSED), "labelled"


def _targets(batch: pa.RecordBatch, task: Task) -> Targets:
    if task.kind == "number":
        return numbers(batch["target"])
    if task.kind == "label":
        return classes_of_values(batch["target"], task.classes)
    if task.evaluates_pairs:
        return np.full(len(batch), NONE, np.int16)
    return single_class(classes_named(batch["caption"], task.classes))


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan
