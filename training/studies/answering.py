"""What the report says of models that answer questions: which of them collapsed, and what they confuse."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.trials.trials import Trial
from training.measures.metrics import Measure
from training.measures.vqa import Answering
from training.studies.learner import CELLS
from training.studies.summary import trials_of

CONFUSED = 8
"""The number of answers in the confusion table: the most frequent right ones."""

_SHOWN = ("filtered", False)


def summarize(by_name: Mapping[str, Sequence[Trial]], measure: Measure) -> dict[str, Any] | None:
    """The `sizes` of models, `alarms`, and `confusion` by learner, as JSON; None for another measure."""
    if not isinstance(measure, Answering):
        return None
    alarms = [
        found
        for name, trials in by_name.items()
        for cell in CELLS
        if (found := _alarm(name, cell[0], bool(cell[1]), trials_of(cell, trials), measure))
    ]
    names = measure.most_frequent(CONFUSED)
    confusion = [
        {"learner": name, "answers": names, "rows": _confusion(trials_of(_SHOWN, trials), measure)}
        for name, trials in by_name.items()
    ]
    sizes = [_size(name, trials[0].setting.encoder["size"]) for name, trials in by_name.items()]
    return {"sizes": sizes, "alarms": alarms, "confusion": confusion}


def _size(name: str, size: Any) -> str:
    """A sentence of what trains."""
    share = size["trained"] / size["parameters"]
    sentence = f"{name}: {size['trained']:,} of {size['parameters']:,} parameters train ({share:.2%})"
    if not size["adapted"]:
        return sentence
    return f"{sentence}; of {size['adapted']} adapted modules {size['without_gradient']} get no gradient"


def _alarm(name: str, arm: str, augmented: bool, trials: Sequence[Trial], measure: Answering) -> dict[str, Any] | None:
    """The sentence of a cell in some seeds of which the model has collapsed."""
    said = [alarm for each in trials if (alarm := measure.alarm(np.array(each.predictions)))]
    if not said:
        return None
    pictures = "augmented" if augmented else "plain"
    sentence = f"{name} collapsed in {len(said)} of {len(trials)} seeds on the {arm} pairs, {pictures}: {said[0]}"
    return {"learner": name, "arm": arm, "augmented": augmented, "seeds": len(said), "sentence": sentence}


def _confusion(trials: Sequence[Trial], measure: Answering) -> list[list[float]]:
    """Rows of shares: right answers by given ones, the last column of all others; means over seeds."""
    counts = [measure.confusion(np.array(each.predictions), CONFUSED) for each in trials]
    summed = np.sum(np.array(counts, np.float64), axis=0)
    shares: list[list[float]] = (summed / summed.sum(axis=1, keepdims=True)).round(4).tolist()
    return shares
