"""Pairs whose label a learner contradicts that was trained on other pictures: confident learning on embeddings."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.errors import ModelError, SourceError
from pipeline.progress import StepProgress
from pipeline.scorers import class_labels, confident, gathering
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec, scatter
from pipeline.uids import random_bits

VERSION = 1

FEWEST = 4
"""Pictures a fold that a class needs on average, to be judged."""


class LabelErrorsSpec(PoolSpec):
    """Cross-validated probabilities of the labels of a task with classes, from image embeddings."""

    kind: Literal["label_errors"]
    of: str = Field("clip", description="the scorer whose embeddings it reads")
    classes: dict[str, tuple[str, ...]] = Field(
        {}, description="class -> the words that name it in a caption, or the values of column; unset, those of [task]"
    )
    column: str | None = Field(
        None, description="the column of labels, one of pairs.extra; unset with classes, captions name the class"
    )
    folds: int = Field(5, ge=2, le=20, description="parts of the pictures, each judged by a learner of the others")

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer whose embeddings it reads."""
        return (self.of,)

    @property
    def reads(self) -> Sequence[str]:
        """The column of labels, if there is one."""
        return (self.column,) if self.column else ()

    def columns(self) -> Mapping[str, pa.DataType]:
        """given: the pair's label; quality: the probability of it, 0 to 1, by a learner that has not seen the picture;
        contradicted: whether that learner is confident of another label; suggested: that other label, or else NULL.

        All are NULL for a pair without a label or an image embedding, and for a class with too few pictures.
        """
        return {"given": pa.string(), "quality": pa.float32(), "contradicted": pa.bool_(), "suggested": pa.string()}

    def identity(self) -> Mapping[str, Any]:
        """The settings, and the version of what computes."""
        from importlib.metadata import version

        classes = [[name, list(words)] for name, words in self.classes.items()]
        settings = {"classes": classes, "column": self.column, "folds": self.folds}
        return {"version": VERSION, **settings, "torch": version("torch")}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` stores no embeddings, or if there are no classes."""
        gathering.check(scorers, self.of)
        if len(self.classes) < 2:
            raise SourceError(
                "there are no labels to check: give it two classes or more, or the source a [task] with classes"
            )

    def load(self, of: Callable[[], Any] | None = None) -> "LabelErrors":
        """The scorer."""
        return LabelErrors(self.of, self.classes, self.column, self.folds)


class LabelErrors:
    """Fits the learners of all folds to the labelled pictures, which are in memory."""

    def __init__(self, of: str, classes: class_labels.Classes, column: str | None, folds: int) -> None:
        self._of, self._classes, self._column, self._folds = of, classes, column, folds

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The columns of `LabelErrorsSpec`. Raises ModelError if fewer than two classes have enough pictures."""
        label = self._labels(pool)
        fold = (random_bits("label-errors", map(str, pool.column("sha256").to_pylist())) % self._folds).astype(np.int64)
        known = self._judged(label, fold, gathering.present(pool, self._of))
        rows = _by_uid(pool, np.flatnonzero(known))
        used, number = np.unique(label[rows], return_inverse=True)
        vectors = gathering.gather(pool, self._of, rows)
        tried = confident.held_out_probabilities(vectors, number, fold[rows], len(used))
        found = confident.findings(confident.best(_told(tried, progress), number), number)
        names = np.array(list(self._classes), object)[used]
        order = np.argsort(rows)
        columns = {
            "given": pa.array(names[number][order], pa.string()),
            "quality": pa.array(found.quality[order]),
            "contradicted": pa.array(found.contradicted[order]),
            "suggested": pa.array(names[found.suggested][order], pa.string(), mask=~found.contradicted[order]),
        }
        return scatter(columns, known)

    def _labels(self, pool: Pool) -> npt.NDArray[np.int16]:
        if self._column is not None:
            return class_labels.classes_of_values(pool.column(self._column), self._classes)
        return class_labels.single_class(class_labels.classes_named(pool.column("caption"), self._classes))

    def _judged(
        self, label: npt.NDArray[np.int16], fold: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """The rows with a label and an embedding whose class has enough rows, in two folds or more."""
        known = present & (label >= 0)
        counts = np.zeros((len(self._classes), self._folds), np.int64)
        np.add.at(counts, (label[known], fold[known]), 1)
        enough = (counts.sum(axis=1) >= FEWEST * self._folds) & (np.count_nonzero(counts, axis=1) > 1)
        if np.count_nonzero(enough) < 2:
            raise ModelError(
                f"label_errors: {np.count_nonzero(enough)} of {len(enough)} classes have {FEWEST * self._folds} "
                "pictures with a label and an embedding, and two are needed: remove the scorer, or curate more pairs"
            )
        judged: npt.NDArray[np.bool_] = known & enough[label]
        return judged


def _by_uid(pool: Pool, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows in the order of their uids' draws, so that results do not depend on the order of the list."""
    uids = pool.column("uid").take(pa.array(rows)).to_pylist()
    return rows[np.argsort(random_bits("label-errors", uids), kind="stable")]


def _told(tried: Any, progress: StepProgress) -> Any:
    """The same, and progress after each."""
    for done, found in enumerate(tried):
        progress(done + 1, len(confident.DECAYS))
        yield found
