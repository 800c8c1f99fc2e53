"""The geometry of the report's charts: numbers in, SVG coordinates out. The template draws them."""

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
"""Size of a chart in SVG units."""

BINS = 40


@dataclass(frozen=True)
class Mark:
    """A threshold of the recipe, as a labelled line. `x` is in SVG units."""

    x: float
    text: str
    anchor: str


@dataclass(frozen=True)
class Bar:
    """One bar: kept pairs below, dropped pairs on top. Lengths are in SVG units."""

    x: float
    width: float
    kept: float
    dropped: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """The histogram of one column over the downloaded pairs. The outermost bins include all values beyond them."""

    column: str
    bars: Sequence[Bar]
    marks: Sequence[Mark]
    low: str
    high: str
    count: int
    unscored: int


def histogram_fields(manifest: Manifest) -> list[pa.Field]:
    """The columns with a histogram: numeric scores, and the size of the picture."""
    scores = score_columns(manifest)

    def measured(field: pa.Field) -> bool:
        number = pa.types.is_floating(field.type) or pa.types.is_signed_integer(field.type)
        return number and (field.name in scores or field.name in ("width", "height"))

    return [field for field in manifest.columns if measured(field)]


@dataclass(frozen=True)
class Axis:
    """The bins of a column: `bins` of width `step` from `low` on. The outermost bins include all values beyond them.

    The finite values of the downloaded pairs are from `least` to `most`; `count` pairs have one, `unscored` have none.
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
        """The upper end of the last bin."""
        return self.low + self.bins * self.step

    @property
    def bin(self) -> str:
        """SQL for the number of the bin of a row's value; NULL if it has no finite value."""
        value = f'"{self.column}"::DOUBLE'
        place = f"greatest(0, least({self.bins - 1}, floor(({value} - {self.low}) / {self.step})))"
        return f"CASE WHEN isfinite({value}) THEN {place}::INTEGER END"


def axis(con: duckdb.DuckDBPyConnection, field: pa.Field, marks: Iterable[float] = ()) -> Axis | None:
    """The axis of a column, wide enough for the marks; None if all finite values are equal: one bar shows nothing."""
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
    low, step, bins = _whole_bins(low, high) if whole else _bins(low, high)
    return Axis(field.name, whole, low, step, bins, least, most, row[4], row[5])


def _bins(low: float, high: float) -> tuple[float, float, int]:
    """The start, width and number of the bins."""
    bins = BINS if high > low else 1
    return low, (high - low) / bins or 1.0, bins


def _whole_bins(low: float, high: float) -> tuple[float, float, int]:
    """The same for whole numbers: bins start at whole numbers, and all hold equally many of them."""
    bins = min(BINS, max(1, math.ceil(high) - math.floor(low) + 1))
    return math.floor(low), math.ceil((high - low + 1) / bins), bins


def histogram(con: duckdb.DuckDBPyConnection, field: pa.Field, marks: Sequence[Threshold]) -> Histogram | None:
    """The histogram of a column; None without an `axis`."""
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
    lines = [_mark(mark, (mark.value - along.low) / (along.high - along.low)) for mark in marks]
    return Histogram(field.name, bars, lines, f"{along.least:.4g}", f"{along.most:.4g}", along.count, along.unscored)


def _mark(mark: Threshold, share: float) -> Mark:
    return Mark(share * WIDTH, f"{mark.filter} {mark.value:.4g}", "end" if share > 0.5 else "start")


@dataclass(frozen=True)
class Span:
    """A dot with an interval, in percent of the width. `zero` is the position of 0, None on an axis without it."""

    low: float
    dot: float
    high: float
    zero: float | None


def scores(learners: Sequence[Mapping[str, Any]], metric: str) -> list[list[Span]]:
    """The mean score of each row of each learner, with one standard deviation to each side. All share one scale."""
    scores = [[(row[f"{metric}_mean"], row[f"{metric}_sd"]) for row in each["rows"]] for each in learners]
    return _spans([[(mean - sd, mean, mean + sd) for mean, sd in rows] for rows in scores], ())


@dataclass(frozen=True)
class Curve:
    """A learning curve: SVG points in WIDTH x HEIGHT, and its row of the gain."""

    points: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Curves:
    """The curves of a learner, and the ends of both axes."""

    lines: Sequence[Curve]
    images: tuple[int, int]
    low: float
    high: float


def curves(learners: Sequence[Mapping[str, Any]]) -> list[Curves]:
    """The mean score by pictures seen, on a logarithmic axis. All learners share one scale."""
    points = [point for each in learners for row in each["rows"] for point in row["curve"]]
    means = [point["score_mean"] for point in points]
    low, high = max(0.0, min(means)) if max(means) > 0 else min(means), max(means)
    first, last = min(point["images"] for point in points), max(point["images"] for point in points)

    def place(point: Mapping[str, Any]) -> str:
        along = math.log(point["images"] / first) / (math.log(last / first) or 1.0)
        up = (max(point["score_mean"], low) - low) / ((high - low) or 1.0)
        return f"{WIDTH * along:.1f},{HEIGHT * (1 - up):.1f}"

    return [
        Curves([Curve(" ".join(map(place, row["curve"])), row) for row in each["rows"]], (first, last), low, high)
        for each in learners
    ]


def differences(groups: Sequence[Mapping[str, Any]]) -> list[list[Span]]:
    """The differences of each group, with their intervals. All share one scale that includes 0."""
    intervals = [[(row["low"], row["difference"], row["high"]) for row in each["differences"]] for each in groups]
    return _spans(intervals, (0.0,))


def _spans(groups: Sequence[Sequence[tuple[float, float, float]]], also: tuple[float, ...]) -> list[list[Span]]:
    values = [*also, *(value for triples in groups for triple in triples for value in triple)]
    least, most = min(values), max(values)
    reach = (most - least) or 1.0

    def place(value: float) -> float:
        return round(4 + 92 * (value - least) / reach, 2)

    zero = place(0.0) if also else None
    return [[Span(place(low), place(middle), place(high), zero) for low, middle, high in triples] for triples in groups]
