"""Optimisation that all learners share: AdamW, warm-up and cosine."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline.settings.task import Budget

if TYPE_CHECKING:
    import torch


WARM_UP = 0.05
"""The share of the steps in which the learning rate rises to its height; in the rest it falls to 0 by a cosine."""


def descent(model: "torch.nn.Module", budget: Budget) -> "torch.optim.AdamW":
    """Weights decay, biases and scales do not."""
    import torch

    decay = {True: budget.weight_decay, False: 0.0}
    groups = [
        {"params": [each for each in model.parameters() if (each.ndim > 1) == matrix], "weight_decay": decay[matrix]}
        for matrix in decay
    ]
    return torch.optim.AdamW(groups, lr=budget.learning_rate, fused=True)


def descend(optimizer: "torch.optim.Optimizer", loss: "torch.Tensor", budget: Budget, step: int) -> None:
    """One step of the budget's, at its learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = budget.learning_rate * schedule(step / budget.steps)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def schedule(progress: float) -> float:
    """The share of the learning rate at a `progress` of 0 to 1."""
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return 0.5 * (1 + float(np.cos(np.pi * (progress - WARM_UP) / (1 - WARM_UP))))


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """These products are small: more threads only wait for each other, and could add in another order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
