"""Recipes: what each filter does to the downloaded pairs, alone, in sequence and beside others."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console.layout import Column, Table
from pipeline.filtering.funnel import Comparison, Overlap, Step

OVERLAPS = 10
"""Pairs of filters, or of recipes, that a table shows."""

COLUMNS = (
    Column("filter", "name"),
    Column("passes alone"),
    Column("in sequence"),
    Column("fails"),
    Column("unscored"),
    Column("alone drops"),
)


def funnel(recipe: str, pool: int, steps: Sequence[Step]) -> Table:
    """What each filter does to the `pool` downloaded pairs."""
    table = Table(COLUMNS, f"recipe {recipe}: {pool:,} downloaded pairs")
    for step in steps:
        counts = (step.alone, step.sequence, step.fails, step.unscored, step.costs)
        table.add(step.filter, *(f"{count:,}" for count in counts))
    return table


def comparison(compared: Comparison) -> Group:
    """Recipes side by side, the funnel of each, and which filters drop the same pairs."""
    parts: list[RenderableType] = []
    if len(compared.funnels) > 1:
        parts += [_recipes(compared), Text(), _overlaps("kept by both recipes", compared.shared), Text()]
    for number, each in enumerate(compared.funnels):
        if number:
            parts.append(Text())
        parts.append(funnel(each.recipe, compared.pool, each.steps))
        if each.overlaps:
            parts += [Text(), _overlaps("dropped by both filters", each.overlaps)]
    return Group(*parts)


def _recipes(compared: Comparison) -> Table:
    columns = (Column("recipe", "name"), Column("filters"), Column("kept"), Column("of the pool"))
    table = Table(columns, f"{len(compared.funnels)} recipes: {compared.pool:,} downloaded pairs")
    for each in compared.funnels:
        share = f"{each.kept / compared.pool:.1%}" if compared.pool else "–"
        table.add(each.recipe, str(len(each.steps)), f"{each.kept:,}", share)
    return table


def _overlaps(heading: str, overlaps: Sequence[Overlap]) -> Table:
    """The pairs of names that agree most."""
    table = Table((Column(heading, "text"), Column("pairs"), Column("Jaccard")), note=more(overlaps, OVERLAPS))
    for each in sorted(overlaps, key=lambda each: -each.jaccard)[:OVERLAPS]:
        table.add(f"{each.one}, {each.other}", f"{each.both:,}", f"{each.jaccard:.2f}")
    return table


def more(rows: Sequence[object], shown: int) -> str:
    """A note below a table that shows only the first rows. Empty if it shows all."""
    return f"the first {shown} of {len(rows)}; --json has all" if len(rows) > shown else ""
