"""The learners of a task: which encoders and models they are, and what each of them reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import SourceError
from pipeline.images import decoders
from pipeline.manifest.arms import Choice
from pipeline.settings.encoder import Encoder, Network
from pipeline.settings.model import Model
from pipeline.settings.task import Learner as Row
from pipeline.settings.task import Task
from pipeline.settings.vqa import VqaModel
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from training.data import pool
from training.data.features import Extractor
from training.data.pool import Pool
from training.data.templates import prompts
from training.data.texts import Texts
from training.data.versions import Versions
from training.learners.inputs import Inputs
from training.learners.vqa_inputs import VqaInputs
from training.studies import corpus, model_learner, vqa_corpus, vqa_learner
from training.studies.learner import Learner
from training.studies.measuring import measure_of
from training.studies.model_learner import Evaluation, ModelLearner
from training.studies.model_learner import Texts as ModelTexts
from training.studies.vqa_learner import VqaLearner


def check_augmentations(task: Task, source: str) -> None:
    """Raises SourceError for augmentations that a model does not see."""
    if task.budget.augmentations and any(each.model or each.vqa for each in task.learners.values()):
        raise SourceError(
            f"{source}: task.budget.augmentations: a model sees augmented pictures, not augmented captions: remove them"
        )


@dataclass(frozen=True)
class Roster:
    """The learners before anything is loaded: an extractor for each encoder, which learners share, and the models.

    `models` has, by learner, the settings under the task's budget, and their identity; `answerers` those of models that
    answer questions.
    """

    task: Task
    extractors: Sequence[Extractor]
    models: dict[str, tuple[Model, dict[str, Any]]]
    answerers: dict[str, tuple[VqaModel, dict[str, Any]]]

    @property
    def identities(self) -> list[list[Any]]:
        """Each learner by name, head, and the identity of its encoder; of a model, of all of it."""
        whole = self.models | self.answerers
        asked = [self.task.vqa.model_dump()] if self.answerers else []
        return [
            [name, each.head or "model", whole[name][1] if name in whole else self._extractor(each).identity, *asked]
            for name, each in self.task.learners.items()
        ]

    def load(self, source: Source, storage: Storage) -> "Loaded":
        """Build the models. Raises ModelError."""
        from training.dual import build

        inputs = {name: Inputs(build.build(each, 0), about, storage) for name, (each, about) in self.models.items()}
        own = [corpus.extractor(each, source.decoder, self.task.budget) for each in inputs.values()]
        asked = {name: vqa_corpus.inputs(each, about, storage) for name, (each, about) in self.answerers.items()}
        own += [vqa_corpus.extractor(each, source.decoder, self.task.budget) for each in asked.values()]
        return Loaded(self, source.decoder, inputs, asked, [*self.extractors, *own])

    def _extractor(self, learner: Row) -> Extractor:
        return next(each for each in self.extractors if each.encoder == learner.encoder)


@dataclass(frozen=True)
class Loaded:
    """The learners with their models built. The extractors of models follow those of encoders."""

    roster: Roster
    decoder: decoders.Name
    inputs: dict[str, Inputs]
    asked: dict[str, VqaInputs]
    extractors: Sequence[Extractor]

    def learners(self, choice: Choice, known: Pool, augmented: Versions | None) -> tuple[Learner, ...]:
        """All of them, on a pool that was read with `extractors`."""
        return tuple(
            self._whole(name, choice, known)
            if each.model or each.vqa
            else self._head(name, each, choice, known, augmented)
            for name, each in self.roster.task.learners.items()
        )

    def _whole(self, name: str, choice: Choice, known: Pool) -> Learner:
        return (self._answerer if name in self.asked else self._model)(name, choice, known)

    def _head(self, name: str, each: Row, choice: Choice, known: Pool, augmented: Versions | None) -> Learner:
        assert each.head is not None
        encoders, texts = [extractor.encoder for extractor in self.extractors], None
        at = next(place for place, encoder in enumerate(encoders) if encoder == each.encoder)
        if each.head == "dual" and isinstance(each.encoder, Network):
            held = [[text] for text in known.test.pairs.texts] if known.test.pairs else self._prompts
            own = pool.captions(choice, known.table["uid"])["caption"].to_pylist()
            texts = Texts.read(each.encoder, own, held, augmented)
        return Learner(name, each.head, self.extractors[at].identity, known.features[at], known.heldout[at], at, texts)

    def _model(self, name: str, choice: Choice, known: Pool) -> Learner:
        inputs, at = self.inputs[name], len(self.roster.extractors) + list(self.inputs).index(name)
        features, heldout = known.features[at], known.heldout[at]
        pairs = corpus.read(inputs, choice, known, features, self.decoder, self.roster.task.budget.policy)
        shown = corpus.test_pictures(inputs, choice, known.test, heldout, self.decoder)
        test = Evaluation(measure_of(self.roster.task, known.test), shown, self._texts(inputs, known))
        settings, identity = self.roster.models[name]
        model = ModelLearner(settings, inputs, pairs, test)
        return Learner(name, "model", identity, features, heldout, at, model=model)

    def _answerer(self, name: str, choice: Choice, known: Pool) -> Learner:
        at = len(self.roster.extractors) + [*self.inputs, *self.asked].index(name)
        features, heldout = known.features[at], known.heldout[at]
        settings, identity = self.roster.answerers[name]
        assert known.test.vocabulary is not None
        size = vqa_learner.size(settings, len(known.test.vocabulary.answers))
        sized = {**identity, "asked": self.roster.task.vqa.model_dump(), "size": size}
        read = vqa_corpus.read(self.asked[name], choice, known, features, self.decoder, self.roster.task.budget)
        test = vqa_learner.VqaTest.of(self.asked[name], choice, known.test, heldout, self.decoder)
        return Learner(name, "model", sized, features, heldout, at, model=VqaLearner(settings, read, test))

    def _texts(self, inputs: Inputs, known: Pool) -> ModelTexts:
        if known.test.pairs is not None:
            own = inputs.texts(list(known.test.pairs.texts))
            return ModelTexts(own.values, cut=own.cut)
        starts = np.cumsum([0, *map(len, self._prompts)])[:-1]
        own = inputs.texts([each for wordings in self._prompts for each in wordings])
        return ModelTexts(own.values, starts, own.cut)

    @property
    def _prompts(self) -> list[list[str]]:
        return prompts(self.roster.task.classes)


def plan(source: Source, storage: Storage) -> Roster:
    """The learners of a source's task. Raises ModelError for missing weights."""
    assert source.task is not None
    encoders, models = list[Encoder](), dict[str, tuple[Model, dict[str, Any]]]()
    answerers = dict[str, tuple[VqaModel, dict[str, Any]]]()
    for name, learner in source.task.learners.items():
        if learner.encoder and learner.encoder not in encoders:
            encoders.append(learner.encoder)
        if learner.model:
            if source.models[learner.model].classes_only:
                raise SourceError(
                    f'learners.{name}: texts = "template" and train_classes are for winnow fit and winnow sweep: '
                    f"remove them from [models.{learner.model}]"
                )
            settings = model_learner.under(source.models[learner.model], source.task.budget)
            models[name] = settings, model_learner.identity(settings)
        if learner.vqa:
            answerer = vqa_learner.under(source.vqa[learner.vqa], source.task.budget)
            answerers[name] = answerer, vqa_learner.identity(answerer)
    extractors = [Extractor(storage, each, source.decoder, source.task.budget) for each in encoders]
    return Roster(source.task, extractors, models, answerers)
