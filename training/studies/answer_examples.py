"""Questions of the test set with their pictures, and what each model answered: for a page."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.pages.predictions import Group, Prediction
from pipeline.progress import Progress, silent
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.trials.trials import Trial
from training.data import shown
from training.measures.vqa import Answering
from training.studies.answering import SHOWN
from training.studies.measurement import Measurement
from training.studies.measuring import measure_of

EACH = 16
"""How many questions are shown that the first learner answers, and how many that it does not."""

Answers = npt.NDArray[np.int64]


def examples(
    source: Source, storage: Storage, manifest_id: str | None, recipe: str | None, progress: Progress = silent
) -> list[Group]:
    """Questions that the first learner got wrong, and right, each with the answers of all learners.

    The models are those of the first seed, trained on the filtered pairs. No picture is shown twice under a heading.
    The task is of kind vqa. Trials that are not stored are trained.
    """
    measurement = Measurement.open(source, storage, manifest_id, recipe)
    trials, known, *_ = measurement.run(progress)
    measure = measure_of(measurement.task, known.test)
    assert isinstance(measure, Answering)
    given = _given(trials)
    first = next(iter(given.values())) == measure.truth
    chosen = {
        "Wrong": _chosen(measure, np.flatnonzero(~first)),
        "Right": _chosen(measure, np.flatnonzero(first)),
    }
    rows = {int(measure.questions.picture[each]) for places in chosen.values() for each in places}
    pictures = shown.pixels(storage, measurement.choice, known.test, rows)
    return [
        Group(
            heading,
            [
                Prediction(
                    pictures[int(measure.questions.picture[each])],
                    measure.questions.question[each],
                    _lines(measure, given, each),
                )
                for each in places
            ],
        )
        for heading, places in chosen.items()
    ]


def _given(trials: Sequence[Trial]) -> Mapping[str, Answers]:
    """By learner, what the model of the first seed answered: int64 [questions]."""
    found: dict[str, Answers] = {}
    for each in trials:
        if each.setting.cell == SHOWN:
            found.setdefault(each.setting.learner, np.array(each.predictions, np.int64))
    return found


def _chosen(measure: Answering, places: Answers) -> Sequence[int]:
    _, first = np.unique(measure.questions.picture[places], return_index=True)
    return shown.apart(EACH, places[first])


def _lines(measure: Answering, given: Mapping[str, Answers], at: int) -> list[tuple[str, str, bool | None]]:
    """What people answered, and each learner."""
    names = measure.vocabulary.answers
    right = ", ".join(dict.fromkeys(measure.questions.answers[at]))
    answered = [(name, names[each[at]], bool(each[at] == measure.truth[at])) for name, each in given.items()]
    return [("answer", right, None), *answered]
