"""Tables for a terminal. No number is cut and no word of a heading is broken, however narrow the terminal is."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

GAP = 2
"""Blanks between two columns."""

FOLDED = 20
"""Characters that a folded column of text keeps, if its values are that long."""


@dataclass(frozen=True)
class Column:
    """A heading, and what stands below it: a number (at the right), a name, or text, which alone may be folded."""

    name: str
    kind: Literal["number", "name", "text"] = "number"


@dataclass(frozen=True)
class Row:
    """Cells of one row, in a style of rich's. `rule` draws a line above it."""

    cells: Sequence[str]
    style: str = ""
    rule: bool = False


class Paragraph:
    """Text that is folded between words, and nowhere at a no-break space (U+00A0), which is printed as a blank."""

    def __init__(self, text: str, style: str = "") -> None:
        self._text, self._style = text, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        for line in textwrap.wrap(self._text, options.max_width, break_on_hyphens=False):
            yield Text(line.replace("\N{NO-BREAK SPACE}", " "), self._style)


class Table:
    """Columns and rows. The layout is chosen when the table is printed, for the width of that console.

    A table that is too wide has its columns of text folded. If that is not enough, it is split into blocks of columns,
    each with the first column; or, with `by_row`, each row becomes a list of columns, as in psql's expanded form.
    """

    def __init__(self, columns: Sequence[Column], title: str = "", note: str = "", by_row: bool = False) -> None:
        self.columns, self.title, self.note, self._by_row = columns, title, note, by_row
        self.rows: list[Row] = []

    def add(self, *cells: str, style: str = "", rule: bool = False) -> None:
        """Append a row: one cell for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append(Row(cells, style, rule))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        if self.title:
            yield Text(self.title, "bold")
        yield from self._body(console, options.max_width)
        if self.note:
            yield Text(self.note, "dim")

    def _body(self, console: Console, width: int) -> Iterator[Text]:
        if widths := self._folded(width):
            yield from self._block(console, range(len(self.columns)), widths)
        elif (blocks := self._blocks(width)) and not self._by_row:
            for number, block in enumerate(blocks):
                if number:
                    yield Text()
                yield from self._block(console, block, self._natural())
        else:
            yield from self._records(console, width)

    def _natural(self) -> list[int]:
        """The width of each column if nothing is folded."""
        cells = zip(*(row.cells for row in self.rows), strict=True) if self.rows else [()] * len(self.columns)
        return [max(map(cell_len, (column.name, *below))) for column, below in zip(self.columns, cells, strict=True)]

    def _folded(self, width: int) -> list[int] | None:
        """Widths that fit, with columns of text folded as far as necessary. None if the table cannot fit."""
        widths = self._natural()
        least = [
            max(cell_len(column.name), min(natural, FOLDED)) if column.kind == "text" else natural
            for column, natural in zip(self.columns, widths, strict=True)
        ]
        if _total(least) > width:
            return None
        while _total(widths) > width:
            spare = [has - needs and has for has, needs in zip(widths, least, strict=True)]
            widths[spare.index(max(spare))] -= 1
        return widths

    def _blocks(self, width: int) -> list[list[int]]:
        """Columns by block: the first one and others that fit beside it. Empty if one of them does not fit.

        The blocks are as few as possible, and about as long as each other.
        """
        others = len(self.columns) - 1
        fewest = len(self._filled(width, others))
        even = (self._filled(width, most) for most in range(1, others + 1))
        return next((blocks for blocks in even if len(blocks) == fewest), [])

    def _filled(self, width: int, most: int) -> list[list[int]]:
        """Blocks of at most `most` columns after the first one, each as full as the width allows."""
        widths = self._natural()
        blocks: list[list[int]] = []
        for column in range(1, len(widths)):
            if _total([widths[0], widths[column]]) > width:
                return []
            full = not blocks or len(blocks[-1]) > most
            if full or _total([widths[each] for each in (*blocks[-1], column)]) > width:
                blocks.append([0])
            blocks[-1].append(column)
        return blocks

    def _block(self, console: Console, columns: Sequence[int], widths: Sequence[int]) -> Iterator[Text]:
        rule = "─" * _total([widths[each] for each in columns])
        chosen = [(self.columns[each], widths[each]) for each in columns]
        yield Text(_line([_pad(column.name, column, width) for column, width in chosen]), "bold")
        yield Text(rule)
        for row in self.rows:
            if row.rule:
                yield Text(rule)
            cells = [_fold(console, row.cells[each], widths[each]) for each in columns]
            for number in range(max(map(len, cells))):
                lines = [cell[number] if number < len(cell) else "" for cell in cells]
                padded = [_pad(line, column, width) for line, (column, width) in zip(lines, chosen, strict=True)]
                yield Text(_line(padded), row.style)

    def _records(self, console: Console, width: int) -> Iterator[Text]:
        """A line for each column, a heading for each row."""
        names = [_fold(console, column.name, max(width // 2 - GAP, 1)) for column in self.columns]
        left = max((cell_len(line) for name in names for line in name), default=0)
        for number, row in enumerate(self.rows, start=1):
            yield Text(f"── row {number} ──", "bold")
            for name, cell in zip(names, row.cells, strict=True):
                values = _fold(console, cell, max(width - left - GAP, 1))
                for at in range(max(len(name), len(values))):
                    label = name[at] if at < len(name) else ""
                    value = values[at] if at < len(values) else ""
                    yield Text(_line([label + " " * (left - cell_len(label)), value]), row.style)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _fold(console: Console, cell: str, width: int) -> list[str]:
    if cell_len(cell) <= width:
        return [cell]
    return [line.plain.rstrip() for line in Text(cell).wrap(console, width, overflow="fold")] or [""]


def _pad(line: str, column: Column, width: int) -> str:
    blanks = " " * (width - cell_len(line))
    return blanks + line if column.kind == "number" else line + blanks


def _line(cells: Sequence[str]) -> str:
    return (" " * GAP).join(cells).rstrip()
