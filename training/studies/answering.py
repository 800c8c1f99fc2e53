"""What the report says of models that answer questions: what trains, what it costs, what collapsed or is confused."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.ledger.asked import agreed
from pipeline.trials.trials import Trial
from training.measures import wups
from training.measures.metrics import Measure
from training.measures.vqa import Answering
from training.studies.learner import CELLS
from training.studies.summary import trials_of

CONFUSED = 8
"""The number of answers in the confusion table: the most frequent right ones."""

SHOWN = ("filtered", False)
"""The cell whose answers are looked at: plain pictures of the filtered pairs."""


def summarize(by_name: Mapping[str, Sequence[Trial]], measure: Measure) -> dict[str, Any] | None:
    """The `sizes` of models, `alarms`, `confusion` by learner, and `wups`, as JSON; None for another measure."""
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
        {"learner": name, "answers": names, "rows": _confusion(trials_of(SHOWN, trials), measure)}
        for name, trials in by_name.items()
    ]
    sizes = [_size(name, trials_of(SHOWN, trials)) for name, trials in by_name.items()]
    distances = [_wups(name, trials_of(SHOWN, trials), measure) for name, trials in by_name.items()]
    return {
        "sizes": sizes,
        "alarms": alarms,
        "confusion": confusion,
        "wups": distances if wups.version() else [wups.MISSING],
    }


def _size(name: str, trials: Sequence[Trial]) -> str:
    """A sentence of what trains, and what it costs."""
    size: Any = trials[0].setting.encoder["size"]
    share = size["trained"] / size["parameters"]
    sentence = f"{name}: {size['trained']:,} of {size['parameters']:,} parameters train ({share:.2%})"
    if size["adapted"]:
        sentence += f"; of {size['adapted']} adapted modules {size['without_gradient']} get no gradient"
    seconds = np.median([each.seconds * each.pairs / each.images for each in trials])
    peaks = [each.memory_mb for each in trials if each.memory_mb]
    return f"{sentence}; {seconds:.3g} s an epoch" + (f", {max(peaks):,} MiB at most" if peaks else "")


def _wups(name: str, trials: Sequence[Trial], measure: Answering) -> str:
    """A sentence of the mean WUPS over questions and seeds; without WordNet, empty."""
    if not wups.version():
        return ""
    answers, right = measure.vocabulary.answers, [agreed(each) or "" for each in measure.questions.answers]
    means = [
        np.mean(
            [
                wups.wups(answers[int(given)], true, threshold)
                for each in trials
                for given, true in zip(each.predictions, right, strict=True)
            ]
        )
        for threshold in wups.THRESHOLDS
    ]
    figures = ", ".join(f"{mean:.3f} at {threshold}" for mean, threshold in zip(means, wups.THRESHOLDS, strict=True))
    return f"{name}: WUPS {figures}"


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
