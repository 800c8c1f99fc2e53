"""Where a filter's number comes from: a labelled sample, and a rule that was written down before anybody looked.

The rule: of the thresholds between two neighbouring observed values, the one with the best F1 at finding the labels
that the filter `catches` among the downloaded pairs that are good or have one of these labels; of several, the laxest.
It is rounded towards the lax side to 3 significant digits, or to more where 3 would cost over a hundredth of F1
(between whole numbers to the one that parts them alike), and all figures are those of the rounded number. A pair
without a score counts as not caught.

The figures come from the sample that the threshold was chosen on, so they flatter it a little; precision depends on
how much of the sample is spoiled. Nothing is changed: to freeze a threshold in a source file is a person's act.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Context
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import numpy.typing as npt

from filters.core import Filter
from pipeline.errors import SourceError, StorageError, did_you_mean
from pipeline.filtering.thresholds import Comparison
from pipeline.manifest.manifest import Manifest, log
from pipeline.review.rates import Rate
from pipeline.review.sample import Labelled
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scoring.plan import Plan
from pipeline.settings.choice import FilterRow
from pipeline.settings.pairs import Pairs
from pipeline.sources.source import Source
from pipeline.store import duck
from pipeline.store.digests import canonical_json, digest
from pipeline.store.storage import Storage

CODE = 1
"""Raised whenever the same sample would give other figures."""

RULE = (
    "the threshold with the best F1 between two neighbouring observed values, the laxest of several, rounded to the "
    "lax side; among downloaded pairs that are good or labelled as what the filter catches; 95 % Wilson intervals"
)

FEWEST = 20
"""Pairs of either side below which a threshold is not to be trusted."""

DIGITS, DEAREST = 3, 0.01
"""Significant digits of a threshold, and the F1 that they may cost before there are more of them."""

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")

FOLDER = "calibration"
"""Of the source's results: the sample's own, and the figures."""


@dataclass(frozen=True)
class Line:
    """A filter's SQL with some threshold, and what it does to the sample.

    `recall` of the bad pairs are found, `precision` of what is found is bad, `lost` of the good pairs are, too.
    """

    sql: str
    f1: float
    precision: Rate
    recall: Rate
    lost: Rate


@dataclass(frozen=True)
class Calibrated:
    """One filter: the line that its source file draws now, and the one that the rule draws; None where there is none.

    `bad` and `good` pairs were looked at, `aside` ones are spoiled otherwise, `unscored` ones of both have no score.
    """

    filter: str
    catches: tuple[str, ...]
    bad: int
    good: int
    aside: int
    unscored: int = 0
    now: Line | None = None
    best: Line | None = None
    remarks: tuple[str, ...] = ()

    def remark(self, text: str) -> Self:
        """The same, with something more to be said."""
        return replace(self, remarks=(*self.remarks, text))


def room(storage: Storage) -> Storage:
    """Where the results of the sample lie, if it is a source of its own."""
    return Storage(storage.root / FOLDER)


def sample(source: Source, labels: Path) -> Source:
    """The labelled pairs as a source of their own: fetched and scored as those of `source`, and nothing is dropped."""
    read = {column for spec in source.scorers.values() for column in spec.reads} - {"url", "caption"}
    return scored_like(source, {"pairs": Pairs(location=str(labels), extra=tuple(sorted(read))), "union": {}})


def scored_like(source: Source, pairs: Mapping[str, Any]) -> Source:
    """A source of other pairs with the download settings and the scorers of this one, but no recipe and no task.

    `pairs` are the settings that say where its pairs come from.
    """
    own = {"name": f"{source.name}-calibration"} | dict.fromkeys(("recipe", "filters", "distinct", "task"))
    # Nobody is tested on what is not trained on.
    scorers = {name: spec for name, spec in source.scorers.items() if not isinstance(spec, LeaksSpec)}
    return source.model_copy(update={**own, "scorers": scorers, **pairs})


def scored(source: Source, storage: Storage, labels: Path) -> tuple[Labelled, Manifest] | None:
    """The sample, and the manifest that has all its pairs, scored as the source file says now; None if none has.

    That is the source's newest manifest, or the one of the sample as a source of its own.
    """
    if not labels.is_file():
        return None
    known = Labelled.read(labels, source.calibration.good)
    plan = Plan.of(source)
    for each in (storage, room(storage)):
        manifest = Manifest.open(each) if log(each) else None
        if manifest and manifest.complete and _same(manifest, plan) and _whole(manifest, known):
            return known, manifest
    return None


def _same(manifest: Manifest, plan: Plan) -> bool:
    """Whether the pairs were scored so. Scores of the whole pool are those of the manifest's own."""
    stages = manifest.document["stages"]
    same = all(stages["scores"].get(name) == stage.key for name, stage in plan.scores.items())
    return same and bool(stages["shards"] == plan.shards.key)


def _whole(manifest: Manifest, known: Labelled) -> bool:
    with manifest.connection() as con:
        con.from_arrow(known.table).create("sample")
        ((missing,),) = con.execute("SELECT count(*) FROM sample ANTI JOIN rows USING (uid)").fetchall()
    return not missing


def rows(source: Source) -> list[FilterRow]:
    """The filters that say what they are there for. Raises SourceError if none does."""
    found = [row for row in source.filters or () if row.catches]
    if not found:
        raise SourceError(
            f'{source.name}: no filter says what it is there for; add catches = ["LABEL"] to its [[filters]]'
        )
    return found


def measure(source: Source, storage: Storage, labels: Path) -> dict[str, Any]:
    """What the rule says of every filter with `catches`, as JSON; kept under calibration/ in the storage.

    Raises StorageError if the sample is not scored yet, and RecipeError for a filter that does not bind.
    """
    at_hand = scored(source, storage, labels)
    if at_hand is None:
        raise StorageError(f"{source.name}: its labelled sample is not scored: run `winnow calibrate`")
    known, manifest = at_hand
    manifest.check(*(Filter(row.name, row.sql) for row in rows(source)))
    with manifest.connection() as con:
        con.from_arrow(known.table.rename_columns(["__uid", "__label"])).create("sample")
        con.execute("CREATE TEMP TABLE looked_at AS FROM rows JOIN sample ON rows.uid = __uid WHERE status = 'ok'")
        ((downloaded,),) = con.execute("SELECT count(*) FROM looked_at").fetchall()
        found = [_calibrated(con, row, known) for row in rows(source)]
    made = {
        "code": CODE,
        "source": source.name,
        "manifest": manifest.id,
        "labels": {"file": known.path.name, "pairs": len(known.table), "repeated": known.repeated},
        "downloaded": downloaded,
        "good": list(known.good),
        "rule": RULE,
        "filters": [asdict(each) for each in found],
        "left_out": [row.name for row in source.filters or () if not row.catches],
    }
    storage.put_if_absent(f"{FOLDER}/{digest([made, known.table.to_pydict()])[:32]}.json", canonical_json(made))
    plain: dict[str, Any] = json.loads(canonical_json(made))
    return plain


def _calibrated(con: duckdb.DuckDBPyConnection, row: FilterRow, known: Labelled) -> Calibrated:
    compared = Comparison.of(row.sql)
    values, bad, aside = _looked_at(con, row, known, compared.column if compared else None)
    found = Calibrated(row.name, row.catches, int(bad.sum()), int((~bad).sum()), aside)
    for label in [label for label in row.catches if label not in known.counts]:
        found = found.remark(f"no pair is labelled {label!r}{did_you_mean(label, known.counts)}")
    if not found.bad or not found.good:
        return found.remark("nothing to compare: it takes downloaded pairs that are good, and others that it catches")
    if min(found.bad, found.good) < FEWEST:
        found = found.remark(f"fewer than {FEWEST} pairs of one side: too few to trust")
    if "select" in row.sql.lower():
        return found.remark("its line depends on the other rows: there is no number to freeze")
    now, unscored = _line(con, row, row.sql, known)
    found = replace(found, now=now, unscored=unscored)
    if unscored:
        found = found.remark(f"pairs without a score count as not caught: {unscored}")
    if compared is None:
        return found.remark("not one comparison of one column with one number: there is no number to choose")
    edge = best(values if compared.keeps_high else -values, bad)
    if edge is None:
        return found.remark(f"on the side that it drops, {compared.column} tells none of them from good pairs")
    exact = edge if compared.keeps_high else -edge
    dearest = _line(con, row, compared.at(repr(exact)), known)[0].f1 - DEAREST
    lines = (_line(con, row, compared.at(number), known)[0] for number in _numbers(con, compared, exact))
    return replace(found, best=next(line for line in lines if line.f1 >= dearest))


def _numbers(con: duckdb.DuckDBPyConnection, compared: Comparison, exact: float) -> Sequence[str]:
    """What could be written for the threshold: of whole numbers the one that parts them alike, else it is rounded."""
    if con.table("looked_at").select(f'"{compared.column}"').types[0] in _WHOLE:
        return [str(math.floor(exact) if compared.operator in (">", "<=") else math.ceil(exact))]
    return rounded(exact, down=compared.keeps_high)


def _looked_at(
    con: duckdb.DuckDBPyConnection, row: FilterRow, known: Labelled, column: str | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], int]:
    """The column's values, NaN where there is none, whether each pair is a bad one, and how many were set aside.

    A pair that is spoiled otherwise is set aside: to drop it is no loss that should make this filter laxer, and no
    success that should make it stricter, since another filter answers for it.
    """
    value = f'"{column}"::DOUBLE' if column else "NULL::DOUBLE"
    found = con.sql(f"SELECT {value} AS value, __label AS label FROM looked_at").to_arrow_table()
    values = found["value"].to_numpy().astype(np.float64)
    label = np.array(found["label"].to_pylist(), object)
    bad = np.isin(label, row.catches)
    chosen = bad | np.isin(label, known.good)
    return values[chosen], bad[chosen], int((~chosen).sum())


def _line(con: duckdb.DuckDBPyConnection, row: FilterRow, sql: str, known: Labelled) -> tuple[Line, int]:
    """What the filter with this SQL does to the sample, as DuckDB sees it, and how many pairs it has no answer for."""
    bad, good = (f"__label IN ({', '.join(map(duck.literal, words))})" for words in (row.catches, known.good))
    ((caught, all_bad, lost, all_good, unscored),) = con.execute(
        f"SELECT count(*) FILTER (bad AND verdict = false), count(*) FILTER (bad), "
        f"count(*) FILTER (good AND verdict = false), count(*) FILTER (good), "
        f"count(*) FILTER ((bad OR good) AND verdict IS NULL) "
        f"FROM (SELECT {bad} AS bad, {good} AS good, (\n{sql}\n) AS verdict FROM looked_at AS rows)"
    ).fetchall()
    dropped = caught + lost
    f1 = 2 * caught / (dropped + all_bad) if dropped + all_bad else 0.0
    return Line(sql, f1, Rate.count(caught, dropped), Rate.count(caught, all_bad), Rate.count(lost, all_good)), unscored


def best(values: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_]) -> float | None:
    """The edge with the best F1 for "bad is below"; of several the lowest. NaN is below nothing.

    It lies between two neighbouring values: above the one, and at most at the other. None where there are no two, or
    where nothing bad lies below any.
    """
    there = ~np.isnan(values)
    levels, place = np.unique(np.clip(values[there], -1e300, 1e300), return_inverse=True)
    below = np.cumsum(np.bincount(place, minlength=len(levels)))[:-1]
    hits = np.cumsum(np.bincount(place[bad[there]], minlength=len(levels)))[:-1]
    if not hits.any():
        return None
    at = int(np.argmax(2 * hits / (below + bad.sum())))
    low, high = float(levels[at]), float(levels[at + 1])
    middle = low / 2 + high / 2
    return middle if low < middle else high


def rounded(value: float, down: bool) -> Sequence[str]:
    """The number with 3, 4, ... 17 significant digits, each rounded down, or else up; the last is the number itself."""
    direction = ROUND_FLOOR if down else ROUND_CEILING
    assert math.isfinite(value)
    made = [Context(digits, direction).create_decimal(repr(value)) for digits in range(DIGITS, 17)]
    return [f"{number.normalize():f}" for number in made] + [repr(value)]
