"""The pictures that a search found."""

from collections.abc import Sequence

from flows.console.answers import cell
from flows.console.layout import Column, Table
from pipeline.query.search import Hit

UID = 12
"""Digits of a uid that the table shows. `--json` has all."""


def found(hits: Sequence[Hit]) -> Table:
    """A row for each picture, nearest first."""
    columns = (Column("rank"), Column("similarity"), Column("uid", "name"), Column("caption", "text"))
    table = Table((*columns, Column("url", "text")), by_row=True)
    for hit in hits:
        table.add(str(hit.rank), f"{hit.similarity:.3f}", hit.uid[:UID], cell(hit.caption), cell(hit.url))
    return table
