"""Training of a dual encoder on pictures and their captions: batches, losses by epoch, evaluations, checkpoints.

A tower that is frozen reads stored features, and one that trains reads pixels or tokens. The loop does not know which.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrainingError
from pipeline.progress import StepProgress
from pipeline.settings.model import Model
from training.data.order import Drawn, Order
from training.data.streams import Stream
from training.learners import descent, plateau
from training.learners.checkpoint import Checkpoint, Trainee
from training.learners.history import History

if TYPE_CHECKING:
    import torch

VERSION = 1

NAMED = 3
"""The number of pairs that an error names by their uids, besides the number of the others."""

Look = Sequence[npt.NDArray[Any]]
"""What an evaluation gives: as many arrays at every look."""


class Batch(NamedTuple):
    """The inputs of the two towers, or of their heads, [batch, ...], and the rows that they come from.

    `pictures`, int64 [batch], numbers the pictures: pairs with the same number show the same one.
    """

    drawn: Drawn
    images: "torch.Tensor"
    texts: "torch.Tensor"
    pictures: "torch.Tensor"


class PairLoss(Protocol):
    """A model's loss of a batch, and its gradient."""

    def backward(self, batch: Batch) -> float:
        """Add the gradient of the loss in training mode, and return the loss. It may be NaN."""

    def value(self, batch: Batch) -> float:
        """The loss in evaluation mode."""

    def clamp(self) -> None:
        """Limit what has a limit, after a step."""

    def broken(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """Which pairs have an embedding that is not finite: [batch]."""


@dataclass(frozen=True)
class Data:
    """Pairs to train or to validate on: both sides, the number of each row's picture, its uid, and the order."""

    images: Stream
    texts: Stream
    pictures: npt.NDArray[np.int64]
    uid: Callable[[int], str]
    order: Order

    def batches(self, steps: range) -> Iterator[Batch]:
        """The batches of these steps."""
        import torch

        images, texts = (side.read(self.order.steps(steps)) for side in (self.images, self.texts))
        for drawn in self.order.steps(steps):
            yield Batch(drawn, next(images), next(texts), torch.from_numpy(self.pictures[drawn.rows]))


@dataclass(frozen=True)
class Training:
    """A model, its loss, and the pairs. The schedule "plateau" needs `validation` pairs.

    With the same seed the same steps are taken, also after a kill: `checkpoint` is where they resume.
    """

    trainee: Trainee
    loss: PairLoss
    data: Data
    validation: Data | None
    steps: int
    settings: Model
    checkpoint: Checkpoint

    def run(
        self, evaluate_at: Collection[int], evaluate: Callable[[], Look], progress: StepProgress
    ) -> tuple[Mapping[int, Look], History]:
        """Train. What `evaluate` gives by the number of steps at each of `evaluate_at`, and the losses.

        Raises TrainingError for a loss or weights that are not finite: it names the step and pairs, and the last
        checkpoint is kept. Raises StorageError on a full disk: the same.
        """
        import torch

        history, looks = self._resumed()
        numbers, rate = range(history.step, self.steps), descent.Rate(self.trainee.optimizer, self._share(history))
        progress(history.step, self.steps)
        with torch.random.fork_rng(devices=[]):
            clock = time.perf_counter()
            for step in descent.descend(
                self.trainee.optimizer, self._backward(history), self.data.batches(numbers), rate, numbers
            ):
                self.loss.clamp()
                history.step = step
                history.seconds += time.perf_counter() - clock
                with descent.at_step(step, self.steps):
                    if step % self.data.order.epoch == 0 or step == self.steps:
                        self._end_epoch(history)
                    if step in evaluate_at:
                        looks[step] = evaluate()
                    if self.checkpoint.due() and step < self.steps:
                        self.checkpoint.save(self.trainee, history.to_json(), _flat(looks))
                progress(step, self.steps)
                clock = time.perf_counter()
        return looks, history

    def _resumed(self) -> tuple[History, dict[int, Look]]:
        found = self.checkpoint.restore(self.trainee)
        return (History.from_json(found[0]), _looks(found[1])) if found else (History(), {})

    def _share(self, history: History) -> Callable[[int], float]:
        known = self.settings
        if known.schedule == "plateau":
            return lambda done: plateau.share(history.validation_losses, known.patience, known.factor)
        return lambda done: descent.schedule(done / self.steps, known.warmup)

    def _backward(self, history: History) -> Callable[[Batch], None]:
        import torch

        def backward(batch: Batch) -> None:
            torch.manual_seed(_seed(self.data.order.seed, batch.drawn.step))  # of dropout
            loss = self.loss.backward(batch)
            if not np.isfinite(loss):
                raise TrainingError(f"the loss is {loss} {self._blamed(batch)}")
            history.losses.append(loss)

        return backward

    def _blamed(self, batch: Batch) -> str:
        """The pairs whose embeddings are not finite, or else all pairs of the batch, by their first uids."""
        broken = self.loss.broken(batch)
        rows = batch.drawn.rows[broken] if broken.any() else batch.drawn.rows
        more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
        return f"for the pairs {', '.join(self.data.uid(row) for row in rows[:NAMED].tolist())}{more}"

    def _end_epoch(self, history: History) -> None:
        began = time.perf_counter()
        if self.validation is None:
            history.end_epoch(None)
            return
        batches = self.validation.batches(range(self.validation.order.epoch))
        loss = float(np.mean([self.loss.value(batch) for batch in batches]))
        if not np.isfinite(loss):
            raise TrainingError(f"the validation loss is {loss}")
        history.end_epoch(loss)
        history.validation_seconds += time.perf_counter() - began


def _seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, VERSION, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _flat(looks: Mapping[int, Look]) -> dict[str, "torch.Tensor"]:
    """The arrays of all looks, by step and position, for a checkpoint."""
    import torch

    return {
        f"look {step} {place}": torch.from_numpy(np.ascontiguousarray(array))
        for step, look in looks.items()
        for place, array in enumerate(look)
    }


def _looks(arrays: Mapping[str, "torch.Tensor"]) -> dict[int, Look]:
    """The reverse of `_flat`."""
    looks: dict[int, list[npt.NDArray[Any]]] = {}
    for step, place in sorted(tuple(map(int, name.split()[1:])) for name in arrays):
        looks.setdefault(step, []).append(arrays[f"look {step} {place}"].numpy())
    return dict(looks)
