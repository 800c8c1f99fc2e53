"""What `winnow bench` measured."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from flows.console.layout import Column, Table

BAR = 60
"""Characters of the bar that shows where the time goes."""

COLOURS = ("blue", "cyan", "magenta", "yellow", "green", "red", "white", "bright_black")


def scoring(found: Mapping[str, Any]) -> Group:
    """Pairs a second, beside the ceiling and the reference loop, and where the time of a pair goes."""
    plan = found["plan"]
    columns = (Column("", "name"), Column("pairs/s"), Column("", "text"))
    table = Table(
        columns,
        f"{plan['model']}, {found['precision']}: {plan['repeats']} times {plan['pairs']:,} pairs of {plan['side']} px",
    )
    decoding = f"decoding and resizing by {plan['decoder']} alone"
    for what, key, remark in (
        ("winnow, from tars to Parquet", "pairs_per_second", ""),
        (
            "the towers alone, the ceiling",
            "ceiling_pairs_per_second",
            f"winnow reaches {found['share_of_ceiling']:.2f}",
        ),
        (decoding, "decode_pairs_per_second", ""),
        (
            "the reference loop",
            "reference_pairs_per_second",
            f"winnow is {found['ratio_to_reference']:.2f} times as fast",
        ),
    ):
        table.add(what, f"{found[key]:,.1f}", remark)
    facts = (
        f"similarities differ from the reference's by at most {found['largest_difference']:.2g}; the towers reach "
        f"{found['share_of_matmul']:.2f} of the rate of matrix products; {found['peak_memory_mb']:,} MiB; "
        f"{found['device']}, {_machine(found)}"
    )
    seconds = 1 / found["pairs_per_second"]
    return Group(table, Text(), *_bar(found["seconds_per_pair"], seconds), Text(), Text(facts))


def choosing(found: Mapping[str, Any]) -> Group:
    """Seconds and memory of a funnel and a selection, beside masks in pandas."""
    title = f"six filters over {found['rows']:,} rows of {found['columns']} columns keep {found['kept']:,}"
    table = Table((Column("", "name"), Column("seconds"), Column("MiB at most")), title)
    table.add("winnow: funnel", f"{found['funnel_seconds']:.2f}", "")
    table.add("winnow: selection", f"{found['select_seconds']:.2f}", "")
    table.add("winnow: both", f"{found['seconds']:.2f}", f"{found['peak_memory_mb']:,}")
    table.add("pandas, masks", f"{found['pandas_seconds']:.2f}", f"{found['pandas_peak_memory_mb']:,}")
    facts = f"winnow is {found['ratio_to_pandas']:.1f} times as fast; medians of {found['repeats']}; {_machine(found)}"
    return Group(table, Text(facts))


def downloading(found: Mapping[str, Any]) -> Group:
    """Pictures a second, beside img2dataset and one core, and where the time of all cores goes."""
    plan, cores = found["plan"], found["cores"]
    size = f"{plan['side']} px and {found['kilobytes']} kB"
    wait = f", {1000 * plan['delay']:g} ms before each response" if plan["delay"] else ""
    table = Table(
        (Column("", "name"), Column("pictures/s"), Column("connections"), Column("", "text")),
        f"{plan['repeats']} times {plan['pictures']:,} pictures of {size} from loopback{wait}",
    )
    table.add(
        f"winnow, {cores} cores",
        f"{found['pictures_per_second']:,.0f}",
        f"{found['connections']:,.0f}",
        f"{found['ratio_to_img2dataset']:.2f} times img2dataset",
    )
    table.add(
        f"img2dataset, {cores} processes",
        f"{found['img2dataset_per_second']:,.0f}",
        f"{found['img2dataset_connections']:,.0f}",
        "",
    )
    if "scaling" in found:
        table.add(
            "winnow, 1 core",
            f"{found['alone_per_second']:,.0f}",
            "",
            f"{cores} cores are {found['scaling']:.2f} times as fast",
        )
    parts = found["seconds_per_picture"]
    bar = _bar(parts, sum(parts.values()), "all cores spend on a picture")
    return Group(table, Text(), *bar, Text(), Text(_machine(found)))


def _machine(found: Mapping[str, Any]) -> str:
    load = " to ".join(map(str, found["load"]))
    return f"{found['cores']} cores of {found['processor']}, load {load}"


def _bar(parts: Mapping[str, float], seconds: float, of: str = "a pair takes") -> Iterator[Text]:
    """A bar, and what its colours stand for. `parts` are seconds by step, `seconds` the time of a pair."""
    bar, legend = Text(), Text()
    total = sum(parts.values())
    for (step, spent), colour in zip(parts.items(), COLOURS, strict=False):
        bar.append("█" * round(BAR * spent / total), colour)
        legend.append("█ ", colour).append(f"{step} {spent / total:.1%}   ")
    yield Text(f"Where the {1000 * seconds:.1f} ms go that {of}:")
    yield bar
    yield legend
