"""Means over folds and refits, with intervals."""

from dataclasses import dataclass

from pipeline.mixing.pairs import Floats

LEVEL = 0.95


@dataclass(frozen=True)
class Spread:
    """A mean, and its interval of `LEVEL` over refits."""

    mean: float
    low: float
    high: float


def spread(values: Floats) -> Spread:
    """Of values [folds, refits]: the mean over folds, and Student's interval for a single refit of it.

    The deviation of refits on halves is about the standard error of a fit on all, so it is not divided by their root.
    """
    from scipy.stats import t

    by_refit = values.mean(axis=0)
    mean = float(by_refit.mean())
    if len(by_refit) < 2:
        return Spread(mean, mean, mean)
    half = float(by_refit.std(ddof=1) * t.ppf((1 + LEVEL) / 2, len(by_refit) - 1))
    return Spread(mean, mean - half, mean + half)
