"""Texts of classes: the class of each pair, its name as the text that trains, and accuracy by names after training."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pipeline.errors import CompareError
from pipeline.manifest.arms import Choice
from pipeline.scorers import class_labels
from pipeline.settings.model import Model
from pipeline.settings.task import Task
from training.data import labels, streams
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.learners.inputs import Inputs, chunks, embed
from training.measures.intervals import LEVEL, Bootstrap
from training.measures.metrics import Units
from training.measures.zero_shot import ZeroShot
from training.studies.corpus import Corpus

Labels = npt.NDArray[np.int64]


class Classes(NamedTuple):
    """Names, the class of each row of a pool (negative for none), and labelled test pictures.

    `pictures` are positions in the test set, `truth` their classes. Both are empty without labels of a test set.
    """

    names: Sequence[str]
    labels: Labels
    pictures: Labels
    truth: Labels

    @classmethod
    def read(cls, choice: Choice, own: Task, known: Pool) -> Self:
        """Of a task that has classes: by the captions of pairs and pictures, or by their column."""
        table, _ = labels.label_pairs(choice.downloaded(own.column), own)
        label = dict(zip(table["uid"].to_pylist(), table["label"].to_pylist(), strict=True))
        rows = [label.get(uid, class_labels.NONE) for uid in known.table["uid"].to_pylist()]
        found = HeldOut.read(own.test, own) if own.test else HeldOut.none()
        place = {sha256: at for at, sha256 in enumerate(known.test.sha256)}
        there = [at for at, sha256 in enumerate(found.sha256) if sha256 in place]
        pictures = np.array([place[found.sha256[at]] for at in there], np.int64)
        return cls(list(own.classes), np.array(rows, np.int64), pictures, found.labels[there].astype(np.int64))

    def trains(self, settings: Model) -> npt.NDArray[np.bool_]:
        """Which rows may train: those of the first `train_classes`, of any class, or all. Raises CompareError."""
        if not settings.classes_only:
            return np.ones(len(self.labels), bool)
        if settings.train_classes > len(self.names):
            raise CompareError(f"train_classes = {settings.train_classes}: the task has {len(self.names)} classes")
        return (self.labels >= 0) & (self.labels < (settings.train_classes or len(self.names)))

    def texts(self, inputs: Inputs, pairs: Corpus) -> Corpus:
        """The same pairs, each with the name of its class in the template of the model as its text."""
        read = inputs.texts(_sentences(inputs.model.settings, self.names))
        place = np.maximum(self.labels, 0)[:, None]
        return replace(pairs, texts=streams.Stored(read.values, place), cut=read.cut)

    def ranks(self, inputs: Inputs, images: Units) -> Labels:
        """The rank of the right name of each labelled picture, from 1. Names are embedded now, after training."""
        read = inputs.texts(_sentences(inputs.model.settings, self.names))
        units = embed(inputs.model, inputs.model.text, chunks(read.values))
        return ZeroShot(images[self.pictures] @ units.T, self.truth, self.names).ranks


def of(choice: Choice, own: Task | None, known: Pool, settings: Model) -> Classes | None:
    """The classes of a source's task; None if it has none. Raises CompareError if the model needs them."""
    if own is not None and own.has_classes and own.classes:
        return Classes.read(choice, own, known)
    if settings.classes_only:
        raise CompareError('texts = "template" and train_classes need a task with classes: name them in [task.classes]')
    return None


def accuracies(
    ranks: Labels, truth: Labels, settings: Model, bootstrap: Bootstrap
) -> dict[str, Mapping[str, Any] | None]:
    """Accuracy on trained and on untrained classes apart, among all names: the mean over seeds, with its interval.

    `ranks` are [seeds, pictures]. Over seeds and pictures. A part without pictures is None.
    """
    trained = truth < (settings.train_classes or truth.max() + 1)
    found: dict[str, Mapping[str, Any] | None] = {"trained": None, "untrained": None}
    for name, part in (("trained", trained), ("untrained", ~trained)):
        if part.any():
            chosen = part.astype(np.float32)

            def score(row: Any, times: Any, chosen: Any = chosen) -> Any:
                return (times @ (chosen * (row == 1))) / np.maximum(times @ chosen, 1)

            low, high = np.quantile(bootstrap.resampled(ranks, score), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            value = float((ranks[:, part] == 1).mean())
            found[name] = {"value": value, "low": float(low), "high": float(high), "pictures": int(part.sum())}
    return found


def _sentences(settings: Model, names: Sequence[str]) -> list[str]:
    return [settings.template.format(name=name) for name in names]
