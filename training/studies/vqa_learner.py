"""A learner that answers questions about pictures: a model that is built and trained anew for every trial."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.images import decoders
from pipeline.manifest.arms import Choice
from pipeline.settings.task import Budget, Task
from pipeline.settings.vqa import VqaModel
from pipeline.trials.trials import EpochLosses, Setting
from training.augment import questions as rules
from training.data.features import Features
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.data.questions import Questions
from training.learners import vqa
from training.learners.checkpoint import Checkpoint
from training.learners.descent import evaluation_steps
from training.learners.divergence import located
from training.learners.inputs import chunks
from training.learners.vqa_inputs import VqaInputs
from training.measures.metrics import Predictions
from training.studies import corpus, vqa_training
from training.studies.vqa_corpus import VqaCorpus
from training.studies.vqa_training import Course, Stage, alarmed, class_weights

if TYPE_CHECKING:
    import torch

    from training.vqa.model import Answerer

VERSION = 2


def under(settings: VqaModel, budget: Budget) -> VqaModel:
    """The settings with the batch and the steps of a task's budget, which are the same for all learners."""
    return settings.model_copy(update={"batch": budget.batch, "steps": budget.steps})


def identity(settings: VqaModel) -> dict[str, Any]:
    """All that decides a trial of the model but the data, for its setting. Raises ModelError for missing weights."""
    from training.vqa import build

    versions = [*vqa_training.VERSIONS, rules.VERSION]
    return {**build.identity(settings), "kind": settings.name, "training": versions}


def size(settings: VqaModel, answers: int) -> dict[str, int]:
    """The `parameters` of a model for so many answers, adapters included, and how many of them are `trained`.

    Of the adapters `adapted` counts the modules, and `without_gradient` those that no gradient reaches.
    """
    from training.vqa import build, lora

    model = build.build(settings, answers, 0)
    adapted = lora.add(model, settings.lora, 0) if settings.lora else []
    dead = lora.dead(model) if adapted else []
    counts = lora.counts(model)
    return {
        "parameters": counts["parameters"],
        "trained": counts["trained"],
        "adapted": len(adapted),
        "without_gradient": len(dead),
    }


@dataclass(frozen=True)
class VqaTest:
    """The questions of the test set. `features` are those of a frozen image tower, `pixels` the pictures, in chunks."""

    questions: Questions
    features: "Callable[[], Iterable[torch.Tensor]]"
    pixels: "Callable[[], Iterable[torch.Tensor]]"
    _read: dict[bool, vqa.Texts] = field(default_factory=dict)

    @classmethod
    def of(cls, inputs: VqaInputs, choice: Choice, test: HeldOut, own: Features, decoder: decoders.Name) -> "VqaTest":
        """Of a test set. `own` has the features of its pictures."""
        assert test.questions is not None
        pixels = corpus.test_pixels(inputs.storage, inputs.model.pictures, choice, test, decoder)
        return cls(test.questions, lambda: chunks(own.views[:, 0]), pixels)

    def predict(self, model: "Answerer", inputs: VqaInputs) -> Predictions:
        """The number of the most probable answer to each question, int64 [questions]."""
        texts, place = np.unique(np.array(self.questions.question, object), return_inverse=True)
        if model.text_frozen not in self._read:
            self._read[model.text_frozen] = inputs.texts(texts.tolist(), model.text_frozen)
        read = self._read[model.text_frozen]
        pictures = self.features if model.image_frozen else self.pixels
        return vqa.predict(model, pictures, self.questions.picture, read, place.reshape(-1))


@dataclass(frozen=True)
class VqaLearner:
    """A model's settings under the budget, and all that it reads."""

    settings: VqaModel
    corpus: VqaCorpus
    test: VqaTest

    def train(
        self, task: Task, known: Pool, setting: Setting, drawn: Mapping[str, npt.NDArray[np.int64]]
    ) -> tuple[Mapping[int, Predictions], tuple[EpochLosses, ...]]:
        """Train on the setting's arm; the predictions for the test set, by the number of steps. No losses are kept.

        A model with frozen towers is evaluated along the way, any other one at the end of each stage. A killed trial
        resumes at its checkpoint. Predictions that have collapsed to one or two answers are a warning.
        """
        from training.vqa import build

        asked, storage = self.corpus, self.corpus.inputs.storage
        answers, rows = asked.vocabulary.answers, drawn[setting.arm]
        model = build.build(self.settings, len(answers), setting.seed)
        inputs = VqaInputs(model, asked.inputs.identity, storage)
        key = f"checkpoints/{setting.key.replace('/', '-')}"
        stages: tuple[Stage, ...] = ("head", "whole")
        saved = {stage: Checkpoint(storage, f"{key}-{stage}.safetensors") for stage in stages}

        def data(stage: Stage) -> vqa.Data:
            return asked.data(model, rows, 2 * setting.seed + (stage == "whole"), setting.augmented)

        truth = asked.vocabulary.encode(self.test.questions.answers)
        with located(setting.description):
            weights = class_weights(self.settings, asked.targets(rows), answers)
            course = Course(model, data, weights, saved, setting.seed)
            looks = self._looks(model, course)
            predict = partial(self.test.predict, model, inputs)
            evaluate = alarmed(predict, truth, answers, setting.description, len(looks) // 2)
            found, _ = course.run(looks, evaluate)
        return found, ()

    def _looks(self, model: "Answerer", course: Course) -> list[int]:
        steps = self.settings.steps
        if self.settings.lora is None and model.image_frozen and model.text_frozen:
            return evaluation_steps(steps)
        return sorted({course.alone, steps} - {0})
