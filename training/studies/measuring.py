"""What is measured on held-out pictures, by the kind of task, and the pairs that a seed leaves for validation."""

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.errors import CompareError
from pipeline.settings.task import Task
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.measures.matching import Match, Retrieval
from training.measures.metrics import Classification, Predictions, Regression, main_metric
from training.measures.vqa import Answering

MOST, LEAST = 2000, 20
"""The largest validation set, in pairs, and the smallest that is used."""

AnyMeasure = Classification | Regression | Retrieval | Match | Answering


def spare(task: Task, pool: Pool, drawn: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Up to `MOST` rows of the pool whose pictures no arm of a seed trains on, by the rows of "raw", ascending."""
    table = pool.table
    seen = pc.is_in(table["sha256"], value_set=table["sha256"].take(drawn).combine_chunks()).to_numpy()
    rows = np.flatnonzero(~(pool.leaked | seen))
    if task.kind == "zero-shot":  # those whose captions name a class
        rows = rows[table["label"].to_numpy()[rows] >= 0]
    return np.sort(np.random.default_rng([seed, len(rows)]).permutation(rows)[:MOST])


def undrawn(task: Task, pool: Pool, drawn: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """As `spare`. Raises CompareError if there are fewer than `LEAST`."""
    rows = spare(task, pool, drawn, seed)
    if len(rows) < LEAST:
        raise CompareError(
            f"only {len(rows)} pairs were not drawn in seed {seed}: too few to choose a threshold or a learning "
            f"rate on ({LEAST}); the source needs more pairs"
        )
    return rows


def measure_of(task: Task, test: HeldOut) -> AnyMeasure:
    """The measure of a test set, by the kind of task."""
    if test.questions is not None and test.vocabulary is not None:
        return Answering(test.questions, test.vocabulary, len(test.labels))
    if test.pairs is not None:
        return (Match if task.kind == "match" else Retrieval)(test.pairs, len(test.labels))
    if task.kind == "number":
        return Regression(test.labels)
    return Classification(test.labels, list(task.classes))


def selection_score(measure: AnyMeasure, predictions: Predictions) -> float:
    """What learning rates are compared by on a validation set: the main score, or, of match, ROC AUC.

    Wrong captions lower ROC AUC for all alike. By F1 "always match" would win where many captions are wrong.
    """
    return float(measure.scores(predictions)["auc" if isinstance(measure, Match) else main_metric(measure)])
