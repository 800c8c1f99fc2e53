"""Reviews of manifests: what changed between two of them, and which groups a recipe removes most."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console.answers import cell
from flows.console.funnel import more
from flows.console.layout import Column, Table
from flows.console.output import printable
from pipeline.review.audit import Audit
from pipeline.review.diff import Difference

WORST = 10
"""Groups of each kind that the table of an audit shows."""

GROUP = 40
"""Characters of a group's name that the table of an audit shows."""


def difference(found: Difference) -> Group:
    """Which rows changed sides and why, examples of them, and how far the columns drifted."""
    before, after = found.rows
    lines = [
        Text(f"from manifest {found.before[:12]} to {found.after[:12]}: {before:,} rows, then {after:,}", "bold"),
        Text(printable(f"what differs in their making: {'; '.join(found.changed) or 'nothing'}")),
        *(
            Text(printable(f"certificates are not equal, so that decisions flip: {each}"))
            for each in found.certificates
        ),
    ]
    parts: list[RenderableType] = [*lines]
    for table in (_moves(found), _changes(found), _drift(found)):
        if table.rows:
            parts += [Text(), table]
    if found.examples:
        parts += [Text(), *(Text(printable(_example(row))) for row in found.examples)]
    return Group(*parts)


def audit(found: Audit) -> Group:
    """Of each kind the groups that are removed more often than the whole; all lengths."""
    whole = found.removed
    share = "–" if whole.share is None else f"{whole.share:.1%}"
    title = f"recipe {found.recipe} removes {whole.hits:,} of {whole.of:,} downloaded pairs: {share}"
    return Group(Text(title, "bold"), *_groups(found))


def _moves(found: Difference) -> Table:
    table = Table((Column("rows that changed sides", "name"), Column("rows")))
    for move in found.moves:
        table.add(f"{move.before} → {move.after}", f"{move.rows:,}")
    return table


def _changes(found: Difference) -> Table:
    columns = (
        Column("filter", "name"),
        Column("now drops"),
        Column("now lets through"),
        Column("passed in sequence"),
        Column("pass now"),
    )
    table = Table(columns)
    for each in found.changes:
        passed = ("–" if count is None else f"{count:,}" for count in (each.before, each.after))
        table.add(each.filter, f"{each.drops:,}", f"{each.frees:,}", *passed)
    return table


def _drift(found: Difference) -> Table:
    table = Table((Column("column", "name"), *map(Column, ("PSI of inputs", "KS", "PSI of kept", "KS"))))
    kept = {each.column: each for each in found.kept}
    for one in sorted(found.inputs, key=lambda each: -(each.psi or 0)):
        other = kept.get(one.column)
        distances = (one.psi, one.ks, other and other.psi, other and other.ks)
        table.add(one.column, *("–" if value is None else f"{value:.3f}" for value in distances))
    return table


def _example(row: Mapping[str, Any]) -> str:
    filters = ", ".join(row["dropped_after"] or row["dropped_before"] or ())
    why = f" ({filters})" if filters else ""
    return f"{row['before']} → {row['after']}{why}: {cell(row['caption'])}  {row['url']}"


def _groups(found: Audit) -> Iterator[RenderableType]:
    for by in dict.fromkeys(each.by for each in found.groups):
        groups = found.of(by) if by == "length" else found.above_average(by)
        yield Text()
        if not groups:
            yield Text(f"no {by} is removed more often than the whole")
            continue
        heading = by if by == "length" else f"{by} that is hit most"
        columns = (Column(heading, "text"), *map(Column, ("pairs", "removed", "share", "95 % interval")))
        table = Table(columns, note=more(groups, WORST))
        for group in groups[:WORST]:
            rate = group.removed
            interval = f"{rate.low:.1%} to {rate.high:.1%}"
            table.add(cell(group.value)[:GROUP], f"{rate.of:,}", f"{rate.hits:,}", f"{rate.share:.1%}", interval)
        yield table
