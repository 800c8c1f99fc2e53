"""What trainings on one manifest share: the pool, its pairs and the gallery, as the towers of a model read them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pipeline.manifest import recipes
from pipeline.manifest.arms import Choice
from pipeline.models import device
from pipeline.progress import Progress
from pipeline.settings.model import Model
from pipeline.settings.task import Task
from pipeline.sources.source import Source
from pipeline.store.digests import digest
from pipeline.store.storage import Storage
from training.data import pool
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.learners.inputs import Inputs
from training.studies import class_texts, corpus
from training.studies.class_texts import Classes
from training.studies.corpus import Corpus, Gallery
from training.studies.fairness import check_targets


class Ground(NamedTuple):
    """The pool of a manifest, its pairs, how the caption of each row is read, and the gallery of the test set.

    The gallery is None without a test set that has captions, and the classes are None
    without a task that has some.
    """

    known: Pool
    pairs: Corpus
    captions: Callable[[], Sequence[str]]
    gallery: Gallery | None
    classes: Classes | None

    def trains(self, settings: Model) -> npt.NDArray[np.bool_] | None:
        """Which rows the settings let train; None: all."""
        return self.classes.trains(settings) if self.classes else None


@dataclass(frozen=True)
class Grounds:
    """One ground for all models whose towers read alike: heads, objectives, rates and seeds do not matter."""

    source: Source
    storage: Storage
    choice: Choice
    task: Task
    test: HeldOut | None
    progress: Progress
    _known: dict[str, Ground] = field(default_factory=dict)

    @classmethod
    def open(cls, source: Source, storage: Storage, recipe: str | None, progress: Progress) -> Self:
        """The grounds of the newest manifest; the kept pairs are the published ones, or those of a named recipe."""
        choice = Choice.open(storage, None, recipes.find(source, storage, recipe) if recipe else None)
        task = task_for(source.task)
        return cls(source, storage, choice, task, test_of(source.task, task), progress)

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what a training reads, but the model, as JSON."""
        split = self.task.split
        return {
            "source": self.source.name,
            "manifest": self.choice.manifest.id,
            "choice": self.choice.key,
            "heldout": self.test.digest if self.test else (split.model_dump() if split else None),
            "classes": _classes(self.source.task),
            "decoder": self.source.decoder,
            "device": device.kind(),
        }

    def of(self, inputs: Inputs) -> Ground:
        """The ground of a model, which its `inputs` read."""
        model, identity = inputs.model.settings, inputs.identity
        frozen = [model.image_blocks == 0, model.text_blocks == 0]
        reads = [identity["image"], identity["text"], model.image_size, model.context, model.pooling, frozen]
        reads += [model.texts, model.template]
        key = digest(reads)
        if key not in self._known:
            self._known[key] = self._read(inputs)
        return self._known[key]

    def _read(self, inputs: Inputs) -> Ground:
        decoder = self.source.decoder
        known = pool.read(self.choice, self.task, [corpus.extractor(inputs, decoder, None)], self.test, self.progress)
        if self.test is None:
            check_targets(self.source.scorers, self.choice.manifest, known)
        pairs = corpus.read(inputs, self.choice, known, known.features[0], decoder, "")
        gallery = None
        if known.test.pairs is not None:
            gallery = corpus.gallery(inputs, self.choice, known.test, known.heldout[0], decoder)

        @cache
        def captions() -> Sequence[str]:
            found: list[str] = pool.captions(self.choice, known.table["uid"])["caption"].to_pylist()
            return found

        classes = class_texts.of(self.choice, self.source.task, known, inputs.model.settings)
        if classes and inputs.model.settings.texts == "template":
            pairs = classes.texts(inputs, pairs)
        return Ground(known, pairs, captions, gallery, classes)


def _classes(own: Task | None) -> list[Any] | None:
    """All that decides the classes of pairs and pictures, as JSON."""
    if own is None or not own.has_classes:
        return None
    return [own.kind, list(own.classes.items()), own.column, own.test and [own.test.column, own.test.agree]]


def task_for(task: Task | None) -> Task:
    """The task of a source as a model is trained for it: every pair with a caption trains, whatever its label."""
    if task is None:
        return Task.model_construct(kind="retrieval", classes={}, column=None, test=None, split=None, learners={})
    return task.model_copy(update={"kind": "retrieval", "classes": {}, "column": None})


def test_of(own: Task | None, task: Task) -> HeldOut | None:
    """The test set; None if it is split off. One with values in place of captions only stays out of training."""
    if own is None or (own.test is None and own.split is None):
        return HeldOut.none()
    if own.test is None:
        return None
    return HeldOut.read(own.test, own if own.column or own.test.column else task)
