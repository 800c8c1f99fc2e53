"""The learning rate that is reduced when the validation loss no longer falls, as torch's ReduceLROnPlateau does it."""

from collections.abc import Sequence

LEAST = 1e-4
"""By which share a loss must be lower than the lowest to count."""


def share(losses: Sequence[float], patience: int, factor: float) -> float:
    """The share of the peak learning rate after epochs with these validation losses.

    More than `patience` epochs in a row without a lower loss multiply it by `factor`.
    """
    lowest, bad, rate = float("inf"), 0, 1.0
    for loss in losses:
        bad = 0 if loss < lowest * (1 - LEAST) else bad + 1
        lowest = lowest if bad else loss
        if bad > patience:
            rate, bad = rate * factor, 0
    return rate
