"""Markdown (CommonMark with GitHub's tables) around words of other people, which stay words.

A caption, a sentence of a recipe or the name of a column may look like a link, a heading or HTML. `text` and `code`
show it as it is written.
"""

import re
from collections.abc import Iterable, Sequence

from pipeline.pages.untrusted import plain

_LONGEST = 2000
"""Characters of a text or of SQL, at most."""

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#|~&!$@]|:(?=//)|(?<=www)\.|^[-+=])")
"""What may begin Markdown, HTML or a link."""

_NUMBERED = re.compile(r"^(\d+)([.)])")
"""What begins an item of a numbered list."""


def text(words: str) -> str:
    """The words on one line, with a backslash before each mark that Markdown could take for its own."""
    return _NUMBERED.sub(r"\1\\\2", _ACTIVE.sub(r"\\\1", plain(words, _LONGEST)))


def code(words: str) -> str:
    """The words on one line as code, also in a cell of a table."""
    words = plain(words, _LONGEST).replace("|", r"\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", words)), default=0))
    space = " " if words[:1] == "`" or words[-1:] == "`" else ""
    return f"{fence}{space}{words}{space}{fence}" if words else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table. A header that ends in ">" is of numbers, right-aligned. Cells are Markdown."""
    bars = ["---:" if name.endswith(">") else "---" for name in header]
    lines = [[name.removesuffix(">") for name in header], bars, *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
