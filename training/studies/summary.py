"""Which trials are compared, and the differences between them, as JSON with sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.manifest import arms
from pipeline.trials.trials import Trial
from training.data import pool, versions
from training.measures import intervals
from training.measures.intervals import Bootstrap, Interval
from training.studies.learner import CELLS, Cell


@dataclass(frozen=True)
class Comparison:
    """Two cells that differ in one factor; one comparison differs in two, for both together.

    The console prints those that are `first`. The report has all.
    """

    name: str
    better: Cell
    worse: Cell
    sentence: str
    first: bool = False

    @property
    def factors(self) -> int:
        """How many factors differ."""
        return sum(a != b for a, b in zip(self.better, self.worse, strict=True))


def by_learner(gain: Mapping[str, Any]) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    """The differences of a gain by learner; at last what each filter adds for the first learner."""
    return [(each["name"], each["differences"]) for each in gain["learners"]] + [
        (gain["filters"]["learner"], gain["filters"]["differences"])
    ]


COMPARISONS = (
    Comparison("filtered - raw", ("filtered", False), ("raw", False), "filtering by {recipe}", first=True),
    Comparison(
        "filtered - random",
        ("filtered", False),
        ("random", False),
        "filtering by {recipe}, against a random subset of the same size",
        first=True,
    ),
    Comparison("filtered - raw, augmented", ("filtered", True), ("raw", True), "filtering by {recipe}, both augmented"),
    Comparison(
        "filtered - random, augmented",
        ("filtered", True),
        ("random", True),
        "filtering by {recipe}, against a random subset of the same size, both augmented",
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
"""Comparisons of the filtered pairs, for the values of task.budget.augmentations."""


INTERACTION = "interaction"
"""The name of the interaction: what filtering adds to augmented pictures less what it adds to plain ones."""


def learner_comparisons(trials: Sequence[Trial], bootstrap: Bootstrap, recipe: str) -> dict[str, Any]:
    """Means of one learner by cell, the differences between cells, and the interaction, with intervals; JSON."""
    first = trials[0].setting
    cells = {cell: trials_of(cell, trials) for cell in (*CELLS, *(("filtered", how) for how in versions.AUGMENTATIONS))}
    cells = {cell: own for cell, own in cells.items() if own}
    means = {cell: _mean(own, bootstrap) for cell, own in cells.items()}
    seeds = len(cells[CELLS[0]])
    differences = [
        _difference(each.name, each.factors, each.first, intervals.difference(means[each.better], means[each.worse]))
        | {"sentence": each.sentence.format(recipe=recipe)}
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
        _difference(INTERACTION, 2, True, interaction) | {"sentence": "interaction of filtering and augmentation"}
    )
    for each in differences:
        each["sentence"] = f"{first.learner}, {each['sentence']}: {_interval(each)}, {seeds} seeds"
    return {
        "name": first.learner,
        "head": first.head,
        "encoder": first.encoder,
        "rows": [_row(cell, own) for cell, own in cells.items()],
        "differences": differences,
    }


def filter_comparisons(
    trials: Sequence[Trial], bootstrap: Bootstrap, filters: Mapping[str, pool.Dropped]
) -> dict[str, Any]:
    """What each filter adds for one learner: all filters less all but this one. Intervals are corrected."""
    learner = trials[0].setting.learner
    whole = trials_of(("filtered", False), trials)
    compared = {name: own for name in filters if (own := trials_of((arms.without(name), False), trials))}
    level = intervals.corrected(len(compared))
    differences = []
    for name, own in compared.items():
        interval = intervals.difference(_mean(whole, bootstrap), _mean(own, bootstrap), level)
        difference = _difference(f"filtered - {arms.without(name)}", 1, True, interval) | {
            "filter": name,
            **filters[name]._asdict(),
        }
        sentence = f"{learner}, {name} {_verdict(interval)} {_interval(difference)}, {len(own)} seeds"
        differences.append(difference | {"sentence": sentence})
    together = f", so that {intervals.LEVEL:.0%} hold for all {len(compared)} together" if len(compared) > 1 else ""
    return {
        "learner": learner,
        "interval": f"{level:.1%} each{together}; {intervals.METHOD}",
        "rows": [_row(cell, trials_of(cell, trials)) for name in compared for cell in _cells(arms.without(name))],
        "differences": differences,
        "same": [_same(name, dropped) for name, dropped in filters.items() if name not in compared],
    }


def _cells(arm: str) -> tuple[Cell, Cell]:
    """An arm, and the random arm of its size."""
    return (arm, False), (arms.control_of(arm), False)


def _same(name: str, dropped: pool.Dropped) -> dict[str, Any]:
    """A filter without which the same pairs would be kept: there is nothing to train."""
    reason = "it drops no pair that could be trained on"
    if dropped.all:
        reason = f"other filters drop all that it drops, too (pairs that could be trained on: {dropped.all})"
    return {"filter": name, **dropped._asdict(), "sentence": f"{name} adds nothing: {reason}"}


def trials_of(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    """The trials of one cell: an arm, plain or augmented."""
    return [each for each in trials if each.setting.cell == cell]


def _mean(trials: Sequence[Trial], bootstrap: Bootstrap) -> intervals.Mean:
    return bootstrap.mean(np.array([each.predictions for each in trials]))


def _difference(name: str, factors: int, first: bool, interval: Interval) -> dict[str, Any]:
    clear = interval.low > 0 or interval.high < 0
    return {"name": name, "factors": factors, "first": first, **asdict(interval), "clear": clear}


def _verdict(interval: Interval) -> str:
    """What a filter does, by the sign of its interval."""
    if interval.low > 0:
        return "adds"
    return "does harm:" if interval.high < 0 else "shows no clear gain:"


def _interval(each: Mapping[str, Any]) -> str:
    return f"{each['difference']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]"


def _row(cell: Cell, trials: Sequence[Trial]) -> dict[str, Any]:
    """Means over seeds. `curve` has pictures seen, mean and deviation of the score; `cost` is of one trial."""
    row: dict[str, Any] = {"arm": cell[0], "augmented": cell[1], "seeds": len(trials)}
    row["pairs_mean"] = float(np.mean([each.pairs for each in trials]))
    for metric in trials[0].scores:
        row |= _spread(metric, [each.scores[metric] for each in trials])
    row["per_class_f1"] = {
        name: float(np.mean([each.per_class[name]["f1"] for each in trials])) for name in trials[0].per_class
    }
    row["curve"] = [
        {"images": evaluations[0].images, **_spread("score", [each.score for each in evaluations])}
        for evaluations in zip(*(each.curve for each in trials), strict=True)
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
