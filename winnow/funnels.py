"""The funnel of a recipe: as steps, as a table, and as a picture in a notebook."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from pipeline.filtering import funnel
from pipeline.filtering.funnel import Overlap, Step
from winnow import display
from winnow.display import Cell
from winnow.tables import Form, as_form


@dataclass(frozen=True)
class Funnel:
    """The effect of a recipe on the `pool` downloaded pairs of a manifest. In a notebook it shows itself as a table."""

    pool: int
    found: funnel.Funnel

    @property
    def recipe(self) -> str:
        """The name of the recipe."""
        return self.found.recipe

    @property
    def kept(self) -> int:
        """Pairs that pass all steps."""
        return self.found.kept

    @property
    def steps(self) -> Sequence[Step]:
        """Its filters in order, with counts of pairs."""
        return self.found.steps

    @property
    def overlaps(self) -> Sequence[Overlap]:
        """Every two filters, and how many pairs both drop."""
        return self.found.overlaps

    def table(self, form: Form = "arrow") -> Any:
        """A row for each step: filter, sql, why, alone, fails, unscored, sequence, costs (see `Step`)."""
        return as_form(pa.Table.from_pylist([asdict(step) for step in self.steps], _STEP), form)

    def _repr_html_(self) -> str:
        columns = ("filter", "passes alone", "in sequence", "fails", "unscored", "alone drops")
        rows = [
            (
                Cell(step.filter, f"{step.sql}\n{step.why}"),
                Cell.count(step.alone),
                Cell.count(step.sequence, self.pool),
                *map(Cell.count, (step.fails, step.unscored, step.costs)),
            )
            for step in self.steps
        ]
        title = f"recipe {self.recipe} keeps {self.kept:,} of {self.pool:,} downloaded pairs"
        return display.table(title, columns, rows)

    def __repr__(self) -> str:
        return f"Funnel({self.recipe!r}, {self.kept:,} of {self.pool:,} pairs kept)"


_STEP = pa.schema(
    {
        **dict.fromkeys(("filter", "sql", "why"), pa.string()),
        **dict.fromkeys(("alone", "fails", "unscored", "sequence", "costs"), pa.int64()),
    }
)
