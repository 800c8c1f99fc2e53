"""The training loop that all learners share, and its parts: batches, AdamW, learning-rate schedule, evaluations."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrainingError
from pipeline.models.device import one_thread
from pipeline.settings.task import Budget
from training.learners.divergence import check_loss

if TYPE_CHECKING:
    import torch

Batch = TypeVar("Batch")
Result = TypeVar("Result")

WARM_UP = 0.05
"""The share of the steps in which the learning rate rises to its peak. In the rest it falls to 0 by a cosine."""

LOOKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""The shares of the steps after which a learner is evaluated for its learning curve. It learns nothing from that."""


class Sample(NamedTuple):
    """The pairs of a batch, by their rows, and the version of each that is seen: int64 [batch]."""

    rows: npt.NDArray[np.int64]
    versions: npt.NDArray[np.int64]


def fit(
    optimizer: "torch.optim.Optimizer",
    backward: Callable[[Batch], None],
    batches: Iterable[Batch],
    evaluate_at: Collection[int],
    evaluate: Callable[[], Result],
) -> dict[int, Result]:
    """Train with one step a batch. Returns what `evaluate` gives, by the number of steps at each of `evaluate_at`.

    Training ends after the last evaluation. `backward` adds the gradient of a batch's loss to the parameters: at once,
    in parts or in another precision. `schedule` gives the share of each parameter group's peak learning rate.
    Raises ValueError if the batches end before the last evaluation. A TrainingError of `backward` or `evaluate` names
    the step.
    """
    steps, step, results = max(evaluate_at), 0, {}
    rate = Rate(optimizer, lambda done: schedule(done / steps))
    for step in descend(optimizer, backward, batches, rate, range(steps)):
        if step in evaluate_at:
            with at_step(step, steps):
                results[step] = evaluate()
    if step < steps:
        raise ValueError(f"the batches end after {step} of {steps} steps")
    return results


class Rate:
    """Sets the learning rate of each parameter group to a `share` of its peak, by the number of steps done.

    The peaks are the rates that the optimizer has when this is made.
    """

    def __init__(self, optimizer: "torch.optim.Optimizer", share: Callable[[int], float]) -> None:
        self._groups, self._share = optimizer.param_groups, share
        self._peaks = [group["lr"] for group in optimizer.param_groups]

    def set(self, done: int) -> None:
        """For the step after so many."""
        share = self._share(done)
        for group, peak in zip(self._groups, self._peaks, strict=True):
            group["lr"] = peak * share


def descend(
    optimizer: "torch.optim.Optimizer",
    backward: Callable[[Batch], None],
    batches: Iterable[Batch],
    rate: Rate,
    numbers: range,
) -> Iterator[int]:
    """One step a batch. Yields how many steps were done after each: `numbers` counts those before it.

    `numbers` ends at the number of all steps, which the step of a TrainingError is named with.
    """
    for done, batch in zip(numbers, batches, strict=False):
        rate.set(done)
        optimizer.zero_grad()
        with at_step(done + 1, numbers.stop):
            backward(batch)
        optimizer.step()
        yield done + 1


@contextlib.contextmanager
def at_step(step: int, steps: int) -> Iterator[None]:
    """A TrainingError that is raised inside names the step."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{error} at step {step} of {steps}") from error


def at_once(loss: Callable[[Batch], "torch.Tensor"]) -> Callable[[Batch], None]:
    """The `backward` of `fit` for a whole batch: the gradient of its `loss`, which must be finite."""

    def backward(batch: Batch) -> None:
        check_loss(loss(batch)).backward()  # type: ignore[no-untyped-call]

    return backward


def samples(pairs: int, versions: int, size: int, generator: np.random.Generator) -> Iterator[Sample]:
    """Batches without end, each `size` of the pairs with replacement, and one of the versions of each."""
    while True:
        rows = generator.integers(pairs, size=size)
        yield Sample(rows, generator.integers(versions, size=size))


def adamw(model: "torch.nn.Module", budget: Budget) -> "torch.optim.AdamW":
    """Matrices decay, biases and scales do not."""
    import torch

    decay = {True: budget.weight_decay, False: 0.0}
    groups = [
        {"params": [each for each in model.parameters() if (each.ndim > 1) == matrix], "weight_decay": decay[matrix]}
        for matrix in decay
    ]
    return torch.optim.AdamW(groups, lr=budget.learning_rate, fused=True)


def schedule(progress: float, warm_up: float = WARM_UP) -> float:
    """The share of the peak learning rate, 0 to 1, at a `progress` of 0 to 1."""
    if progress < warm_up:
        return (progress + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + float(np.cos(np.pi * (progress - warm_up) / (1 - warm_up))))


def evaluation_steps(steps: int) -> list[int]:
    """After how many of so many steps a learner is evaluated, ascending; the last is `steps`."""
    return sorted({max(1, round(share * steps)) for share in LOOKS})


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """One thread, and a random state of torch's of its own: the same seed gives the same bits."""
    import torch

    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
