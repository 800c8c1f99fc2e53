"""A labelled sample: what it may look like, and the one line that is said of each fault."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.review.sample import Labelled
from pipeline.uids import uid

ROWS = [("http://h/1", "a dog", "clean"), ("http://h/2", "a cat", "swapped"), ("http://h/3", "é, x", "clean")]


def written(folder, rows, ending="tsv", header=("url", "caption", "label")):
    path = folder / f"labels.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table(dict(zip(header, zip(*rows, strict=True), strict=True))), path)
    else:
        mark, quote = ("\t", "") if ending == "tsv" else (",", '"')
        lines = [mark.join(header), *(mark.join(f"{quote}{cell}{quote}" for cell in row) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv"])
def test_every_kind_of_list_says_the_same(tmp_path, ending):
    known = Labelled.read(written(tmp_path, ROWS, ending), ["clean"])
    assert known.table.to_pylist() == [{"uid": uid(url, caption), "label": label} for url, caption, label in ROWS]
    assert known.labels == ["clean", "swapped"]


def test_a_row_that_says_the_same_again_is_counted_once(tmp_path):
    known = Labelled.read(written(tmp_path, [*ROWS, ROWS[1]]), ["clean"])
    assert (len(known.table), known.repeated, known.counts["swapped"]) == (3, 1, 1)


FAULTS = {
    "two labels": ([*ROWS, ("http://h/2", "a cat", "clean")], "row 4: http://h/2 was 'swapped' before and is 'clean'"),
    "no label": ([*ROWS, ("http://h/4", "a cow", " ")], "row 4: there is no label"),
    "too few cells": ([*ROWS, ("http://h/4", "a cow")], "row 4: there is no label"),
    "nothing good": ([ROWS[1]], "no pair is labelled 'clean', which calibration.good says; its labels are swapped"),
    "nothing": ([], "has no rows"),
}


@pytest.mark.parametrize(("rows", "says"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line(tmp_path, rows, says):
    with pytest.raises(SourceError) as told:
        Labelled.read(written(tmp_path, rows), ["clean"])
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_column_or_file_is_named(tmp_path):
    path = written(tmp_path, ROWS, header=("url", "caption", "labels"))
    with pytest.raises(SourceError, match="has no column 'label'; did you mean 'labels'"):
        Labelled.read(path, ["clean"])
    with pytest.raises(SourceError, match="there is no labelled sample"):
        Labelled.read(tmp_path / "gone.tsv", ["clean"])
