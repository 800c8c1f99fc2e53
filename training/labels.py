"""Labels derived from captions. The task is single-label: noise in captions is noise in labels.

A caption names a class if it holds one of the class's words, whole and in any case. The label of a training pair is
the only class that its caption names; with none or several the pair is not used. The label of a held-out picture is
the only class that at least `agree` of its captions name, whatever else they name.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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


def labelled(batches: Iterable[pa.RecordBatch], classes: Classes) -> tuple[pa.Table, dict[str, int]]:
    """The pairs whose caption gives a label, with `label` in place of `caption`, and how many were looked at and left.

    `batches` have at least the columns caption and uid.
    """
    counts = {"downloaded": 0, "no_class": 0, "several_classes": 0, "labelled": 0}
    tables = []
    for batch in batches:
        labels = only(named(batch["caption"], classes))
        counts["downloaded"] += len(labels)
        counts["no_class"] += int((labels == NONE).sum())
        counts["several_classes"] += int((labels == SEVERAL).sum())
        rest = batch.drop_columns(["caption"]).append_column("label", pa.array(labels))
        tables.append(pa.Table.from_batches([rest.filter(pa.array(labels >= 0))]))
    table = pa.concat_tables(tables) if tables else pa.table({"uid": pa.array([], pa.string())})
    counts["labelled"] = len(table)
    return table.combine_chunks(), counts


def _pattern(words: Iterable[str]) -> str:
    """RE2's own word boundary knows ASCII letters only."""
    quoted = "|".join(rf"\Q{word}\E" for word in words)
    return rf"(?:^|[^\pL\pN_])(?:{quoted})(?:$|[^\pL\pN_])"
