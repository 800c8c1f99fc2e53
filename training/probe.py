"""The learner: multinomial logistic regression on frozen features, by a fixed number of AdamW steps.

Features are standardised by the training arm's own mean and standard deviation. The weights start at zero, so that the
seed decides only which pairs, and which of their versions, each step sees.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pipeline.task import Budget

LEARNER = "linear"
"""The name of this learner in trials."""

VERSION = 1
"""Raised whenever the same budget, arm and seed would give other predictions."""

WARM_UP = 0.05
"""The share of the steps in which the learning rate rises to its height; in the rest it falls to 0 by a cosine."""

Views = npt.NDArray[np.float16]
"""Features [pictures, versions, dim], the plain version first."""

_CHUNK = 4096


def predictions(
    views: Views,
    labels: npt.NDArray[np.int16],
    heldout: Views,
    classes: int,
    budget: Budget,
    seed: int,
) -> npt.NDArray[np.int16]:
    """Train on `views`, aligned with `labels`, and classify the plain versions of `heldout`.

    A pair that was drawn twice is there twice. Each step sees one version of a pair, any of those in `views`.
    """
    import torch

    mean, deviation = _statistics(views)
    generator = np.random.default_rng([seed, VERSION])
    weights = torch.zeros(views.shape[2], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.AdamW(
        [{"params": [weights], "weight_decay": budget.weight_decay}, {"params": [bias], "weight_decay": 0.0}],
        lr=budget.learning_rate,
    )
    with _one_thread():
        for step in range(budget.steps):
            rows = generator.integers(len(views), size=budget.batch)
            version = generator.integers(views.shape[1], size=budget.batch)
            batch = torch.from_numpy((views[rows, version].astype(np.float32) - mean) / deviation)
            for group in optimizer.param_groups:
                group["lr"] = budget.learning_rate * schedule(step / budget.steps)
            loss = torch.nn.functional.cross_entropy(batch @ weights + bias, torch.from_numpy(labels[rows].astype(int)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        scores = [
            (((heldout[at : at + _CHUNK, 0].astype(np.float32) - mean) / deviation) @ weights.detach().numpy())
            + bias.detach().numpy()
            for at in range(0, len(heldout), _CHUNK)
        ]
    chosen: npt.NDArray[np.int16] = np.concatenate(scores).argmax(axis=1).astype(np.int16)
    return chosen


def schedule(progress: float) -> float:
    """The share of the learning rate at a `progress` of 0 to 1."""
    if progress < WARM_UP:
        return (progress + 1e-3) / (WARM_UP + 1e-3)
    return 0.5 * (1 + float(np.cos(np.pi * (progress - WARM_UP) / (1 - WARM_UP))))


def _statistics(views: Views) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation of each feature over all versions; 1 for a feature that never changes."""
    total = np.zeros(views.shape[2])
    squares = np.zeros(views.shape[2])
    for at in range(0, len(views), _CHUNK):
        chunk = views[at : at + _CHUNK].astype(np.float64)
        total += chunk.sum(axis=(0, 1))
        squares += (chunk**2).sum(axis=(0, 1))
    count = views.shape[0] * views.shape[1]
    mean = total / count
    variance = squares / count - mean**2
    deviation = np.sqrt(np.where(variance > 1e-10, variance, 1.0))
    return mean.astype(np.float32), deviation.astype(np.float32)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """These products are small: more threads only wait for each other, and could add in another order."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
