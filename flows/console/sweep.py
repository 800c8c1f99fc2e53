"""A sweep: a table of its cells, the ranks, observations of studies, encoders by cost, and published figures."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console import ranks
from flows.console.layout import Column, Paragraph, Table


def table(found: Mapping[str, Any]) -> Group:
    """All of it. `found` is what `training.studies.sweep.run` returns."""
    parts: list[RenderableType] = [_cells(found), Text(f"Intervals: {found['interval']}", "italic"), Text()]
    named = [(each["name"], each["directions"]) for each in found["cells"]]
    for ranked in ranks.tables(named, "cell"):
        parts += [ranked, Text()]
    if found["cells"][0]["classes"]:
        parts += [_classes(found), Text()]
    parts += _findings(found)
    if found["efficient"]:
        parts += [Text(), _encoders(found["efficient"]), Text(_choice(found["efficient"]))]
    if found["published"]:
        lines = dict.fromkeys(each[name] for name in ("sentence", "data") for each in found["published"])
        parts += [Text(), _published(found), *map(Paragraph, lines)]
    return Group(*parts)


def _cells(found: Mapping[str, Any]) -> Table:
    """One row for each cell, in the order of the grid."""
    tuned = list(found["cells"][0]["tuned"])
    keys = (Column("cell", "text"), *(Column(name) for name in tuned))
    names = ("steps", found["score"], "95 %", "train loss", "validation loss", "seconds")
    gallery = found["gallery"]
    title = (
        f"{found['name']}: {found['model']} on {found['pairs']:,} pairs that {found['recipe']} keeps, {found['seeds']} "
        f"seeds; {gallery['pictures']:,} test pictures with {gallery['captions']:,} captions"
    )
    table = Table((*keys, *map(Column, names)), title)
    for each in found["cells"]:
        validation = each["validation_loss"]
        table.add(
            each["name"],
            *(f"{each['tuned'][name]:g}" for name in tuned),
            f"{each['steps']:,}",
            f"{each['score']:.3f}",
            f"{each['low']:.3f} to {each['high']:.3f}",
            f"{each['train_loss']:.3f}",
            "" if validation is None else f"{validation:.3f}",
            f"{each['seconds']:,.1f}",
        )
    table.add("chance", *[""] * len(tuned), "", f"{found['chance']:.3f}", "", "", "", "", style="dim")
    return table


def _classes(found: Mapping[str, Any]) -> Table:
    """Accuracy by the names of classes, those that trained and the others apart."""
    names = ("trained classes", "95 %", "untrained classes", "95 %")
    table = Table((Column("cell", "text"), *map(Column, names)), "Zero-shot accuracy, among the names of all classes")
    for each in found["cells"]:
        shown = list[str]()
        for part in (each["classes"]["trained"], each["classes"]["untrained"]):
            shown += [f"{part['value']:.3f}", f"{part['low']:.3f} to {part['high']:.3f}"] if part else ["", ""]
        table.add(each["name"], *shown)
    return table


def _findings(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    if not found["findings"]:
        yield Text("No observation of a study can be looked for in this grid.", "dim")
        return
    yield Text("What studies observed, here", "bold")
    for each in found["findings"]:
        where = f" ({each['where']})" if each["where"] else ""
        yield Paragraph(f"{each['observation']}: {each['verdict']}{where}. {each['reason']}")


def _encoders(efficient: Mapping[str, Any]) -> Table:
    names = ("parameters", "GFLOP", "images/s", "MiB", "score", "95 %")
    note = "* no other is better at the same FLOPs or fewer"
    table = Table((Column("cell", "text"), *map(Column, names)), "Image towers by cost", note)
    for row in sorted(efficient["rows"], key=lambda row: row["flops"] or 0):
        table.add(
            f"{row['name']}{' *' if row['name'] in efficient['front'] else ''}",
            f"{row['parameters'] / 1e6:,.1f} M",
            f"{row['flops'] / 1e9:,.2f}" if row["flops"] else "–",
            f"{row['images_per_second']:,.1f}",
            f"{row['memory_mb']:,}",
            f"{row['score']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
        )
    return table


def _choice(efficient: Mapping[str, Any]) -> str:
    return f"The most efficient that still performs is {efficient['best']}: {efficient['rule']}"


def _published(found: Mapping[str, Any]) -> Table:
    columns = (Column("published", "text"), Column("value"), Column("ours", "text"), Column("value here"))
    table = Table(columns, "Published figures beside ours")
    for each in found["published"]:
        figure = each["figure"]
        here = f"{each['value']:.4g} [{each['low']:.4g}, {each['high']:.4g}]"
        table.add(f"{figure['where']}, {figure['of']}", f"{figure['value']:g}", each["name"], here)
    return table
