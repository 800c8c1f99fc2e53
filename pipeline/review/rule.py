"""The rule for a threshold, in numbers alone: the edge with the best F1, and how it is rounded."""

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import numpy as np
import numpy.typing as npt

DIGITS = 3
"""Significant digits of a threshold, unless they cost too much."""

SHUFFLES = 999
"""How many times labels are shuffled to see what F1 chance reaches."""


def best_edge(values: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_]) -> float | None:
    """The edge with the best F1 for "bad is below the edge"; of several the lowest. NaN is not below any.

    It lies between two neighbouring values: above the one, and at most at the other. None where there are no two, or
    where nothing bad is below any edge.
    """
    scored = ~np.isnan(values)
    levels, place = np.unique(np.clip(values[scored], -1e300, 1e300), return_inverse=True)
    below = np.cumsum(np.bincount(place, minlength=len(levels)))[:-1]
    hits = np.cumsum(np.bincount(place[bad[scored]], minlength=len(levels)))[:-1]
    if not hits.any():
        return None
    at = int(np.argmax(2 * hits / (below + bad.sum())))
    low, high = float(levels[at]), float(levels[at + 1])
    middle = low / 2 + high / 2
    return middle if low < middle else high


def chance(values: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_]) -> float:
    """The share of `SHUFFLES` of the labels whose best edge has at least the F1 of the labels themselves, 0 to 1.

    This is the p-value of a permutation test, (1 + hits) / (1 + shuffles). Shuffles are drawn from a fixed seed.
    """
    scored = ~np.isnan(values)
    levels, place = np.unique(np.clip(values[scored], -1e300, 1e300), return_inverse=True)
    below = np.cumsum(np.bincount(place, minlength=len(levels)))[:-1] + bad.sum()

    def best(labels: npt.NDArray[np.bool_]) -> float:
        hits = np.cumsum(np.bincount(place[labels[scored]], minlength=len(levels)))[:-1]
        return float((2 * hits / below).max(initial=0.0))

    generator, own = np.random.default_rng(0), best(bad)
    reached = sum(best(generator.permutation(bad)) >= own - 1e-12 for _ in range(SHUFFLES))
    return (1 + reached) / (1 + SHUFFLES)


def roundings(value: float, down: bool) -> Sequence[str]:
    """The finite number with 3, 4, ... 17 significant digits, each rounded down, or else up; the last is exact."""
    direction = ROUND_FLOOR if down else ROUND_CEILING
    assert math.isfinite(value)
    numbers = [Context(digits, direction).create_decimal(repr(value)) for digits in range(DIGITS, 17)]
    return [f"{number.normalize():f}" for number in numbers] + [repr(value)]
