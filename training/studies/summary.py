"""Which trials are compared, and what the comparison is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.manifest import arms
from pipeline.trials.trials import Trial
from training.data import pool, versions
from training.measures import intervals
from training.measures.intervals import Bootstrap, Interval
from training.studies.experiment import CELLS, Cell


@dataclass(frozen=True)
class Comparison:
    """Two cells that differ in one factor; the one that differs in two is what all of it was worth together.

    The console shows those that are `first`; the rest is in the report.
    """

    name: str
    better: Cell
    worse: Cell
    says: str
    first: bool = False

    @property
    def factors(self) -> int:
        """How many factors differ."""
        return sum(a != b for a, b in zip(self.better, self.worse, strict=True))


COMPARISONS = (
    Comparison("filtered - raw", ("filtered", False), ("raw", False), "filtering by {recipe}", first=True),
    Comparison(
        "filtered - random",
        ("filtered", False),
        ("random", False),
        "filtering by {recipe}, against as many at random",
        first=True,
    ),
    Comparison("filtered - raw, augmented", ("filtered", True), ("raw", True), "filtering by {recipe}, both augmented"),
    Comparison(
        "filtered - random, augmented",
        ("filtered", True),
        ("random", True),
        "filtering by {recipe}, against as many at random, both augmented",
    ),
    *(
        Comparison(
            f"augmented - plain, {arm}",
            (arm, True),
            (arm, False),
            f"augmentation of the {arm} pairs",
            first=arm == "filtered",
        )
        for arm in ("raw", "filtered", "random")
    ),
    Comparison(
        "filtered and augmented - raw",
        ("filtered", True),
        ("raw", False),
        "filtering by {recipe} and augmentation together",
    ),
)


FURTHER = (
    Comparison("text - plain", ("filtered", "text"), ("filtered", False), "augmentation of captions alone", first=True),
    Comparison("both - plain", ("filtered", "both"), ("filtered", False), "augmentation of both by rules", first=True),
    Comparison(
        "both - image",
        ("filtered", "both"),
        ("filtered", True),
        "augmentation of both by rules, against pictures alone",
        first=True,
    ),
    Comparison(
        "guarded - both",
        ("filtered", "guarded"),
        ("filtered", "both"),
        "the guard, where both are augmented",
        first=True,
    ),
)
"""Of the filtered pairs, as far as task.budget.augmentations asks for them."""


INTERACTION = "interaction"
"""The name of this difference: what filtering adds to augmented pictures less what it adds to plain ones."""


def learner_comparisons(trials: Sequence[Trial], bootstrap: Bootstrap, recipe: str) -> dict[str, Any]:
    """Means of one learner by cell, the differences between cells, and the interaction, with intervals; JSON."""
    first = trials[0].setting
    cells = {cell: trials_of(cell, trials) for cell in (*CELLS, *(("filtered", how) for how in versions.HOW))}
    cells = {cell: found for cell, found in cells.items() if found}
    means = {cell: _mean(found, bootstrap) for cell, found in cells.items()}
    seeds = len(cells[CELLS[0]])
    differences = [
        _told(each.name, each.factors, each.first, intervals.difference(means[each.better], means[each.worse]))
        | {"sentence": each.says.format(recipe=recipe)}
        for each in (*COMPARISONS, *FURTHER)
        if {each.better, each.worse} <= cells.keys()
    ]
    interaction = intervals.interaction(
        both=means["filtered", True],
        first=means["filtered", False],
        second=means["raw", True],
        neither=means["raw", False],
    )
    differences.append(
        _told(INTERACTION, 2, True, interaction) | {"sentence": "interaction of filtering and augmentation"}
    )
    for each in differences:
        each["sentence"] = f"{first.learner}, {each['sentence']}: {_interval(each)}, {seeds} seeds"
    return {
        "name": first.learner,
        "head": first.head,
        "encoder": first.encoder,
        "rows": [_row(cell, found) for cell, found in cells.items()],
        "differences": differences,
    }


def filter_comparisons(
    trials: Sequence[Trial], bootstrap: Bootstrap, filters: Mapping[str, pool.Dropped]
) -> dict[str, Any]:
    """What each filter adds: all of them less all but this one, of one learner; intervals widened for their number."""
    learner = trials[0].setting.learner
    whole = trials_of(("filtered", False), trials)
    compared = {name: found for name in filters if (found := trials_of((arms.without(name), False), trials))}
    level = intervals.corrected(len(compared))
    differences = []
    for name, found in compared.items():
        interval = intervals.difference(_mean(whole, bootstrap), _mean(found, bootstrap), level)
        told = _told(f"filtered - {arms.without(name)}", 1, True, interval) | {
            "filter": name,
            **filters[name]._asdict(),
        }
        adds = ("adds" if interval.low > 0 else "does harm:") if told["clear"] else "adds nothing that shows:"
        differences.append(told | {"sentence": f"{learner}, {name} {adds} {_interval(told)}, {len(found)} seeds"})
    together = f", so that {intervals.LEVEL:.0%} hold for all {len(compared)} together" if len(compared) > 1 else ""
    return {
        "learner": learner,
        "interval": f"{level:.1%} each{together}; {intervals.SAYS}",
        "rows": [_row(cell, trials_of(cell, trials)) for name in compared for cell in _cells(arms.without(name))],
        "differences": differences,
        "same": [_same(name, dropped) for name, dropped in filters.items() if name not in compared],
    }


def _cells(arm: str) -> tuple[Cell, Cell]:
    """An arm, and as many pairs taken blindly."""
    return (arm, False), (arms.as_many(arm), False)


def _same(name: str, dropped: pool.Dropped) -> dict[str, Any]:
    """A filter without which the same pairs would be kept: there is nothing to train."""
    says = f"adds nothing: other filters drop all that it drops, too (pairs that could be trained on: {dropped.all})"
    return {
        "filter": name,
        **dropped._asdict(),
        "sentence": f"{name} {says if dropped.all else 'adds nothing: it drops no pair that could be trained on'}",
    }


def trials_of(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of one cell: an arm, plain or augmented."""
    return [each for each in trials if each.setting.cell == cell]


def _mean(trials: Sequence[Trial], bootstrap: Bootstrap) -> intervals.Mean:
    return bootstrap.mean(np.array([each.predictions for each in trials]))


def _told(name: str, factors: int, first: bool, interval: Interval) -> dict[str, Any]:
    clear = interval.low > 0 or interval.high < 0
    return {"name": name, "factors": factors, "first": first, **asdict(interval), "clear": clear}


def _interval(each: Mapping[str, Any]) -> str:
    return f"{each['difference']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]"


def _row(cell: Cell, trials: Sequence[Trial]) -> dict[str, Any]:
    """Means over seeds; `curve` has the pictures seen, the mean score and its deviation, `cost` what a trial took."""
    row: dict[str, Any] = {"arm": cell[0], "augmented": cell[1], "seeds": len(trials)}
    row["pairs_mean"] = float(np.mean([each.pairs for each in trials]))
    for metric in trials[0].scores:
        row |= _spread(metric, [each.scores[metric] for each in trials])
    row["per_class_f1"] = {
        name: float(np.mean([each.per_class[name]["f1"] for each in trials])) for name in trials[0].per_class
    }
    row["curve"] = [
        {"images": looks[0].images, **_spread("score", [look.score for look in looks])}
        for looks in zip(*(each.curve for each in trials), strict=True)
    ]
    points, seconds = (
        float(np.mean([each.points for each in trials])),
        float(np.mean([each.seconds for each in trials])),
    )
    row["cost"] = {
        "images": trials[0].images,
        "seconds": seconds,
        "points": points,
        "seconds_per_point": seconds / points if points > 0 else None,
        "images_per_point": trials[0].images / points if points > 0 else None,
    }
    return row


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}_mean": float(np.mean(values)), f"{name}_sd": float(np.std(values, ddof=1))}
