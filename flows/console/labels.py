"""Labelled samples: the thresholds that `winnow calibrate` finds, and what `winnow caught` counts."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.text import Text

from filters.core import DISTINCT
from flows.console.layout import Column, Table
from flows.console.output import printable

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.review.label_files import TakenIn


DISAGREEMENTS = 20
"""The disagreements of two labellers that are printed."""


def calibration(found: Mapping[str, Any]) -> Group:
    """For each filter its threshold now and the one that the rule chose. `found` is from `calibrate.measure`."""
    labels = found["labels"]
    return Group(
        _thresholds(found),
        Text(),
        Text(
            printable(
                f"{labels['file']}: {found['downloaded']:,} of {labels['pairs']:,} labelled pairs were downloaded"
            )
        ),
        *(Text(printable(line)) for line in _remarks(found)),
        *(each for line in _agreements(found) for each in (Text(), *map(Text, map(printable, line)))),
        Text(f"\nRule: {found['rule']}. The sample that chose a threshold flatters it a little.", "italic"),
    )


def taken_in(found: "TakenIn") -> Iterator[str]:
    """What became of the annotations of the files that `winnow labels` read."""
    added = found.added
    yield (
        f"annotations: {found.annotations:,}; new labels: {added.new:,}, changed: {added.changed:,}, "
        f"as before: {added.same:,}"
    )
    counts = {
        **{f"annotations {reason}": count for reason, count in found.unused.items()},
        "labels of pairs that the source does not have": found.absent,
        "labels of pairs whose URL has a secret": found.hidden,
        "labels older than another by the same labeller": added.older,
    }
    yield from (f"left out: {what}: {count:,}" for what, count in counts.items() if count)
    for word, count in found.unknown.items():
        yield f"label {word!r}, {count:,} pairs: no filter of the source catches it, and it is not a good one"


def labellers(table: "pa.Table", address: str) -> Group:
    """The pairs that each labeller gave each label. `table` is the table of labels, and `address` its file."""
    counts = Counter((row["labeller"], row["label"]) for row in table.to_pylist())
    shown = Table((Column("labeller", "name"), Column("label", "name"), Column("pairs")), "labels")
    for (who, word), count in sorted(counts.items()):
        shown.add(printable(who), printable(word), f"{count:,}")
    pairs = len(set(table["uid"].to_pylist()))
    return Group(shown, Text(), Text(printable(f"{pairs:,} labelled pairs in {address}")))


def toml(found: Mapping[str, Any]) -> Iterator[str]:
    """The chosen thresholds as lines to paste into the source file."""
    chosen = [(each, each["best"]) for each in found["filters"] if each["best"]]
    if chosen:
        yield "\nNothing was changed. To freeze a threshold, paste its line into the source file:\n"
    for each, best in chosen:
        sides = f"{each['bad']} {' or '.join(each['catches'])} and {each['good']} good pairs"
        yield f"# {each['filter']}: precision {_rate(best['precision'])}, recall {_rate(best['recall'])}; {sides}"
        yield f"sql = {json.dumps(best['sql'], ensure_ascii=False)}"


def caught(found: Mapping[str, Any]) -> Group:
    """Pairs of each label that each filter dropped, and those that failed. `found` is from `caught.count`.

    A row is a filter and a column a label. A narrow terminal gets the labels in several blocks.
    """
    kinds = found["kinds"]
    labels = [Column(printable(kind["label"])) for kind in kinds]
    columns = (Column("filter", "name"), *labels, Column("precision"))
    table = Table(columns, f"labelled pairs that recipe {found['recipe']} dropped")
    for each in found["filters"]:
        counts = (kind["dropped_by"][each["filter"]] for kind in kinds)
        share = "–" if each["precision"] is None else f"{each['precision']:.1%}"
        table.add(each["filter"], *(f"{count:,}" if count else "·" for count in counts), share)
    table.add("any", *(f"{kind['dropped']:,}" for kind in kinds), "", rule=True)
    table.add("of", *(f"{kind['pairs']:,}" for kind in kinds), "")
    table.add("recall", *(f"{kind['recall']:.1%}" for kind in kinds), "")
    return Group(table, Text(), *(Text(printable(line)) for line in _explanations(found)))


def _thresholds(found: Mapping[str, Any]) -> Table:
    columns = (
        Column("filter", "name"),
        Column("", "name"),
        Column("threshold", "text"),
        *map(Column, ("precision", "recall", "good lost")),
    )
    table = Table(columns, f"{found['source']}: thresholds")
    for each in found["filters"]:
        for when in ("now", "best"):
            if line := each[when]:
                lost = f"{line['lost']['hits']} of {line['lost']['of']}"
                rates = (_rate(line["precision"]), _rate(line["recall"]))
                table.add(each["filter"], when, printable(line["sql"]), *rates, lost)
    return table


def _remarks(found: Mapping[str, Any]) -> Iterator[str]:
    for each in found["filters"]:
        sides = f"{each['bad']} {' or '.join(each['catches'])}, {each['good']} good, {each['aside']} set aside"
        yield "; ".join([f"{each['filter']}: {sides}", *each["remarks"]])
    for name in found["left_out"]:
        yield f"{name}: not calibrated, because the filter does not name what it catches"


def _agreements(found: Mapping[str, Any]) -> Iterator[list[str]]:
    """A block of lines for the disputed pairs, and for each two labellers, with the pairs that they disagree on."""
    if disputed := found["labels"]["disputed"]:
        yield [f"Disputed, and left out: {disputed:,} pairs, for which no label has more than half of the labellers."]
    for each in found["agreement"]:
        pairs, more = each["disagreements"][:DISAGREEMENTS], len(each["disagreements"]) - DISAGREEMENTS
        others = [f"  {' / '.join(pair['labels'])}: {pair['url']} {pair['caption']}" for pair in pairs]
        yield [_agreement(each), *others, *([f"  and {more:,} more: --json lists all"] if more > 0 else [])]


def _agreement(each: Mapping[str, Any]) -> str:
    one, two = (who or "nobody named" for who in each["labellers"])
    agreed, kappa = each["agreed"], each["kappa"]
    line = f"{one} and {two}: {each['pairs']:,} pairs"
    if agreed["share"] is not None:
        line += f", equal labels {agreed['share']:.1%} [{agreed['low']:.1%}, {agreed['high']:.1%}]"
    if kappa["value"] is not None:
        line += f", Cohen's kappa {kappa['value']:.2f}"
    if kappa["low"] is not None:
        line += f" [{kappa['low']:.2f}, {kappa['high']:.2f}]"
    return f"{line}; {each['remark']}" if each["remark"] else line


def _explanations(found: Mapping[str, Any]) -> Iterator[str]:
    good = " or ".join(found["good"])
    yield "A filter's row has all pairs that it drops, whatever the others do; any: those that at least one drops."
    yield f"Recall: the share that is dropped; of {good} pairs it is what was lost."
    yield f"Precision: of the labelled pairs that a filter dropped, the share that is not {good}."
    twice = sum(kind["dropped_by"].get(DISTINCT, 0) for kind in found["kinds"] if kind["good"])
    if twice:
        yield f"Of near-duplicates distinct keeps one. If that is a copy, the original goes: {twice:,} {good} pairs."
    if found["labels"]["disputed"]:
        yield f"Disputed by their labellers, and left out: {found['labels']['disputed']:,} pairs."
    if found["absent"]:
        yield f"{found['absent']:,} of {found['labels']['pairs']:,} labelled pairs are not in this manifest."
    if found["failed"]:
        yield "Not downloaded, by label and cause:"
    for each in found["failed"]:
        causes = ", ".join(f"{cause} {pairs:,}" for cause, pairs in each["causes"].items())
        yield f"  {each['label']} {each['pairs']:,}: {causes}"


def _rate(rate: Mapping[str, Any]) -> str:
    return "–" if rate["share"] is None else f"{rate['share']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"
