"""One page to look at: what came in, what was kept and why, what the thresholds cut, what failed, what it was worth.

The page needs nothing but itself and runs no script. Captions, URLs and error texts come from strangers: they are
escaped, cut, shown as text and never as a link, and the page's own policy forbids scripts and requests as well.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from filters import catalog
from pipeline.filtering import distinct, thresholds
from pipeline.filtering.funnel import Overlap
from pipeline.filtering.thresholds import Threshold
from pipeline.manifest import placeholders
from pipeline.manifest.manifest import Manifest, log
from pipeline.pages import charts
from pipeline.pages.shown import Thumbnails, plain
from pipeline.review import diff
from pipeline.review.diff import Difference
from pipeline.review.drift import Drift
from pipeline.store.storage import Storage
from pipeline.trials.trials import COMPARED

ENCODERS, PARETO = "encoders.json", "encoders.svg"
"""What `winnow encoders` leaves beside the page: the figures, and their plot."""

SAMPLE = 12
"""Pairs of a gallery."""

SHARDS = 64
"""Shards that the galleries are taken from, at most: a tar that is far away would be fetched whole."""

DOMAINS = 12
"""Hosts whose links are told one by one."""

DRIFTED = 15
"""Columns whose drift is told."""

_HOST = (
    r"regexp_replace(lower(regexp_extract(url, '^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#]*@)?([^/?#:]+)', 1)), '^www\.', '')"
)


@dataclass(frozen=True)
class Pair:
    """A pair as it is shown. `picture` is a data URI, or None where there is no picture to show."""

    caption: str
    url: str
    note: str
    picture: str | None


@dataclass(frozen=True)
class Gallery:
    """Pairs under a heading."""

    title: str
    says: str
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Cause:
    """Why pairs have no picture: how many, their share of all distinct pairs, and one of them in words."""

    name: str
    count: int
    share: float
    example: str


@dataclass(frozen=True)
class Domain:
    """A host that pairs could not be fetched from: how many of its pairs, their share, and how many by cause."""

    host: str
    pairs: int
    failed: int
    share: float
    causes: Mapping[str, int]


def write(storage: Storage, manifest: Manifest, gain: Mapping[str, Any] | None, path: Path) -> None:
    """Write the page of a manifest to `path`; `gain` is what `training.gain.measure` gave, or None.

    What lies beside `path` of encoders that were compared is shown as well.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": lambda part, whole: f"{part / whole:.1%}" if whole else "–", "plain": plain}
    facts = {**_facts(storage, manifest, gain), "encoders": _encoders(path.parent)}
    page = environment.get_template("report.html.jinja").render(facts, charts=charts)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)  # whoever looks at the page sees the old one or the new one


def _facts(storage: Storage, manifest: Manifest, gain: Mapping[str, Any] | None) -> dict[str, Any]:
    recipe, commits = manifest.recipe, [commit for commit in log(storage) if commit.id == manifest.id]
    numbers = charts.numbers(manifest)
    named = [each for each in catalog.recipes().values() if each.filters and manifest.fits(each)]
    others = [each for each in named if each.name != recipe.name]
    compared = manifest.compare([recipe, *others])
    parent = Manifest.open(storage, commits[-1].parent) if commits[-1].parent else None
    difference = diff.between(parent, manifest, examples=0) if parent and parent.complete else None
    with manifest.connection() as con:
        lines = thresholds.drawn(con, recipe, [field.name for field in numbers])
        histograms = [
            charts.histogram(con, field, [line for line in lines if line.column == field.name]) for field in numbers
        ]
        ((stored,),) = con.execute("SELECT count(DISTINCT shard) FROM rows WHERE status = 'ok'").fetchall()
        return {
            "manifest": manifest,
            "counts": manifest.counts,
            "commit": commits[-1],
            "funnel": compared.funnels[0].steps,
            "remarks": [*distinct.remarks(manifest.card.get("neighbours", {})), *placeholders.remarks(manifest.card)],
            "compared": compared,
            "filters": _matrix([each.name for each in recipe.filters], compared.funnels[0].overlaps),
            "recipes": _matrix([each.name for each in (recipe, *others)], compared.shared),
            "difference": difference,
            "drifts": _drifts(difference) if difference else [],
            "histograms": [each for each in histograms if each],
            "sampled": (min(SHARDS, stored), stored),
            "galleries": _galleries(con, storage, manifest, lines),
            "causes": _causes(con, manifest),
            "domains": _domains(con),
            "gain": gain,
        }


def _encoders(folder: Path) -> dict[str, Any] | None:
    """The figures of encoders side by side, and `plot`, a data URI; None without any, or of an older winnow's."""
    if not ((folder / ENCODERS).is_file() and (folder / PARETO).is_file()):
        return None
    found: dict[str, Any] = json.loads((folder / ENCODERS).read_bytes())
    if found["code"] != COMPARED:
        return None
    drawn = base64.b64encode((folder / PARETO).read_bytes()).decode()
    return found | {"plot": f"data:image/svg+xml;base64,{drawn}"}


def _matrix(names: Sequence[str], overlaps: Sequence[Overlap]) -> list[tuple[str, list[Overlap | None]]]:
    """A row for each name, with its overlap with every name; None on the diagonal."""
    found = {(each.one, each.other): each for each in overlaps}
    return [(one, [found.get((one, other)) or found.get((other, one)) for other in names]) for one in names]


def _drifts(difference: Difference) -> list[tuple[Drift, Drift]]:
    """The columns that drifted most, as inputs and as kept. Words may be few enough to compare on one side alone."""
    inputs, kept = ({each.column: each for each in side} for side in (difference.inputs, difference.kept))
    pairs = [(inputs.get(one, Drift(one, None, None)), kept.get(one, Drift(one, None, None))) for one in inputs | kept]
    return sorted(pairs, key=lambda pair: (-max(each.psi or 0.0 for each in pair), pair[0].column))[:DRIFTED]


def _causes(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Cause]:
    found = con.execute(
        "SELECT cause, count(*) AS n, coalesce(any_value(error), '') FROM rows WHERE status <> 'ok' "
        "GROUP BY cause ORDER BY n DESC, cause"
    ).fetchall()
    rows = manifest.counts.input - manifest.counts.repeated
    return [Cause(plain(cause or "unknown"), count, count / rows, plain(error)) for cause, count, error in found]


def _domains(con: duckdb.DuckDBPyConnection) -> list[Domain]:
    """The hosts with the most failed pairs; none where all pairs come from one host."""
    found = con.execute(
        f"WITH hosts AS (SELECT {_HOST} AS host, status, coalesce(cause, 'unknown') AS cause FROM rows), "
        "worst AS (SELECT host, count(*) AS pairs, count(*) FILTER (status <> 'ok') AS failed FROM hosts GROUP BY host "
        f"HAVING failed > 0 ORDER BY failed DESC, host LIMIT {DOMAINS}) "
        "SELECT host, any_value(pairs), any_value(failed), cause, count(*) AS n FROM worst JOIN hosts USING (host) "
        "WHERE status <> 'ok' AND (SELECT count(DISTINCT host) FROM hosts) > 1 "
        "GROUP BY host, cause ORDER BY any_value(failed) DESC, host, n DESC, cause"
    ).fetchall()
    domains: dict[str, Domain] = {}
    for host, pairs, failed, cause, count in found:
        domain = domains.setdefault(host, Domain(plain(host) or "no host", pairs, failed, failed / pairs, {}))
        domains[host] = replace(domain, causes={**domain.causes, plain(cause): count})
    return list(domains.values())


def _galleries(
    con: duckdb.DuckDBPyConnection, storage: Storage, manifest: Manifest, lines: Sequence[Threshold]
) -> list[Gallery]:
    """Kept, dropped with why, and the pairs on both sides of each threshold; the same ones every time."""
    chosen = f"(SELECT shard FROM rows WHERE status = 'ok' GROUP BY shard ORDER BY hash(shard) LIMIT {SHARDS})"
    con.execute(f"CREATE TEMP TABLE sample AS FROM rows WHERE status = 'ok' AND shard IN {chosen}")
    why = "concat('dropped by ', array_to_string(dropped_by, ', '), if(len(unknown) > 0, ' (no score)', ''))"
    wanted = [
        ("Kept", "A blind sample.", "kept", "hash(uid)", "''"),
        ("Dropped", "A blind sample, each with every filter that it did not pass.", "NOT kept", "hash(uid)", why),
    ]
    for line in lines:
        near = f'abs("{line.column}" - {line.value})'
        wanted.append(
            (
                f"Near the threshold of {line.filter}",
                f"The pairs whose {line.column} is nearest to {line.value:.4g}: is the line where it should be?",
                f'"{line.column}" IS NOT NULL',
                f"{near}, hash(uid)",
                f"concat(if(kept, 'kept, ', 'dropped, '), printf('%.4g', \"{line.column}\"::DOUBLE))",
            )
        )
    rows = [
        con.execute(
            f"SELECT shard, member, caption, url, {note} FROM sample WHERE {where} ORDER BY {order} LIMIT {SAMPLE}"
        ).fetchall()
        for _, _, where, order, note in wanted
    ]
    thumbnails = Thumbnails(storage, manifest)
    return [
        Gallery(title, says, [Pair(plain(c), plain(u), n, _picture(thumbnails, s, m)) for s, m, c, u, n in each])
        for (title, says, *_), each in zip(wanted, rows, strict=True)
    ]


def _picture(thumbnails: Thumbnails, shard: int, member: str) -> str | None:
    jpeg = thumbnails.read(shard, member)
    return None if jpeg is None else f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
