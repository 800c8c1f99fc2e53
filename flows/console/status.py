"""The status of a source: a table of its stages, and lines about the run, its failures and its GPUs."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from flows.console.layout import Column, Paragraph, Table
from flows.console.output import printable
from pipeline.status.progress import Progress, Status

SHOWN = 5
"""Quarantined shards and missing objects that are named."""


def page(status: Status) -> Group:
    """All of it, for a terminal."""
    return Group(*_parts(status))


def _parts(status: Status) -> Iterator[RenderableType]:
    yield Paragraph(_headline(status), "bold")
    if status.stages:
        yield _stages(status)
    if status.running:
        yield Paragraph(_remaining(status))
        yield from (
            Text(f"GPU {gpu.name}: {gpu.busy:.0%} busy, {gpu.used:,} of {gpu.memory:,} MiB") for gpu in status.gpus
        )
        if not status.gpus:
            yield Text(f"no GPU on {status.host}")
    if status.failed:
        yield Text()
        yield _failures(status)
    for number, reason in sorted(status.quarantined.items())[:SHOWN]:
        yield Paragraph(f"quarantined until the next run: shard {number:05d}: {printable(reason)}")
    if (more := len(status.quarantined) - SHOWN) > 0:
        yield Text(f"quarantined until the next run: {more:,} more shards")
    if status.missing:
        yield Paragraph(_missing(status), "bold")


def _headline(status: Status) -> str:
    where = f" (begun {status.begun.removesuffix('+00:00').replace('T', ' ')} UTC on {status.host})"
    manifest = f"manifest {status.manifest[:12]}" if status.manifest else ""
    match status.state:
        case "running":
            return f"{status.source}: a run is writing{where}: {status.phase}"
        case "killed":
            return f"{status.source}: the last run{where} was killed: `winnow curate` resumes it"
        case "failed":
            return f"{status.source}: the last run{where} failed: {printable(status.error or '')}"
        case "finished":
            return f"{status.source}: no run is writing; the last one{where} published {manifest}"
    return f"{status.source}: no run is writing; {manifest} is published"


def _stages(status: Status) -> Table:
    columns = [Column("stage", "name"), Column("shards done"), Column("of"), Column("share")]
    if status.running:
        columns += [Column("shards/h"), Column("left")]
    table = Table(columns)
    for stage in status.stages:
        share = f"{stage.done * 1000 // stage.total / 1000:.1%}" if stage.total else "–"  # 100 % means all
        cells = [stage.name, f"{stage.done:,}", f"{stage.total:,}", share]
        table.add(*cells, *(_speed(stage) if status.running else ()))
    return table


def _speed(stage: Progress) -> tuple[str, str]:
    if stage.of_pool:
        return ("", "after all shards" if stage.done < stage.total else "")
    if not stage.per_second:
        return ("", "" if stage.done == stage.total else "–")
    left = duration((stage.total - stage.done) / stage.per_second) if stage.done < stage.total else ""
    return (f"{stage.per_second * 3600:,.0f}", left)


def _remaining(status: Status) -> str:
    if status.phase == "publish":
        return "every shard is done or given up; the manifest is being made"
    if status.seconds_left is None:
        return "time left: not known yet"
    return f"time left: {duration(status.seconds_left)}, then publishing"


def _failures(status: Status) -> Table:
    total = sum(status.failed.values())
    title = f"{total:,} pairs failed in {status.counted:,} shards"
    table = Table((Column("cause", "name"), Column("pairs"), Column("share")), title)
    for cause, count in sorted(status.failed.items(), key=lambda each: (-each[1], each[0])):
        table.add(printable(cause), f"{count:,}", f"{count / total:.1%}")
    return table


def _missing(status: Status) -> str:
    named = ", ".join(status.missing[:SHOWN])
    more = f" and {len(status.missing) - SHOWN:,} more" if len(status.missing) > SHOWN else ""
    what = "object is" if len(status.missing) == 1 else "objects are"
    return f"{len(status.missing):,} {what} missing: {named}{more}: `winnow curate {status.source}` makes them again"


def duration(seconds: float) -> str:
    """Such as 40 s, 12 min, 3 h 05 min, 2 d 4 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
