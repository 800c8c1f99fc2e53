"""Thresholds of filters, chosen on a labelled sample by a fixed rule.

The rule: of the thresholds between two neighbouring observed values, take the one with the best F1 at finding the
labels that the filter `catches`, among the downloaded pairs that are good or have one of these labels; of several, the
laxest. It is rounded towards the lax side to 3 significant digits, or to more where 3 would cost over a hundredth of F1
(between whole numbers, to the whole number that separates them alike). All figures are those of the rounded number. A
pair without a score counts as not caught. A threshold is recommended only if its F1 is above that of dropping all pairs
and of dropping none, and if at most 5 % of 999 shuffles of the labels have a threshold as good.

Where several people labelled a pair, the label counts that more than half of them gave. Without one the pair is left
out, and counted as disputed. The agreement of each two labellers is Cohen's kappa (`pipeline.review.agreement`).

The figures come from the sample that the threshold was chosen on, so they are a little optimistic. Precision depends on
the share of bad pairs in the sample. Nothing is changed: a person copies a threshold into the source file.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import duckdb
import numpy as np
import numpy.typing as npt

from filters.core import Filter
from pipeline.errors import SourceError, StorageError, did_you_mean
from pipeline.filtering.thresholds import Comparison
from pipeline.review import agreement
from pipeline.review.rates import Rate
from pipeline.review.rule import best_edge, chance, roundings
from pipeline.review.sample import Labelled
from pipeline.review.sample_source import FOLDER, scored
from pipeline.settings.choice import FilterRow
from pipeline.sources.source import Source
from pipeline.store import duck
from pipeline.store.digests import canonical_json, digest
from pipeline.store.storage import Storage

CODE = 3
"""Raised when the same sample would give other figures."""

RULE = (
    "the threshold with the best F1 between two neighbouring observed values, the laxest of several, rounded to the "
    "lax side; among downloaded pairs that are good or labelled as what the filter catches; 95 % Wilson intervals"
)

FEWEST = 20
"""Good and bad pairs each that a threshold needs; with fewer, a remark says so."""

DEAREST = 0.01
"""F1 that rounding a threshold may cost; beyond that it gets more digits."""

CHANCE = 0.05
"""The largest share of shuffled labels that may have a threshold as good as the one that is recommended."""

_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")


@dataclass(frozen=True)
class Line:
    """A filter's SQL with a threshold, and its effect on the sample.

    `recall` is the share of bad pairs that it drops, `precision` the share of bad pairs among those that it drops, and
    `lost` the share of good pairs that it drops.
    """

    sql: str
    f1: float
    precision: Rate
    recall: Rate
    lost: Rate


@dataclass(frozen=True)
class Calibration:
    """One filter: its threshold in the source file (`now`), and that of the rule (`best`), None where there is none.

    `bad` pairs have a label that it catches, `good` pairs a good one, `aside` pairs any other label; `unscored` counts
    the bad and good pairs without a score.
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
        """A copy with one more remark."""
        return replace(self, remarks=(*self.remarks, text))


def rows(source: Source) -> list[FilterRow]:
    """The filters with `catches`. Raises SourceError if there is none."""
    found = [row for row in source.filters or () if row.catches]
    if not found:
        raise SourceError(f'{source.name}: no filter has labels to catch; add catches = ["LABEL"] to its [[filters]]')
    return found


def measure(source: Source, storage: Storage, labels: Path) -> dict[str, Any]:
    """The `Calibration` of every filter with `catches`, and the `Agreement` of each two labellers, as JSON.

    It is stored under calibration/, too, but for the pairs that labellers disagree on: stored texts of a pair would
    outlive its takedown.

    Raises StorageError if the sample is not scored yet, and RecipeError for a filter that does not bind.
    """
    found = scored(source, storage, labels)
    if found is None:
        raise StorageError(f"{source.name}: its labelled sample is not scored: run `winnow calibrate`")
    known, manifest = found
    manifest.check(*(Filter(row.name, row.sql) for row in rows(source)))
    with manifest.connection() as con:
        con.from_arrow(known.table.rename_columns(["__uid", "__label"])).create("sample")
        con.execute(
            "CREATE TEMP TABLE downloaded_sample AS FROM rows JOIN sample ON rows.uid = __uid WHERE status = 'ok'"
        )
        ((downloaded,),) = con.execute("SELECT count(*) FROM downloaded_sample").fetchall()
        calibrations = [_calibrate(con, row, known) for row in rows(source)]
    made = {
        "code": CODE,
        "source": source.name,
        "manifest": manifest.id,
        "labels": {
            "file": known.path.name,
            "pairs": len(known.table),
            "repeated": known.repeated,
            "disputed": known.disputed,
        },
        "downloaded": downloaded,
        "good": list(known.good),
        "rule": RULE,
        "filters": [asdict(each) for each in calibrations],
        "left_out": [row.name for row in source.filters or () if not row.catches],
    }
    agreements = [asdict(each) for each in agreement.of(known)]
    pairs = {"disagreements": [each.pop("disagreements") for each in agreements]}
    made["agreement"] = agreements
    storage.put_if_absent(f"{FOLDER}/{digest([made, known.table.to_pydict()])[:32]}.json", canonical_json(made))
    plain: dict[str, Any] = json.loads(canonical_json(made | pairs))
    for each, others in zip(plain["agreement"], plain.pop("disagreements"), strict=True):
        each["disagreements"] = others
    return plain


def _calibrate(con: duckdb.DuckDBPyConnection, row: FilterRow, known: Labelled) -> Calibration:
    compared = Comparison.of(row.sql)
    values, bad, aside = _values(con, row, known, compared.column if compared else None)
    found = Calibration(row.name, row.catches, int(bad.sum()), int((~bad).sum()), aside)
    for label in [label for label in row.catches if label not in known.counts]:
        found = found.remark(f"no pair is labelled {label!r}{did_you_mean(label, known.counts)}")
    if not found.bad or not found.good:
        return found.remark(
            "nothing to compare: the sample needs downloaded pairs that are good, and others that it catches"
        )
    if min(found.bad, found.good) < FEWEST:
        found = found.remark(f"fewer than {FEWEST} good or bad pairs: too few to trust")
    if _has_subquery(con, row.sql):
        return found.remark("its threshold depends on the other rows: there is no number to choose")
    now, unscored = _line(con, row, row.sql, known)
    found = replace(found, now=now, unscored=unscored)
    if unscored:
        found = found.remark(f"pairs without a score count as not caught: {unscored}")
    if compared is None:
        return found.remark("it is not one comparison of one column with one number: there is no number to choose")
    edge = best_edge(values if compared.keeps_high else -values, bad)
    if edge is None:
        return found.remark(f"no threshold on {compared.column} separates bad pairs from good ones")
    exact = edge if compared.keeps_high else -edge
    dearest = _line(con, row, compared.at(repr(exact)), known)[0].f1 - DEAREST
    lines = (_line(con, row, compared.at(number), known)[0] for number in _numbers(con, compared, exact))
    best = next(line for line in lines if line.f1 >= dearest)
    remark = _no_better_than_chance(best, values if compared.keeps_high else -values, bad)
    return found.remark(remark) if remark else replace(found, best=best)


def _no_better_than_chance(best: Line, values: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_]) -> str | None:
    """Why a threshold is not recommended: dropping all pairs, or shuffled labels, do as well. None if neither does."""
    drop_all, reached = 2 * int(bad.sum()) / (len(bad) + int(bad.sum())), chance(values, bad)
    if best.f1 > drop_all and reached <= CHANCE:
        return None
    return (
        f"this sample shows no threshold that is better than chance: the best has F1 {best.f1:.2f}, dropping all pairs "
        f"{drop_all:.2f}, dropping none 0.00; {reached:.0%} of shuffled labels have a threshold as good"
    )


def _has_subquery(con: duckdb.DuckDBPyConnection, sql: str) -> bool:
    ((kinds,),) = con.execute(
        "SELECT json_extract_string(json_serialize_sql($sql), '$..subquery_type')", {"sql": f"SELECT (\n{sql}\n)"}
    ).fetchall()
    return bool(kinds)


def _numbers(con: duckdb.DuckDBPyConnection, compared: Comparison, exact: float) -> Sequence[str]:
    """The threshold as text: a whole number for a column of whole numbers, else roundings, the shortest first."""
    if con.table("downloaded_sample").select(f'"{compared.column}"').types[0] in _WHOLE:
        return [str(math.floor(exact) if compared.operator in (">", "<=") else math.ceil(exact))]
    return roundings(exact, down=compared.keeps_high)


def _values(
    con: duckdb.DuckDBPyConnection, row: FilterRow, known: Labelled, column: str | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], int]:
    """The column's values, NaN where there is none, whether each pair is bad, and how many pairs were set aside.

    A pair with any other fault is set aside. Dropping it is neither a loss nor a success of this filter: catching it is
    the task of another one.
    """
    value = f'"{column}"::DOUBLE' if column else "NULL::DOUBLE"
    found = con.sql(f"SELECT {value} AS value, __label AS label FROM downloaded_sample").to_arrow_table()
    values = found["value"].to_numpy().astype(np.float64)
    label = np.array(found["label"].to_pylist(), object)
    bad = np.isin(label, row.catches)
    chosen = bad | np.isin(label, known.good)
    return values[chosen], bad[chosen], int((~chosen).sum())


def _line(con: duckdb.DuckDBPyConnection, row: FilterRow, sql: str, known: Labelled) -> tuple[Line, int]:
    """The effect of the filter with this SQL on the sample, and the number of good and bad pairs without an answer."""
    bad, good = (f"__label IN ({', '.join(map(duck.literal, words))})" for words in (row.catches, known.good))
    ((caught, all_bad, lost, all_good, unscored),) = con.execute(
        f"SELECT count(*) FILTER (bad AND verdict = false), count(*) FILTER (bad), "
        f"count(*) FILTER (good AND verdict = false), count(*) FILTER (good), "
        f"count(*) FILTER ((bad OR good) AND verdict IS NULL) "
        f"FROM (SELECT {bad} AS bad, {good} AS good, (\n{sql}\n) AS verdict FROM downloaded_sample AS rows)"
    ).fetchall()
    dropped = caught + lost
    f1 = 2 * caught / (dropped + all_bad) if dropped + all_bad else 0.0
    return Line(sql, f1, Rate.count(caught, dropped), Rate.count(caught, all_bad), Rate.count(lost, all_good)), unscored
