"""Tables at any width: no number is cut, no word of a heading is broken."""

import io

import pytest
from rich.console import Console

from flows.console import answers
from flows.console.layout import Column, Table

LABELS = ["clean", "near_duplicate", "over_compressed", "watermarked", "a_label_of_forty_characters_without_end_"]


def printed(table, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def labelled():
    table = Table((Column("filter", "name"), *map(Column, LABELS), Column("precision")), title="labels")
    for name in ("worded", "aesthetic"):
        table.add(name, *["1,234,567"] * len(LABELS), "99.9%")
    return table


@pytest.mark.parametrize("width", range(51, 160))
def test_blocks_break_no_heading_and_cut_no_number(width):
    lines = printed(labelled(), width)
    words = " ".join(lines).split()
    for each in (*LABELS, "precision"):
        assert words.count(each) == 1
    assert words.count("1,234,567") == 2 * len(LABELS)
    assert "…" not in "".join(lines)
    assert words.count("worded") == words.count("filter") < 6


def test_blocks_are_about_as_wide_as_each_other():
    table = Table([Column("name", "name"), *[Column(f"number{each}") for each in range(5)]])
    table.add("a", *"12345")
    first, second = (line.split() for line in printed(table, 44) if "name" in line)
    assert (first, second) == (["name", "number0", "number1", "number2"], ["name", "number3", "number4"])


def test_a_first_column_that_leaves_no_room_makes_a_list_of_columns():
    lines = printed(labelled(), 40)
    assert "── row 2 ──" in lines
    assert " ".join(lines).count("1,234,567") == 2 * len(LABELS)


def test_text_is_folded_before_columns_part():
    table = Table((Column("pairs"), Column("caption", "text")), by_row=True)
    table.add("7", "a green star on a table " * 3)
    lines = printed(table, 40)
    assert lines[0] == "pairs  caption"
    assert len(lines) == 2 + 3


def test_wide_characters_count_twice():
    table = Table((Column("caption", "text"), Column("pairs")))
    table.add("星の写真", "7")
    assert printed(table, 80)[-1] == "星の写真      7"


def test_a_row_has_a_cell_for_each_column():
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        Table((Column("a"), Column("b"))).add("1")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (1234567.25, "1234567.25"),
        (123456789.0, "123456789"),
        (0.123456789, "0.123457"),
        (1.5e-9, "1.5e-09"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (["a", None, 2.5], "a, , 2.5"),
        ({"a": [1]}, '{"a": [1]}'),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_a_cell(value, shown):
    assert answers.cell(value) == shown


def test_a_long_list_ends_between_two_numbers():
    text = answers.cell([round(each / 7, 6) for each in range(1000)])
    assert text.endswith(" … (1,000 in all)")
    assert text.split(", ")[-2] in {answers.cell(round(each / 7, 6)) for each in range(1000)}
