"""The alarm of a model that has collapsed: it predicts almost only one or two answers, whatever it is asked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

ANSWERS = 2
"""The number of answers that a collapsed model still gives."""

SHARE = 0.9
"""The share of the predictions that these answers have, at least, if a model has collapsed."""

EXCESS = 0.1
"""By how much that share is larger than that of the most frequent true answers, at least: yes-no questions have two."""


def collapse(
    predictions: npt.NDArray[Any], truth: npt.NDArray[Any], answers: Sequence[str] | None = None
) -> str | None:
    """A sentence if a model has collapsed, by its predictions and the true answers, [questions] each; else None.

    Both are numbers of `answers`, which the sentence names. A negative number is an answer outside of them.
    """
    if not len(predictions):
        return None
    numbers, counts = np.unique(predictions, return_counts=True)
    frequent = counts.argsort()[::-1][:ANSWERS]
    share = counts[frequent].sum() / len(predictions)
    true = np.sort(np.unique(truth, return_counts=True)[1])[::-1][:ANSWERS].sum() / len(truth)
    if share < SHARE or share - true < EXCESS:
        return None
    named = [repr(answers[number]) if answers else str(number) for number in numbers[frequent].tolist()]
    return f"{share:.0%} of all predictions are {' or '.join(named)}; the two most frequent answers are {true:.0%}"
