"""What `winnow plan` reckons."""

from rich.console import Group
from rich.text import Text

from flows.console.layout import Column, Table
from flows.console.units import size
from pipeline.bench.estimate import Estimate
from pipeline.bench.partly_run import Known


def table(source: str, found: Estimate, known: Known | None) -> Group:
    """A row for each step, their sums, and what the figures rest on."""
    prices, pool, fleet = found.prices, found.rates.pool, found.fleet
    machine = prices.gpu if fleet.gpus else prices.cpu
    columns = (
        Column("step", "name"),
        Column("rows"),
        Column("bytes"),
        Column("machines"),
        Column("hours"),
        Column(prices.currency),
        Column("depends on", "text"),
    )
    title = f"{source}: {found.work.rows:,} rows, of which {found.pairs:,} download"
    made = Table(columns, title)
    for each in found.steps:
        made.add(
            each.name,
            f"{each.rows:,}",
            "" if each.bytes is None else size(each.bytes),
            f"{each.machines:,}" if each.machines else "",
            _number(each.hours) if each.machines else "",
            _number(each.money),
            each.limit,
        )
    made.add(
        "all", "", size(found.bytes), f"{fleet.machines:,}", _number(found.hours), _number(found.money), "", rule=True
    )
    lines = [
        f"a stored picture has {size(pool.picture_bytes)}, a fetched one {size(pool.fetched_bytes)}; "
        f"{pool.success:.0%} of the rows download, {pool.kept:.0%} of those are kept",
        f"machines: {machine.name}, {prices.cpu.name}" if fleet.gpus else f"machines: {machine.name}",
        f"prices of {prices.as_of}: examples to replace, see docs/plan.md",
    ]
    if known:
        lines.insert(
            0,
            f"{known.downloaded:,} of {known.shards:,} shards are downloaded; shares and bytes are those of "
            f"{known.sampled:,} of them",
        )
    if found.unknown:
        lines.append(f"not in the sums, because they have no rate: {', '.join(found.unknown)}")
    return Group(made, *(Text(line, "dim") for line in lines))


def _number(value: float | None) -> str:
    """Two decimals below ten, whole numbers above."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 9.995 else f"{value:.2f}"
