"""Frozen encoders side by side: the score and the cost of each, and the best one as lines of a source file."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console.layout import Column, Table
from flows.console.output import printable

RANDOM = "RANDOM WEIGHTS"
"""Before the name of an encoder with random weights."""


def table(found: Mapping[str, Any]) -> Group:
    """Scores, costs, the throughput of each encoder by workers, and the encoders that failed."""
    rows = [row for row in found["encoders"] if "error" not in row]
    parts: list[RenderableType] = [_scores(found, rows), Text(), Text(_costs_on(found)), Text(), _costs(rows), Text()]
    parts += [_remark(row, _throughput(row)) for row in rows]
    parts += [_remark(row, _finetuned(row, found["metrics"][0][1])) for row in rows if "finetuned" in row]
    errors = [f"{row['encoder']}: {row['error']}" for row in found["encoders"] if "error" in row]
    parts += [Text(printable(error), "red") for error in errors]
    if errors:
        parts.append(Text("For weights on this machine, put a file after an @: timm:resnet50@FILE.safetensors"))
    return Group(*parts)


def toml(found: Mapping[str, Any]) -> Iterator[str]:
    """The best one as a learner of the source file."""
    row = next((row for row in found["encoders"] if row["encoder"] == found["best"]), None)
    if row:
        yield "\nTo measure the gain on the best one, paste this into the source file:\n"
        yield f'[task.learners.best]\nhead = "linear"\n{row["toml"]}'


def _costs_on(found: Mapping[str, Any]) -> str:
    pictures, load = found["costs_on"], " to ".join(map(str, found["load"]))
    return (
        f"Costs: {pictures['pictures']} stored pictures of {pictures['bytes'] / 1000:.0f} kB; {found['device']}, "
        f"{found['cores']} cores, load {load}. busy: the share of the time in which the encoder works. x PIL: "
        "compared with a loop that opens one picture after another. of alone: compared with the encoder on pictures "
        "that are decoded already."
    )


def _scores(found: Mapping[str, Any], rows: list[Mapping[str, Any]]) -> Table:
    (main, score), (other, second) = found["metrics"][0], found["metrics"][-1]
    columns = (
        Column("encoder", "text"),
        Column("weights", "text"),
        *map(Column, (score, "95 %", second, "behind the best")),
    )
    pictures, seeds = found["test_pictures"], found["budget"]["seeds"]
    title = f"Linear probes on what {found['recipe']} keeps: {pictures} held-out pictures, {seeds} seeds"
    table = Table(columns, title)
    for row in sorted(rows, key=lambda row: -row["score"]):
        behind = row.get("behind")
        table.add(
            printable(_name(row)),
            printable(_weights(row)),
            f"{row['score']:.3f}",
            f"{row['low']:.3f} to {row['high']:.3f}",
            f"{row['scores'][other]:.3f}",
            f"{behind['difference']:+.3f} ({behind['low']:+.3f} to {behind['high']:+.3f})" if behind else "",
            style=_style(row),
        )
    base = found["baseline"]
    table.add(printable(base["says"]), "", f"{base[main]:.3f}", "", f"{base[other]:.3f}", "")
    return table


def _costs(rows: list[Mapping[str, Any]]) -> Table:
    names = ("images/s", "busy", "x PIL", "of alone", "parameters", "GFLOP", "MiB", "features", "batch")
    table = Table(
        (Column("encoder", "text"), *map(Column, names)), note="* no other encoder is both better and cheaper"
    )
    for row in sorted(rows, key=lambda row: -row["images_per_second"]):
        mark = " *" if row["front"] else ""
        halved = ", halved" if row["halved"] else ""
        table.add(
            printable(f"{_name(row)}{mark}"),
            f"{row['images_per_second']:,.1f}",
            f"{row['busy']:.0%}",
            f"{row['to_one_by_one']:.2f}",
            f"{row['of_encoder_alone']:.2f}",
            f"{row['parameters'] / 1e6:,.1f} M",
            f"{row['flops'] / 1e9:,.2f}" if row["flops"] else "–",
            f"{row['memory_mb']:,}",
            f"{row['dim']:,}",
            f"{row['batch'] or '–'}{halved}",
            style=_style(row),
        )
    return table


def _weights(row: Mapping[str, Any]) -> str:
    weights = row["weights"]
    return f"{weights['from']} {weights['name']} {weights['sha256'][:8]}" if weights["sha256"] else weights["from"]


def _remark(row: Mapping[str, Any], remark: str) -> Text:
    return Text(printable(f"{_name(row)}: {remark}"), _style(row))


def _throughput(row: Mapping[str, Any]) -> str:
    """Images per second by number of decoding workers, and what limits it."""
    loops = ", ".join(f"{loop['workers']}: {loop['images_per_second']:,.1f}" for loop in row["streamed"])
    alone = row["one_by_one"]
    bound = "the encoder" if row["busy"] >= 0.9 else "decoding"
    return (
        f"images/s by decoding workers {loops}; picture by picture {alone['images_per_second']:,.1f} "
        f"(busy {alone['busy']:.0%}); {row['workers']} workers are used; the limit is {bound}"
    )


def _finetuned(row: Mapping[str, Any], says: str) -> str:
    """What training it end to end adds."""
    tuned = row["finetuned"]
    budget = tuned["budget"]
    return (
        f"trained end to end {says} {tuned['score']:.3f}, {tuned['adds']:+.3f} to its probe, {tuned['seeds']} seeds, "
        f"no interval; {budget['steps']} steps of {budget['batch']} pictures, {tuned['seconds']:.0f} s a seed"
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"{RANDOM} {row['encoder']}" if _random(row) else row["encoder"]


def _style(row: Mapping[str, Any]) -> str:
    return "red" if _random(row) else ""


def _random(row: Mapping[str, Any]) -> bool:
    return bool(row["weights"]["from"] == "RANDOM")
