"""The evaluation sets: the test set, and a validation set of pairs that a seed did not draw."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.settings.task import Task
from training.data.heldout import HeldOut
from training.data.labels import check_varies
from training.data.pairs import Pairs
from training.data.pool import Pool
from training.learners.dual_encoder import Embed
from training.measures.metrics import Predictions, Regression, Units
from training.measures.vqa import Answering
from training.studies.learner import Learner
from training.studies.measuring import AnyMeasure, measure_of, undrawn


class EvaluationSet(NamedTuple):
    """`pictures`, [pictures, 1, dim], and the `texts`, [texts, dim], that learners of captions compare them with."""

    measure: AnyMeasure
    pictures: npt.NDArray[np.float16]
    texts: Units | None

    def predict(self, embed: Embed) -> Predictions:
        """The predictions of a learner of captions, by its cosines."""
        assert not isinstance(self.measure, Regression | Answering)  # the source file would have been refused
        assert self.texts is not None
        return self.measure.predict(embed(self.pictures[:, 0]), self.texts)


def test_set(task: Task, test: HeldOut, learner: Learner) -> EvaluationSet:
    """The held-out pictures."""
    texts = learner.texts.heldout.astype(np.float32) if learner.texts else None
    return EvaluationSet(measure_of(task, test), learner.heldout.views[:, :1], texts)


def validation_set(task: Task, pool: Pool, learner: Learner, drawn: npt.NDArray[np.int64], seed: int) -> EvaluationSet:
    """Pairs that were not drawn, by the rows of "raw": as noisy as the pool, and the same for all arms of a seed.

    Raises CompareError if they are too few, or their numbers do not vary.
    """
    rows, texts = undrawn(task, pool, drawn, seed), learner.texts.heldout if learner.texts else None
    picture, labels = (pool.table[name].to_numpy()[rows] for name in ("picture", "label"))
    pairs = None
    if task.evaluates_pairs and learner.texts:
        texts, text = np.unique(learner.texts.plain[rows], axis=0, return_inverse=True)
        picture, place = np.unique(picture, return_inverse=True)
        pairs = Pairs((), place, text.reshape(-1), np.ones(len(rows), bool))
        pairs = pairs.half_mismatched(seed) if task.kind == "match" else pairs
        labels = np.zeros(len(picture), np.int16)
    if task.kind == "number":
        check_varies(f"the pairs that were not drawn in seed {seed}", labels)
    measure = measure_of(task, HeldOut((), labels, 0, 0, pairs=pairs))
    views = learner.training.views[picture, :1]
    return EvaluationSet(measure, views, None if texts is None else texts.astype(np.float32))
