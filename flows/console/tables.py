"""What the command line prints. Captions and URLs come from strangers: nothing of theirs may steer a terminal."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

import pyarrow as pa
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.filtering.funnel import Comparison, Overlap, Step
from pipeline.manifest.manifest import Counts
from pipeline.review.audit import Audit
from pipeline.review.diff import Difference
from pipeline.takedown.result import Takedown

SHOWN = 50
"""Rows of an answer that a table shows."""

WORST = 10
"""Groups of each kind that the table of an audit shows."""

OVERLAPS = 10
"""Pairs of filters, or of recipes, that a table shows."""

LONGEST = 200
"""Characters of one value that a table shows."""


def show(thing: RenderableType, to_stderr: bool) -> None:
    """Print a table or text as wide as the terminal."""
    Console(stderr=to_stderr).print(thing)


def counts(name: str, counted: Counts) -> Group:
    """Where every row went."""
    table = Table(box=None, show_header=False)
    table.add_column("what")
    table.add_column("rows", justify="right")
    for what, count in asdict(counted).items():
        table.add_row("  of them unscored" if what == "unscored" else what, f"{count:,}")
    return Group(Text(f"{name}: where every row went", "bold"), table)


def removal(name: str, done: Takedown) -> Group:
    """What a takedown meant in one source."""
    table = Table(box=None, show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    for what, count in (
        ("pairs that are meant", done.pairs),
        ("names that fit no pair", done.unknown),
        ("rows of the ledger", done.rows),
        ("pictures", done.pictures),
        ("rows of scores", done.scores),
        ("rows of embeddings", done.embeddings),
        ("other objects", done.objects),
    ):
        table.add_row(what, f"{count:,}")
    last = f"manifest {done.manifest}" if done.manifest else "nothing was published"
    return Group(Text(f"{name}: what was taken down", "bold"), table, Text(last))


def funnel(recipe: str, pool: int, steps: Sequence[Step]) -> Group:
    """What each filter does to the downloaded pairs."""
    table = _numbers("filter", "passes alone", "in sequence", "fails", "unscored", "alone drops")
    for step in steps:
        told = (step.alone, step.sequence, step.fails, step.unscored, step.costs)
        table.add_row(step.filter, *(f"{count:,}" for count in told))
    return Group(Text(f"recipe {recipe}: {pool:,} downloaded pairs", "bold"), table)


def comparison(found: Comparison) -> Group:
    """Recipes side by side, each one's funnel, and which filters drop the same pairs."""
    things: list[RenderableType] = []
    if len(found.funnels) > 1:
        table = _numbers("recipe", "filters", "kept", "of the pool")
        for each in found.funnels:
            share = f"{each.kept / found.pool:.1%}" if found.pool else "–"
            table.add_row(each.recipe, str(len(each.steps)), f"{each.kept:,}", share)
        title = Text(f"{len(found.funnels)} recipes: {found.pool:,} downloaded pairs", "bold")
        things += [title, table, _overlaps("kept by both recipes", found.shared)]
    for each in found.funnels:
        things.append(funnel(each.recipe, found.pool, each.steps))
        if each.overlaps:
            things.append(_overlaps("dropped by both filters", each.overlaps))
    return Group(*things)


def difference(found: Difference) -> Group:
    """Which rows changed sides and why, examples of them, and how far the columns drifted."""
    head = f"from manifest {found.before[:12]} to {found.after[:12]}: {found.rows[0]:,} rows, then {found.rows[1]:,}"
    things: list[RenderableType] = [
        Text(head, "bold"),
        Text(plain(f"what differs in their making: {'; '.join(found.changed) or 'nothing'}")),
        *(Text(plain(f"certificates are not equal, so that decisions flip: {each}")) for each in found.certificates),
    ]
    if found.moves:
        moves = _numbers("rows that changed sides", "rows")
        for move in found.moves:
            moves.add_row(f"{move.before} → {move.after}", f"{move.rows:,}")
        things.append(moves)
    changes = _numbers("filter", "now drops", "now lets through", "passed in sequence", "pass now")
    for each in found.changes:
        passed = ("–" if count is None else f"{count:,}" for count in (each.before, each.after))
        changes.add_row(each.filter, f"{each.drops:,}", f"{each.frees:,}", *passed)
    drifts = _numbers("column", "PSI of inputs", "KS", "PSI of kept", "KS")
    kept = {each.column: each for each in found.kept}
    for one in sorted(found.inputs, key=lambda each: -(each.psi or 0)):
        other = kept.get(one.column)
        four = (one.psi, one.ks, other and other.psi, other and other.ks)
        drifts.add_row(one.column, *("–" if value is None else f"{value:.3f}" for value in four))
    things += [table for table in (changes, drifts) if table.rows]
    for row in found.examples:
        why = ", ".join(row["dropped_after"] or row["dropped_before"] or ())
        told = f"{row['before']} → {row['after']}{f' ({why})' if why else ''}: {_short(row['caption'])}  {row['url']}"
        things.append(Text(plain(told)))
    return Group(*things)


def audit(found: Audit) -> Group:
    """Of each kind the groups that are removed more than the whole; of lengths all."""
    whole = found.removed
    share = "–" if whole.share is None else f"{whole.share:.1%}"
    head = f"recipe {found.recipe} removes {whole.hits:,} of {whole.of:,} downloaded pairs: {share}"
    things: list[RenderableType] = [Text(head, "bold")]
    for by in dict.fromkeys(each.by for each in found.groups):
        groups = found.of(by) if by == "length" else found.hit(by)
        if not groups:
            things.append(Text(f"no {by} is removed more often than the whole"))
            continue
        table = _numbers(
            by if by == "length" else f"{by} that is hit most", "pairs", "removed", "share", "95 % interval"
        )
        for group in groups[:WORST]:
            told = group.removed
            interval = f"{told.low:.1%} to {told.high:.1%}"
            table.add_row(_short(group.value)[:40], f"{told.of:,}", f"{told.hits:,}", f"{told.share:.1%}", interval)
        table.caption, table.caption_justify = _more(groups, WORST), "left"
        things.append(table)
    return Group(*things)


def _more(things: Sequence[Any], shown: int) -> str | None:
    return f"the first {shown} of {len(things)}; --json has all" if len(things) > shown else None


def _numbers(first: str, *others: str) -> Table:
    """A table whose first column is a name, and whose others are numbers."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _overlaps(title: str, overlaps: Sequence[Overlap]) -> Table:
    """The pairs of names that agree most."""
    most = sorted(overlaps, key=lambda each: -each.jaccard)[:OVERLAPS]
    table = _numbers(title, "pairs", "Jaccard")
    table.caption, table.caption_justify = _more(overlaps, OVERLAPS), "left"
    for each in most:
        table.add_row(f"{each.one}, {each.other}", f"{each.both:,}", f"{each.jaccard:.2f}")
    return table


def bench(found: Mapping[str, Any]) -> Group:
    """What `winnow bench` measured, and a bar of where the time of scoring goes."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("pairs/s", justify="right", no_wrap=True)
    table.add_column("")
    rate = found["pairs_per_second"]
    for what, key, compared in (
        ("winnow, from tars to Parquet", "pairs_per_second", ""),
        (
            "the towers alone, the ceiling",
            "ceiling_pairs_per_second",
            f"winnow reaches {found['share_of_ceiling']:.2f}",
        ),
        (f"decoding and resizing by {found['plan']['decoder']} alone", "decode_pairs_per_second", ""),
        (
            "the reference loop",
            "reference_pairs_per_second",
            f"winnow is {found['ratio_to_reference']:.2f} times as fast",
        ),
    ):
        table.add_row(what, f"{found[key]:,.1f}", compared)
    plan = found["plan"]
    head = (
        f"{plan['model']}, {found['precision']}: {plan['repeats']} times {plan['pairs']:,} pairs of {plan['side']} px"
    )
    facts = (
        f"similarities differ from the reference's by at most {found['largest_difference']:.2g}; the towers reach "
        f"{found['share_of_matmul']:.2f} of the rate of matrix products; {found['peak_memory_mb']:,} MiB; "
        f"{found['device']}, {found['cores']} cores of {found['processor']}, "
        f"load {' to '.join(map(str, found['load']))}"
    )
    return Group(Text(head, "bold"), table, *_stacked(found["seconds_per_pair"], 1 / rate), Text(facts))


def choosing(found: Mapping[str, Any]) -> Group:
    """What `winnow bench --choose` measured."""
    table = _numbers("", "seconds", "MiB at most")
    table.add_row("winnow: funnel", f"{found['funnel_seconds']:.2f}", "")
    table.add_row("winnow: selection", f"{found['select_seconds']:.2f}", "")
    for what, side in (("winnow: both", ""), ("pandas, masks", "pandas_")):
        table.add_row(what, f"{found[side + 'seconds']:.2f}", f"{found[side + 'peak_memory_mb']:,}")
    head = f"six filters over {found['rows']:,} rows of {found['columns']} columns keep {found['kept']:,}"
    facts = (
        f"winnow is {found['ratio_to_pandas']:.1f} times as fast; medians of {found['repeats']}; "
        f"{found['cores']} cores of {found['processor']}, load {' to '.join(map(str, found['load']))}"
    )
    return Group(Text(head, "bold"), table, Text(facts))


def _stacked(seconds: Mapping[str, float], whole: float) -> Iterator[Text]:
    """A bar of 60 characters, and what its colours are."""
    bar, told = Text(), Text()
    total = sum(seconds.values())
    for (what, spent), style in zip(seconds.items(), ("blue", "cyan", "magenta", "yellow", "green"), strict=True):
        bar.append("█" * round(60 * spent / total), style)
        told.append("█ ", style).append(f"{what} {spent / total:.1%}   ")
    yield Text(f"Where the {1000 * whole:.1f} ms of a pair go:")
    yield bar
    yield told


def answer(rows: pa.Table) -> Table:
    """The first `SHOWN` rows of a query."""
    more = f"the first {SHOWN} of {len(rows):,} rows" if len(rows) > SHOWN else None
    table = Table(box=box.SIMPLE_HEAD, caption=more, caption_justify="left")
    for field in rows.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(Text(plain(field.name)), justify="right" if numeric else "left")
    for row in rows.slice(0, SHOWN).to_pylist():
        table.add_row(*(Text(_short(value)) for value in row.values()))
    return table


def as_json(value: Mapping[str, Any], file: TextIO | None = None) -> None:
    """One JSON object on one line, of stdout unless told otherwise. What JSON has no number for is null."""
    print(json.dumps(_finite(value), default=str, allow_nan=False), file=file, flush=True)


def plain(text: str) -> str:
    """The text with every character that is no printable one made visible."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = plain("" if value is None else str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
