"""The held-out pictures: read from a list, or split off the pool. They have labels by agreement, or captions."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SourceError
from pipeline.images import picture_lists
from pipeline.scorers import class_labels
from pipeline.settings.task import Task, TestSet
from pipeline.store.digests import digest
from training.data import labels
from training.data.answers import Vocabulary
from training.data.labels import Targets
from training.data.pairs import Pairs
from training.data.questions import Questions, answered

YES_OR_NO: class_labels.Classes = {"no": ("false", "no", "0", "0.0"), "yes": ("true", "yes", "1", "1.0")}
"""The values of a column that tells whether picture and caption match."""


@dataclass(frozen=True)
class HeldOut:
    """Pictures with a label or a number, `labels` and `sha256` aligned; or with captions in `pairs`, and label 0.

    `ambiguous` pictures have several agreed labels and `unlabelled` pictures none. Both are excluded. `paths` are the
    files, sorted; empty for pictures that were split off the pool. `vocabulary` has the answers of the pool.
    """

    sha256: tuple[str, ...]
    labels: Targets
    ambiguous: int
    unlabelled: int
    paths: tuple[Path, ...] = ()
    pairs: Pairs | None = None
    questions: Questions | None = None
    vocabulary: Vocabulary | None = None

    @classmethod
    def read(cls, test: TestSet, task: Task) -> "HeldOut":
        """Raises SourceError for a missing column or picture, or if no picture has a label."""
        rows = _rows(test, task)
        names = pc.dictionary_encode(rows["image"].cast(pa.string())).combine_chunks()
        pictures, picture = len(names.dictionary), names.indices.to_numpy()
        label, ambiguous = agreed_labels(rows, picture, pictures, task, test.agree)
        order = np.argsort(np.array(names.dictionary.to_pylist(), object))
        chosen = order[labels.known(label)[order]]
        paths = tuple(test.folder / names.dictionary[int(i)].as_py() for i in chosen)
        if not paths:
            raise SourceError(f"{test.location.name}: no picture {_lacking(rows, task, test.agree)}")
        picture_lists.check(test, paths)
        sha256 = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
        pairs, questions = texts_of(rows, picture, chosen, task, test.seed)
        return cls(sha256, label[chosen], ambiguous, pictures - ambiguous - len(chosen), paths, pairs, questions)

    @classmethod
    def none(cls) -> "HeldOut":
        """No pictures, for a source without a test set."""
        return cls((), np.zeros(0, np.int16), 0, 0)

    @property
    def digest(self) -> str:
        """Of the pictures and their labels, or captions."""
        texts = [each.content for each in (self.pairs, self.questions) if each]
        return digest([list(self.sha256), self.labels.tolist(), *texts])

    @property
    def description(self) -> str:
        """The number of pictures and captions, as text."""
        pictures = f"{len(self.labels):,} held-out pictures"
        if self.questions is not None:
            return f"{pictures} with {len(self.questions.question):,} questions"
        if self.pairs is None:
            return pictures
        count, match = len(self.pairs.match), int(self.pairs.match.sum())
        return f"{pictures} with {count:,} captions" + (f", {match:,} of them their own" if match < count else "")

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """Path and content of each file, in order."""
        return ((str(path), path.read_bytes()) for path in self.paths)


def agreed_labels(
    rows: pa.Table, picture: npt.NDArray[np.integer[Any]], pictures: int, task: Task, agree: int
) -> tuple[Targets, int]:
    """The label or number of each picture, from its `rows`, and how many pictures are ambiguous.

    `picture` is the picture of each row, and `pictures` their number. Rows have a caption, or a `target`. At least
    `agree` captions must name the class; the values of a column must all be equal. If the task is about captions, a
    picture that has one gets 0.
    """
    if task.evaluates_pairs:
        captioned = np.full(pictures, class_labels.NONE, np.int16)
        captioned[picture[_captioned(rows, task)]] = 0
        return captioned, 0
    if task.kind == "number":
        values = labels.numbers(rows["target"])
        low, high = np.full(pictures, np.inf), np.full(pictures, -np.inf)
        np.fmin.at(low, picture, values)
        np.fmax.at(high, picture, values)
        return np.where(low == high, low, np.nan), int((low < high).sum())
    if "target" in rows.column_names:
        votes_of = class_labels.classes_of_values(rows["target"], task.classes)[:, None] == np.arange(len(task.classes))
        least = 1
    else:
        votes_of, least = class_labels.classes_named(rows["caption"].cast(pa.string()), task.classes), agree
    votes = np.zeros((pictures, len(task.classes)), np.int64)
    np.add.at(votes, picture, votes_of)
    label = class_labels.single_class(votes >= least)
    return label, int((label == class_labels.SEVERAL).sum())


def texts_of(
    rows: pa.Table, picture: npt.NDArray[np.integer[Any]], chosen: npt.NDArray[np.int64], task: Task, seed: int
) -> tuple[Pairs | None, Questions | None]:
    """The captions, or the questions, of the `chosen` pictures, by their position among these; None without them.

    For a match task without a `target`, half of the pairs get the caption of another picture.
    """
    if not task.evaluates_pairs:
        return None, None
    place = np.full(int(picture.max()) + 1, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    captioned = _captioned(rows, task)
    rows, own = rows.filter(pa.array(captioned)), place[picture[captioned]]
    if task.kind == "vqa":
        return None, Questions.of(rows, own)
    captions = rows["caption"].cast(pa.string()).to_pylist()
    if task.kind == "retrieval":
        return Pairs.of(captions, own), None
    if "target" in rows.column_names:
        return Pairs.of(captions, own, class_labels.classes_of_values(rows["target"], YES_OR_NO) == 1), None
    return Pairs.of(captions, own).half_mismatched(seed), None


def _captioned(rows: pa.Table, task: Task) -> npt.NDArray[np.bool_]:
    """Which rows have a caption, and a valid `target` if there is that column; or a question and an answer."""
    if task.kind == "vqa":
        return answered(rows["question"].to_pylist(), rows["target"].to_pylist())
    captioned = labels.has_caption(rows["caption"].cast(pa.string()))
    if "target" in rows.column_names:
        captioned = captioned & (class_labels.classes_of_values(rows["target"], YES_OR_NO) >= 0)
    return captioned


def _lacking(rows: pa.Table, task: Task, agree: int) -> str:
    """The missing property, for an error message."""
    if task.kind == "vqa":
        return "has a question and an answer"
    if task.evaluates_pairs:
        return "has a caption"
    if "target" in rows.column_names:
        return "has a value"
    return f"has {agree} captions that name the same class"


def _rows(test: TestSet, task: Task) -> pa.Table:
    """The columns image, and caption and target as the task needs. Raises SourceError as `picture_lists.read` does."""
    target = test.column or task.column
    columns = {"image": test.image}
    if task.kind == "vqa":
        columns |= {"question": task.vqa.question, "target": task.vqa.answer}
        table = picture_lists.read(test, list(columns.values()))
        return pa.table({name: table[column] for name, column in columns.items()})
    if task.evaluates_pairs or target is None:
        columns["caption"] = test.caption
    if target is not None:
        columns["target"] = target
    table = picture_lists.read(test, list(columns.values()))
    return pa.table({name: table[column] for name, column in columns.items()})
