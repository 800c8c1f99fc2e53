"""Intervals over seeds and held-out pictures, by bootstrap."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.measures.metrics import Floats, Measure, Predictions, main_metric

RESAMPLES = 4000
"""Bootstrap resamples of an interval."""


LEVEL = 0.95
"""The share of the resamples that an interval contains."""


Resampled = Callable[[Predictions, npt.NDArray[np.float32]], Floats]
"""From predictions, and how many times each picture occurs in each resample, to a score in each."""

METHOD = (
    "for this pool and these filters: paired bootstrap over seeds, each with its own draw of the pool, and test "
    f"pictures; {RESAMPLES} resamples"
)
"""How intervals are made, for a person."""


@dataclass(frozen=True)
class Mean:
    """The mean of the main score over seeds: `point` as measured, and `resampled`, [resamples]."""

    point: float
    resampled: Floats


@dataclass(frozen=True)
class Interval:
    """A difference of means over seeds, and its bootstrap interval, which contains a share `level` of the resamples.

    `relative` is the difference in parts of the second mean, None where that is 0; its bounds are None where it is 0
    in some resample.
    """

    level: float
    difference: float
    low: float
    high: float
    relative: float | None
    relative_low: float | None
    relative_high: float | None


def corrected(compared: int) -> float:
    """The level of each of so many intervals that gives LEVEL to all of them together (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(compared, 1)


def difference(better: Mean, worse: Mean, level: float = LEVEL) -> Interval:
    """The difference of two means of one bootstrap."""
    relative = better.point / worse.point - 1 if worse.point > 0 else None
    low, high = _bounds(better.resampled - worse.resampled, level)
    divides = (worse.resampled > 0).all()
    bounds = _bounds(better.resampled / worse.resampled - 1, level) if divides else (None, None)
    return Interval(level, better.point - worse.point, low, high, relative, *bounds)


def interaction(both: Mean, first: Mean, second: Mean, neither: Mean) -> Interval:
    """How much more the first factor adds with the second than without it: (both - second) - (first - neither)."""
    resampled = (both.resampled - second.resampled) - (first.resampled - neither.resampled)
    point = (both.point - second.point) - (first.point - neither.point)
    return Interval(LEVEL, point, *_bounds(resampled, LEVEL), None, None, None)


class Bootstrap:
    """Resamples of seeds and of test pictures together, the same for all means.

    An interval contains the spread over seeds and pictures only. With few seeds it is somewhat too narrow.
    """

    def __init__(self, measure: Measure, pictures: int, seeds: int, resamples: int = RESAMPLES) -> None:
        generator = np.random.default_rng(20261121)
        self._measure = measure
        each, each_seed = np.full(pictures, 1 / pictures), np.full(seeds, 1 / seeds)
        self._times = generator.multinomial(pictures, each, size=resamples).astype(np.float32)
        self._seed_weights = generator.multinomial(seeds, each_seed, size=resamples) / seeds

    def mean(self, predictions: Predictions) -> Mean:
        """The mean for predictions [seeds, pictures], paired by seed with those of all other means."""
        name = main_metric(self._measure)
        point = float(np.mean([self._measure.scores(row)[name] for row in predictions]))
        return Mean(point, self.resampled(predictions, self._measure.resampled))

    def resampled(self, predictions: Predictions, score: Resampled) -> Floats:
        """The mean over resampled seeds of any score, or of several: [resamples, ...]."""
        by_seed = np.stack([score(row, self._times) for row in predictions], axis=1)
        weights = self._seed_weights.reshape(*self._seed_weights.shape, *[1] * (by_seed.ndim - 2))
        mean: Floats = (by_seed * weights).sum(axis=1)
        return mean


def _bounds(values: Floats, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
