"""Training of a model on batches of pairs: losses by epoch, evaluations, and checkpoints.

The loop knows neither the kind of model nor what a batch holds. Dual encoders and models that answer questions share
it.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrainingError
from pipeline.progress import StepProgress
from training.data.order import Drawn, Order
from training.learners import descent
from training.learners.checkpoint import Checkpoint, Trainee
from training.learners.history import History

if TYPE_CHECKING:
    import torch

VERSION = 1

NAMED = 3
"""The number of pairs that an error names by their uids, besides the number of the others."""

Look = Sequence[npt.NDArray[Any]]
"""What an evaluation gives: as many arrays at every look."""


class Drawing(Protocol):
    """A batch, of any content."""

    @property
    def drawn(self) -> Drawn:
        """The rows that it comes from."""


B = TypeVar("B", bound=Drawing)
D = TypeVar("D", bound=Drawing, covariant=True)
L = TypeVar("L", bound=Drawing, contravariant=True)


class Loss(Protocol[L]):
    """A model's loss of a batch, and its gradient."""

    def backward(self, batch: L) -> float:
        """Add the gradient of the loss in training mode, and return the loss. It may be NaN."""

    def value(self, batch: L) -> float:
        """The loss in evaluation mode."""

    def clamp(self) -> None:
        """Limit what has a limit, after a step."""

    def broken(self, batch: L) -> npt.NDArray[np.bool_]:
        """Which pairs have an output that is not finite: [batch]."""


class Data(Protocol[D]):
    """What is trained or validated on."""

    @property
    def order(self) -> Order:
        """Which rows a step sees."""

    @property
    def uid(self) -> Callable[[int], str]:
        """The uid of a row."""

    def batches(self, steps: range) -> Iterator[D]:
        """The batches of these steps."""


@dataclass(frozen=True)
class Training(Generic[B]):
    """A model, its loss, and what it trains on.

    `share` gives the share of the peak learning rates after so many steps. With the same seed the same steps are taken,
    also after a kill: `checkpoint` is where they resume. With `keep` one of the last step is left, for a training that
    goes on from there.
    """

    trainee: Trainee
    loss: Loss[B]
    data: Data[B]
    validation: Data[B] | None
    steps: int
    share: Callable[[History, int], float]
    checkpoint: Checkpoint
    keep: bool = False

    def run(
        self, evaluate_at: Collection[int], evaluate: Callable[[], Look], progress: StepProgress
    ) -> tuple[Mapping[int, Look], History]:
        """Train. What `evaluate` gives by the number of steps at each of `evaluate_at`, and the losses.

        Raises TrainingError for a loss or weights that are not finite: it names the step and pairs. Raises StorageError
        on a full disk. The last checkpoint is kept in both cases.
        """
        import torch

        history, looks = self._resumed()
        numbers, rate = (
            range(history.step, self.steps),
            descent.Rate(self.trainee.optimizer, partial(self.share, history)),
        )
        progress(history.step, self.steps)
        with self.checkpoint.named(), torch.random.fork_rng(devices=[]):
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
                    if self.keep if step == self.steps else self.checkpoint.due():
                        self.checkpoint.save(self.trainee, history.to_json(), _flat(looks))
                progress(step, self.steps)
                clock = time.perf_counter()
        return looks, history

    def _resumed(self) -> tuple[History, dict[int, Look]]:
        found = self.checkpoint.restore(self.trainee)
        return (History.from_json(found[0]), _looks(found[1])) if found else (History(), {})

    def _backward(self, history: History) -> Callable[[B], None]:
        import torch

        def backward(batch: B) -> None:
            torch.manual_seed(_seed(self.data.order.seed, batch.drawn.step))  # of dropout
            loss = self.loss.backward(batch)
            if not np.isfinite(loss):
                raise TrainingError(f"the loss is {loss} {self._blamed(batch)}")
            history.losses.append(loss)

        return backward

    def _blamed(self, batch: B) -> str:
        """The pairs whose outputs are not finite, or else all pairs of the batch, by their first uids."""
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
