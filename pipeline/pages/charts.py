"""Where the bars, lines and dots of the report go: numbers in, SVG coordinates out. The template draws them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.filtering.thresholds import Threshold
from pipeline.manifest.columns import score_columns
from pipeline.manifest.manifest import Manifest

WIDTH, HEIGHT = 320, 96
"""The plane of a histogram, in SVG units."""

BINS = 40


@dataclass(frozen=True)
class Mark:
    """A threshold of the recipe: `x` in SVG units, `text` to write there."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Bar:
    """Kept pairs below, dropped ones on top of them."""

    x: float
    width: float
    kept: float
    dropped: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """One score column over the downloaded pairs; the outermost bins hold what lies beyond them, too."""

    column: str
    bars: Sequence[Bar]
    marks: Sequence[Mark]
    low: str
    high: str
    count: int
    unscored: int


def numbers(manifest: Manifest) -> list[pa.Field]:
    """The columns of which a histogram says something: scores, and the size of the picture."""
    scores = score_columns(manifest)

    def drawn(field: pa.Field) -> bool:
        number = pa.types.is_floating(field.type) or pa.types.is_signed_integer(field.type)
        return number and (field.name in scores or field.name in ("width", "height"))

    return [field for field in manifest.columns if drawn(field)]


@dataclass(frozen=True)
class Axis:
    """How the values of a column are cut: `bins` of `step` from `low` on; the outermost hold what lies beyond, too.

    The finite values of downloaded pairs go from `least` to `most`; `count` pairs have one, and `unscored` have none.
    """

    column: str
    whole: bool
    low: float
    step: float
    bins: int
    least: float
    most: float
    count: int
    unscored: int

    @property
    def high(self) -> float:
        """Where the last bin ends."""
        return self.low + self.bins * self.step

    @property
    def bin(self) -> str:
        """SQL for the number of the bin that a row's value falls into; NULL where it has no finite one."""
        value = f'"{self.column}"::DOUBLE'
        place = f"greatest(0, least({self.bins - 1}, floor(({value} - {self.low}) / {self.step})))"
        return f"CASE WHEN isfinite({value}) THEN {place}::INTEGER END"


def axis(con: duckdb.DuckDBPyConnection, field: pa.Field, marks: Iterable[float] = ()) -> Axis | None:
    """The column's axis, marks included; None where no two pairs have two finite values: a single bar says nothing."""
    column = f'"{field.name}"::DOUBLE'
    row = con.execute(
        f"SELECT min(v), max(v), quantile_cont(v, 0.002), quantile_cont(v, 0.998), count(v), count(*) - count(v) FROM "
        f"(SELECT CASE WHEN isfinite({column}) THEN {column} END AS v FROM rows WHERE status = 'ok')"
    ).fetchall()[0]
    if not row[4] or row[0] == row[1]:
        return None
    least, most, low, high = (float(value) for value in row[:4])
    low, high = min([low, *marks]), max([high, *marks])
    whole = pa.types.is_integer(field.type)
    bins = min(BINS, max(1, math.ceil(high) - math.floor(low) + 1)) if whole else BINS if high > low else 1
    low, high = (math.floor(low), math.floor(low) + math.ceil((high - low + 1) / bins) * bins) if whole else (low, high)
    return Axis(field.name, whole, low, (high - low) / bins or 1.0, bins, least, most, row[4], row[5])


def histogram(con: duckdb.DuckDBPyConnection, field: pa.Field, marks: Sequence[Threshold]) -> Histogram | None:
    """The column's histogram, or None where it would say nothing (see `axis`)."""
    along = axis(con, field, (mark.value for mark in marks))
    if along is None:
        return None
    counted = con.execute(
        f"SELECT {along.bin} AS bin, count(*) FILTER (kept), count(*) FROM rows "
        "WHERE status = 'ok' AND bin IS NOT NULL GROUP BY bin ORDER BY bin"
    ).fetchall()
    highest = max(total for _, _, total in counted)
    bars = [
        Bar(
            x=bin_ * WIDTH / along.bins,
            width=WIDTH / along.bins,
            kept=kept * HEIGHT / highest,
            dropped=(total - kept) * HEIGHT / highest,
            title=f"from {along.low + bin_ * along.step:.4g}: {total:,} pairs, {kept:,} kept",
        )
        for bin_, kept, total in counted
    ]
    drawn = [_mark(mark, (mark.value - along.low) / (along.high - along.low)) for mark in marks]
    return Histogram(field.name, bars, drawn, f"{along.least:.4g}", f"{along.most:.4g}", along.count, along.unscored)


def _mark(mark: Threshold, share: float) -> Mark:
    return Mark(share * WIDTH, f"{mark.filter} {mark.value:.4g}", "end" if share > 0.5 else "start")


@dataclass(frozen=True)
class Span:
    """A dot with an interval, in percent of the width; `zero` is where nothing would be, None if that is outside."""

    low: float
    dot: float
    high: float
    zero: float | None


def scores(learners: Sequence[Mapping[str, Any]], metric: str) -> list[list[Span]]:
    """The mean of a score of each learner's rows, and one standard deviation to each side, on one scale for all."""
    told = [[(row[f"{metric}_mean"], row[f"{metric}_sd"]) for row in each["rows"]] for each in learners]
    return _spans([[(mean - sd, mean, mean + sd) for mean, sd in rows] for rows in told], ())


@dataclass(frozen=True)
class Curve:
    """A line of a learning curve: SVG points in WIDTH x HEIGHT, and the row of the gain that it is of."""

    points: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Curves:
    """A learner's curves; the ends of both axes."""

    lines: Sequence[Curve]
    images: tuple[int, int]
    low: float
    high: float


def curves(learners: Sequence[Mapping[str, Any]]) -> list[Curves]:
    """The mean score over the pictures seen, which are on a logarithmic axis; all learners on one scale."""
    looks = [look for each in learners for row in each["rows"] for look in row["curve"]]
    means = [look["score_mean"] for look in looks]
    low, high = max(0.0, min(means)) if max(means) > 0 else min(means), max(means)
    first, last = min(look["images"] for look in looks), max(look["images"] for look in looks)

    def place(look: Mapping[str, Any]) -> str:
        along = math.log(look["images"] / first) / (math.log(last / first) or 1.0)
        up = (max(look["score_mean"], low) - low) / ((high - low) or 1.0)
        return f"{WIDTH * along:.1f},{HEIGHT * (1 - up):.1f}"

    return [
        Curves([Curve(" ".join(map(place, row["curve"])), row) for row in each["rows"]], (first, last), low, high)
        for each in learners
    ]


def differences(groups: Sequence[Mapping[str, Any]]) -> list[list[Span]]:
    """Each group's differences with their intervals, on one scale for all that holds zero."""
    told = [[(row["low"], row["difference"], row["high"]) for row in each["differences"]] for each in groups]
    return _spans(told, (0.0,))


def _spans(groups: Sequence[Sequence[tuple[float, float, float]]], also: tuple[float, ...]) -> list[list[Span]]:
    values = [*also, *(value for triples in groups for triple in triples for value in triple)]
    least, most = min(values), max(values)
    reach = (most - least) or 1.0

    def place(value: float) -> float:
        return round(4 + 92 * (value - least) / reach, 2)

    zero = place(0.0) if also else None
    return [[Span(place(low), place(middle), place(high), zero) for low, middle, high in triples] for triples in groups]
