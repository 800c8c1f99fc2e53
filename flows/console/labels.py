"""What the command line prints of labelled samples: thresholds and where they come from, and what a recipe caught."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from filters.core import DISTINCT
from flows.console.tables import plain


def calibration(found: Mapping[str, Any]) -> Group:
    """What `pipeline.calibrate.measure` gave: the line that each filter draws, and the one of the rule."""
    labels = found["labels"]
    return Group(
        Text(f"{found['source']}: thresholds", "bold"),
        _lines(found),
        Text(plain(f"{labels['file']}: {found['downloaded']:,} of {labels['pairs']:,} labelled pairs were downloaded")),
        *(Text(plain(line)) for line in _remarks(found)),
        Text(f"\nRule: {found['rule']}. The sample that chose a threshold flatters it a little.", "italic"),
    )


def toml(found: Mapping[str, Any]) -> Iterator[str]:
    """The rule's lines for the source file, as they can be pasted."""
    chosen = [(each, each["best"]) for each in found["filters"] if each["best"]]
    if chosen:
        yield "\nNothing was changed. To freeze a threshold, paste its line into the source file:\n"
    for each, line in chosen:
        sides = f"{each['bad']} {' or '.join(each['catches'])} and {each['good']} good pairs"
        yield f"# {each['filter']}: precision {_rate(line['precision'])}, recall {_rate(line['recall'])}; {sides}"
        yield f"sql = {json.dumps(line['sql'], ensure_ascii=False)}"


def caught(found: Mapping[str, Any]) -> Group:
    """What `pipeline.caught.count` gave: pairs of each label that each filter dropped, and those that failed.

    A row a filter: a sample has few labels, and a recipe may have many filters.
    """
    kinds = found["kinds"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("filter", no_wrap=True, vertical="bottom")
    for kind in kinds:
        table.add_column(Text(plain(kind["label"]).replace("_", "_\n")), justify="right", overflow="fold")
    table.add_column("pre-\ncision", justify="right", no_wrap=True)
    for each in found["filters"]:
        counts = (kind["dropped_by"][each["filter"]] for kind in kinds)
        share = "–" if each["precision"] is None else f"{each['precision']:.1%}"
        table.add_row(each["filter"], *(f"{count:,}" if count else "·" for count in counts), share)
    table.add_section()
    table.add_row("any", *(f"{kind['dropped']:,}" for kind in kinds))
    table.add_row("of", *(f"{kind['pairs']:,}" for kind in kinds))
    table.add_row("recall", *(f"{kind['recall']:.1%}" for kind in kinds))
    title = f"labelled pairs that recipe {found['recipe']} dropped: by each filter, whatever the others say; by any"
    return Group(Text(title, "bold"), table, *(Text(plain(line)) for line in _beside(found)))


def _lines(found: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("filter", "", "threshold"):
        table.add_column(column, overflow="fold")
    for column in ("precision", "recall", "good lost"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in found["filters"]:
        for when in ("now", "best"):
            if line := each[when]:
                rates = (_rate(line["precision"]), _rate(line["recall"]))
                lost = f"{line['lost']['hits']} of {line['lost']['of']}"
                table.add_row(each["filter"], when, Text(plain(line["sql"])), *rates, lost)
    return table


def _remarks(found: Mapping[str, Any]) -> Iterator[str]:
    for each in found["filters"]:
        sides = f"{each['bad']} {' or '.join(each['catches'])}, {each['good']} good, {each['aside']} set aside"
        yield "; ".join([f"{each['filter']}: {sides}", *each["remarks"]])
    for name in found["left_out"]:
        yield f"{name}: not calibrated, since it does not say what it catches"


def _beside(found: Mapping[str, Any]) -> Iterator[str]:
    good = " or ".join(found["good"])
    yield f"Recall: the share that is dropped; of {good} pairs it is what was lost."
    yield f"Precision: of the labelled pairs that a filter dropped, the share that is not {good}."
    twice = sum(kind["dropped_by"].get(DISTINCT, 0) for kind in found["kinds"] if kind["good"])
    if twice:
        yield f"Of near-duplicates distinct keeps one: with a copy kept, its original goes, so {twice:,} {good} pairs."
    if found["absent"]:
        yield f"{found['absent']:,} of {found['labels']['pairs']:,} labelled pairs are not in this manifest."
    if found["failed"]:
        yield "Not downloaded, by label and cause:"
    for each in found["failed"]:
        causes = ", ".join(f"{cause} {pairs:,}" for cause, pairs in each["causes"].items())
        yield f"  {each['label']} {each['pairs']:,}: {causes}"


def _rate(rate: Mapping[str, Any]) -> str:
    return "–" if rate["share"] is None else f"{rate['share']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
