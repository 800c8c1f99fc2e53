"""A learner that is a model: a dual encoder that is built and trained anew for every trial."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.progress import silent_step
from pipeline.settings.model import Model
from pipeline.settings.task import Budget, Task
from pipeline.trials.trials import EpochLosses, Setting
from training.data.heldout import HeldOut
from training.data.order import Drawn
from training.data.pairs import Pairs
from training.data.pool import Pool
from training.learners.checkpoint import Checkpoint
from training.learners.descent import evaluation_steps
from training.learners.divergence import located
from training.learners.inputs import Inputs, chunks, embed
from training.measures import matching
from training.measures.metrics import Predictions, Units
from training.studies import dual_training
from training.studies.corpus import Corpus
from training.studies.measuring import AnyMeasure, measure_of, spare, undrawn

if TYPE_CHECKING:
    import torch

    from training.dual.encoder import DualEncoder

VERSION = 3

_CHUNK = 256


def under(settings: Model, budget: Budget) -> Model:
    """The settings with the batch and the steps of a task's budget, which are the same for all learners."""
    return settings.model_copy(update={"batch": budget.batch, "steps": budget.steps})


def identity(settings: Model) -> dict[str, Any]:
    """All that decides a trial of the model but the data, for its setting. Raises ModelError for missing weights."""
    from training.dual import build

    return {**build.identity(settings), "kind": settings.name, "training": [*dual_training.VERSIONS]}


class Texts(NamedTuple):
    """What captions or classes are compared by: `values` of `Inputs.texts`; those of a class begin at `starts`.

    `cut` of them are longer than the text tower reads.
    """

    values: npt.NDArray[Any]
    starts: npt.NDArray[np.int64] | None = None
    cut: int = 0

    def embed(self, model: "DualEncoder") -> Units:
        """[texts, dim]; of a class the normalised mean of its wordings."""
        units = embed(model, model.text, chunks(self.values))
        if self.starts is None:
            return units
        means = np.add.reduceat(units, self.starts)
        unit: Units = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit


class Evaluation(NamedTuple):
    """Pictures in chunks, and the texts that they are compared with."""

    measure: AnyMeasure
    pictures: "Callable[[], Iterable[torch.Tensor]]"
    texts: Texts

    def predict(self, model: "DualEncoder") -> Predictions:
        """By cosines, as the measure has it."""
        return self.measure.predict(  # type: ignore[union-attr]  # the source file would have been refused
            embed(model, model.visual, self.pictures()), self.texts.embed(model)
        )


@dataclass(frozen=True)
class ModelLearner:
    """A model's settings under the budget, and all that it reads.

    `inputs` belongs to a model under any seed: towers that are frozen have the same features under all of them.
    """

    settings: Model
    inputs: Inputs
    pairs: Corpus
    test: Evaluation

    def train(
        self, task: Task, known: Pool, setting: Setting, drawn: Mapping[str, npt.NDArray[np.int64]]
    ) -> tuple[Mapping[int, Predictions], tuple[EpochLosses, ...]]:
        """Train on the setting's arm; the predictions for the test set, by the number of steps, and the losses.

        The validation loss is of pairs that the seed did not draw, with the captions that they have in the pool. A
        model with a tower that trains is evaluated once, at the end. A killed trial resumes at its checkpoint.
        """
        from training.dual import build

        model = build.build(self.settings, setting.seed)
        inputs = Inputs(model, self.inputs.identity, self.inputs.storage)
        sets, steps = [self.test], self.settings.steps
        needed = task.kind == "match" or self.settings.schedule == "plateau"
        rest = (undrawn if needed else spare)(task, known, drawn["raw"], setting.seed)
        if task.kind == "match":
            sets.append(self._validation(task, known, rest, setting.seed))

        def evaluate() -> list[Predictions]:
            return matching.subtract_threshold([each.predict(model) for each in sets], sets[-1].measure)

        versions = 1 + task.budget.augmented_views if setting.augmented else 1
        rows = dual_training.Drawn(drawn[setting.arm], rest, setting.seed, versions, known.repeats)
        saved = Checkpoint(inputs.storage, f"checkpoints/{setting.key.replace('/', '-')}.safetensors")
        looks = evaluation_steps(steps) if model.visual.frozen and model.text.frozen else [steps]
        with located(setting.description, "lower the learning rates of the model"), dual_training.threads(self.pairs):
            found, history = dual_training.prepare(inputs, self.pairs, rows, saved).run(looks, evaluate, silent_step)
        saved.remove()
        losses = (EpochLosses(each.number, each.step, each.train_loss, each.validation_loss) for each in history.epochs)
        return {step: predictions[0] for step, predictions in found.items()}, tuple(losses)

    def _validation(self, task: Task, known: Pool, rows: npt.NDArray[np.int64], seed: int) -> Evaluation:
        """Pairs that were not drawn, half of them with the caption of another, for the threshold of a match."""
        picture, first, place = np.unique(
            known.table["picture"].to_numpy()[rows], return_index=True, return_inverse=True
        )
        number, text = np.unique(self.pairs.texts.place[rows, 0], return_inverse=True)
        pairs = Pairs((), place.reshape(-1), text.reshape(-1), np.ones(len(rows), bool)).half_mismatched(seed)
        measure = measure_of(task, HeldOut((), np.zeros(len(picture), np.int16), 0, 0, pairs=pairs))
        return Evaluation(measure, lambda: self._pictures(rows[first]), Texts(self.pairs.texts.values[number]))

    def _pictures(self, rows: npt.NDArray[np.int64]) -> "Iterator[torch.Tensor]":
        parts = [rows[at : at + _CHUNK] for at in range(0, len(rows), _CHUNK)]
        return self.pairs.images.read(Drawn(step, part, np.zeros_like(part)) for step, part in enumerate(parts))
