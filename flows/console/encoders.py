"""What `winnow encoders` prints: what each encoder is worth, what it costs, and the lines that name the best one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flows.console.tables import plain
from pipeline.pages import report
from pipeline.settings import encoder
from pipeline.sources.source import Source
from pipeline.store.storage import Storage

RANDOM = "RANDOM WEIGHTS"
"""Before every figure of an encoder that nobody trained."""


def compared(
    described: Source,
    storage: Storage,
    names: Sequence[str] | None,
    manifest: str | None,
    pictures: int,
    finetuned: bool,
) -> Mapping[str, Any]:
    """Compare the named encoders, or the source's own and the known ones, and leave figures and plot for the report."""
    from flows.progress import shown
    from pipeline.demo import world
    from training.studies import comparison, plot

    own = {name: learner.encoder for name, learner in described.task.learners.items()} if described.task else {}
    chosen = [own.get(name) or encoder.parse_encoder(name) for name in names or ()] or [
        *own.values(),
        *comparison.KNOWN,
    ]
    distinct = [each for at, each in enumerate(chosen) if each not in chosen[:at]]
    with world.served(described, storage) as served, shown() as tell:
        found = comparison.compare(served, storage, distinct, manifest, pictures, finetuned, tell)
    plot.pareto(found, storage.root / report.PARETO)
    (storage.root / report.ENCODERS).write_text(json.dumps(found, indent=1) + "\n")
    return found


def table(found: Mapping[str, Any]) -> Group:
    """Two tables, a line of throughput by workers for each encoder, and the encoders that could not be had."""
    there = [row for row in found["encoders"] if "error" not in row]
    seeds = found["budget"]["seeds"]
    head = f"Linear probes on what {found['recipe']} keeps: {found['test_pictures']} held-out pictures, {seeds} seeds"
    costs_on = found["costs_on"]
    facts = (
        f"Costs: {costs_on['pictures']} stored pictures of {costs_on['bytes'] / 1000:.0f} kB; {found['device']}, "
        f"{found['cores']} cores, load {' to '.join(map(str, found['load']))}. 'busy': the share of the time in which "
        "the encoder is at work; 'x PIL': to a loop that opens picture after picture; 'of alone': to the encoder on "
        "pictures that lie ready"
    )
    things: list[RenderableType] = [Text(head, "bold"), _worth(found, there), Text(facts), _costs(there)]
    things += [Text(plain(f"{_name(row)}: {_curve(row)}"), _style(row)) for row in there]
    things += [
        Text(plain(f"{_name(row)}: {_finetuned(row, found['metrics'][0][1])}"), _style(row))
        for row in there
        if "finetuned" in row
    ]
    errors = [Text(plain(f"{row['encoder']}: {row['error']}"), "red") for row in found["encoders"] if "error" in row]
    if errors:
        errors.append(Text("Weights on this machine are named behind an @, as in timm:resnet50@FILE.safetensors"))
    return Group(*things, *errors)


def toml(found: Mapping[str, Any]) -> Iterator[str]:
    """The best one as a learner of the source file."""
    row = next((row for row in found["encoders"] if row["encoder"] == found["best"]), None)
    if row:
        yield "\nTo measure the gain on the best one, paste this into the source file:\n"
        yield f'[task.learners.best]\nhead = "linear"\n{row["toml"]}'


def _worth(found: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> Table:
    (main, says), (other, also) = found["metrics"][0], found["metrics"][-1]
    table = _columns("encoder", "weights", says, "95 %", also, "behind the best")
    for row in sorted(rows, key=lambda row: -row["score"]):
        weights, behind = row["weights"], row.get("behind")
        told = f"{weights['from']} {weights['name']} {weights['sha256'][:8]}" if weights["sha256"] else weights["from"]
        table.add_row(
            Text(plain(_name(row))),
            Text(plain(told)),
            f"{row['score']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['scores'][other]:.3f}",
            f"{behind['difference']:+.3f} ({behind['low']:+.3f} to {behind['high']:+.3f})" if behind else "",
            style=_style(row),
        )
    base = found["baseline"]
    table.add_row(Text(plain(base["says"])), "", f"{base[main]:.3f}", "", f"{base[other]:.3f}", "")
    return table


def _costs(rows: list[Mapping[str, Any]]) -> Table:
    table = _columns(
        "encoder", "images/s", "busy", "x PIL", "of alone", "parameters", "GFLOP", "MiB", "features", "batch"
    )
    for row in sorted(rows, key=lambda row: -row["images_per_second"]):
        table.add_row(
            Text(plain(f"{_name(row)}{' *' if row['front'] else ''}")),
            f"{row['images_per_second']:,.1f}",
            f"{row['busy']:.0%}",
            f"{row['to_one_by_one']:.2f}",
            f"{row['of_encoder_alone']:.2f}",
            f"{row['parameters'] / 1e6:,.1f} M",
            f"{row['flops'] / 1e9:,.2f}" if row["flops"] else "–",
            f"{row['memory_mb']:,}",
            f"{row['dim']:,}",
            f"{row['batch'] or '–'}{', halved' if row['halved'] else ''}",
            style=_style(row),
        )
    table.caption, table.caption_justify = "* none is both better and cheaper", "left"
    return table


def _columns(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="left" if name == "weights" else "right", overflow="fold")
    return table


def _curve(row: Mapping[str, Any]) -> str:
    """Throughput by workers, and what bounds it."""
    loops = ", ".join(f"{loop['workers']}: {loop['images_per_second']:,.1f}" for loop in row["streamed"])
    alone = row["one_by_one"]
    bound = "the encoder" if row["busy"] >= 0.9 else "decoding"
    return (
        f"images/s by decoding workers {loops}; picture by picture {alone['images_per_second']:,.1f} "
        f"(busy {alone['busy']:.0%}); {row['workers']} taken, bound by {bound}"
    )


def _finetuned(row: Mapping[str, Any], says: str) -> str:
    """What training it end to end adds."""
    told = row["finetuned"]
    budget = told["budget"]
    return (
        f"trained end to end {says} {told['score']:.3f}, {told['adds']:+.3f} to its probe, {told['seeds']} seeds, "
        f"no interval; {budget['steps']} steps of {budget['batch']} pictures, {told['seconds']:.0f} s a seed"
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{RANDOM} {row['encoder']}" if _random(row) else row["encoder"]


def _style(row: Mapping[str, Any]) -> str:
    return "red" if _random(row) else ""


def _random(row: Mapping[str, Any]) -> bool:
    return bool(row["weights"]["from"] == "RANDOM")
