"""The training of a model that answers questions: the head alone, adapters alone, or one after the other."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrainingError
from pipeline.progress import silent_step
from pipeline.settings.vqa import VqaModel
from training.data import order
from training.learners import checkpoint, descent, training, vqa, vqa_inputs
from training.learners.checkpoint import Checkpoint, Trainee
from training.learners.history import History
from training.learners.training import Training
from training.learners.vqa import AnswerLoss, Batch, Data
from training.measures.collapse import collapse

if TYPE_CHECKING:
    from training.vqa.model import Answerer

VERSIONS = (training.VERSION, order.VERSION, vqa.VERSION, vqa_inputs.VERSION, checkpoint.VERSION)
"""Of the modules that decide what a training computes."""

log = logging.getLogger(__name__)

Answers = npt.NDArray[np.int64]

Stage = Literal["head", "whole"]
"""What trains first where adapters come later: the head alone; and all that the settings name."""


@dataclass(frozen=True)
class Course:
    """A model, and what it trains on: `data` gives it for a stage, whose towers may be frozen or not.

    `checkpoints` are those of both stages. `weights` are those of answers in the loss, float32 [answers].
    """

    model: "Answerer"
    data: Callable[[Stage], Data]
    weights: npt.NDArray[np.float32] | None
    checkpoints: Mapping[Stage, Checkpoint]
    seed: int

    @property
    def alone(self) -> int:
        """The number of steps in which the head trains alone, before the adapters are there."""
        settings = self.model.settings
        return round(settings.lora.after * settings.steps) if settings.lora else 0

    def run(
        self, evaluate_at: Collection[int], evaluate: Callable[[], Answers]
    ) -> tuple[dict[int, Answers], Sequence[History]]:
        """Train all steps; what `evaluate` gives by the number of steps, and the history of each stage.

        A killed run resumes at its last checkpoint, and takes the same steps. Raises TrainingError for a loss or
        weights that are not finite, StorageError on a full disk.
        """
        from training.vqa import lora

        settings, found, histories = self.model.settings, dict[int, Answers](), []
        if self.alone:
            looks = {each for each in evaluate_at if each <= self.alone}
            first, history = self._training("head", self.alone).run(looks, lambda: [evaluate()], silent_step)
            found |= {step: look[0] for step, look in first.items()}
            histories.append(history)
        if settings.lora:
            lora.add(self.model, settings.lora, self.seed)
        looks = {each - self.alone for each in evaluate_at if each > self.alone}
        rest, history = self._training("whole", settings.steps - self.alone).run(
            looks, lambda: [evaluate()], silent_step
        )
        found |= {step + self.alone: look[0] for step, look in rest.items()}
        for saved in self.checkpoints.values():
            saved.remove()
        return found, [*histories, history]

    def _training(self, stage: Stage, steps: int) -> Training[Batch]:
        import torch

        from pipeline.models import device
        from training.vqa.model import parameter_groups

        model, data = self.model.to(device.kind()), self.data(stage)
        weights = None if self.weights is None else torch.from_numpy(self.weights)
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[model.settings.optimizer]
        trainee = Trainee(model, kind(parameter_groups(model), fused=True))
        share = partial(_share, model.settings, data.order.epoch, steps)
        return Training(
            trainee, AnswerLoss(model, weights), data, None, steps, share, self.checkpoints[stage], stage == "head"
        )


def class_weights(
    settings: VqaModel, targets: npt.NDArray[np.int64], answers: Sequence[str]
) -> npt.NDArray[np.float32] | None:
    """The weight of each answer in the loss, float32 [answers], by the `targets` that train; None for equal ones.

    Balanced weights are n / (distinct * count), as scikit-learn has them; an answer that no row has weighs 0.
    Raises TrainingError if there is one answer only, for a weight of an unknown answer, and if nothing weighs more
    than 0.
    """
    counts = np.bincount(targets, minlength=len(answers))
    there = counts > 0
    if not len(targets):
        raise TrainingError("no question that trains has an answer of the vocabulary: raise task.vqa.answers")
    if there.sum() < 2:
        only = answers[int(counts.argmax())]
        raise TrainingError(f"all {len(targets):,} questions have the answer {only!r}: there is nothing to tell apart")
    if settings.class_weights == "none":
        return None
    if settings.class_weights == "balanced":
        weights = len(targets) / (there.sum() * counts.clip(min=1)) * there
        return np.asarray(weights, np.float32)
    number = {answer: place for place, answer in enumerate(answers)}
    weights = np.ones(len(answers))
    for answer, weight in settings.class_weights.items():
        if answer not in number:
            raise TrainingError(f"class_weights names {answer!r}, which is no answer of the vocabulary: remove it")
        weights[number[answer]] = weight
    if not weights[there].any():
        raise TrainingError("all answers that train have the class weight 0: raise one of class_weights")
    return np.asarray(weights, np.float32)


def alarmed(
    evaluate: Callable[[], Answers], truth: Answers, answers: Sequence[str], what: str, early: int = 0
) -> Callable[[], Answers]:
    """`evaluate`, which also warns, once, if its predictions have collapsed to one or two answers.

    A model begins so: the first `early` evaluations are no alarm.
    """
    seen, warned = 0, False

    def evaluated() -> Answers:
        nonlocal seen, warned
        found, seen = evaluate(), seen + 1
        if seen > early and not warned and (said := collapse(found, truth, answers)):
            log.warning("%s has collapsed: %s", what, said)
            warned = True
        return found

    return evaluated


def _share(settings: VqaModel, epoch: int, steps: int, history: History, done: int) -> float:
    """The share of the peak learning rates after so many steps."""
    if settings.schedule == "cosine":
        return descent.schedule(done / steps, settings.warmup)
    return float(settings.decay ** (done // (epoch * settings.decay_epochs)))
