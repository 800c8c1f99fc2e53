"""One page to look at: what came in, what was kept and why, what the thresholds cut, what failed, what it was worth.

The page needs nothing but itself and runs no script. Captions, URLs and error texts come from strangers: they are
escaped, cut, shown as text and never as a link, and the page's own policy forbids scripts and requests as well.
"""

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import charts, shards
from pipeline.charts import Threshold
from pipeline.manifest import Manifest, log
from pipeline.storage import Storage

SAMPLE = 12
"""Pairs of a gallery."""

SHARDS = 8
"""Shards that the galleries are taken from: a tar is read from its beginning."""

THUMBNAIL = 176
"""Pixels, the longer side."""

LONGEST = 240
"""Characters that are shown of a caption, a URL or an error."""

_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


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


def write(storage: Storage, manifest: Manifest, gain: Mapping[str, Any] | None, path: Path) -> None:
    """Write the page of a manifest to `path`; `gain` is what `training.gain.measure` gave, or None."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"share": lambda part, whole: f"{part / whole:.1%}" if whole else "–", "plain": _plain}
    page = environment.get_template("report.html.jinja").render(_facts(storage, manifest, gain), charts=charts)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)  # whoever looks at the page sees the old one or the new one


def _facts(storage: Storage, manifest: Manifest, gain: Mapping[str, Any] | None) -> dict[str, Any]:
    recipe, commits = manifest.recipe, [commit for commit in log(storage) if commit.id == manifest.id]
    numbers = [field for field in manifest.columns if _drawn(field, manifest)]
    with manifest.connection() as con:
        lines = charts.thresholds(con, recipe, [field.name for field in numbers])
        histograms = [
            charts.histogram(con, field, [line for line in lines if line.column == field.name]) for field in numbers
        ]
        return {
            "manifest": manifest,
            "counts": manifest.counts,
            "commit": commits[-1],
            "funnel": manifest.funnel(recipe),
            "histograms": [each for each in histograms if each],
            "galleries": _galleries(con, storage, manifest, lines),
            "causes": _causes(con, manifest),
            "gain": gain,
        }


def _drawn(field: pa.Field, manifest: Manifest) -> bool:
    """Whether a histogram says something: scores, and the size of the picture."""
    kind = field.type
    score = any(field.name.startswith(f"{name}_") for name in manifest.document["stages"]["scores"])
    number = pa.types.is_floating(kind) or pa.types.is_signed_integer(kind)
    return number and (score or field.name in ("width", "height"))


def _causes(con: duckdb.DuckDBPyConnection, manifest: Manifest) -> list[Cause]:
    found = con.execute(
        "SELECT cause, count(*) AS n, coalesce(any_value(error), '') FROM rows WHERE status <> 'ok' "
        "GROUP BY cause ORDER BY n DESC, cause"
    ).fetchall()
    rows = manifest.counts.input - manifest.counts.repeated
    return [Cause(_plain(cause or "unknown"), count, count / rows, _plain(error)) for cause, count, error in found]


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
    pictures = _pictures(storage, manifest, {row[:2] for each in rows for row in each})
    return [
        Gallery(title, says, [Pair(_plain(c), _plain(u), n, pictures.get((s, m))) for s, m, c, u, n in each])
        for (title, says, *_), each in zip(wanted, rows, strict=True)
    ]


def _pictures(storage: Storage, manifest: Manifest, wanted: Iterable[tuple[int, str]]) -> dict[tuple[int, str], str]:
    """Thumbnails as data URIs, by shard and member. A tar that is gone leaves its pairs without a picture."""
    found = {}
    members: dict[int, set[str]] = {}
    for shard, member in wanted:
        members.setdefault(shard, set()).add(member)
    for shard, names in members.items():
        key = f"shards-{manifest.document['stages']['shards']}/{shard:05d}.tar"
        if not storage.done(key):
            continue
        for name, data in shards.read(storage.fetch(key)):
            if name in names:
                found[shard, name] = _thumbnail(data)
                names.remove(name)
            if not names:
                break
    return found


def _thumbnail(jpeg: bytes) -> str:
    from PIL import Image

    data = io.BytesIO()
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        image.convert("RGB").save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _plain(text: str) -> str:
    """What a stranger wrote, less control characters and signs that turn the direction of writing, and not too long."""
    text = " ".join(_UNSEEN.sub(" ", text).split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
