"""The learners: a small head on frozen features, trained by a fixed number of AdamW steps.

Features are standardised by the training arm's own mean and standard deviation. The seed decides which pairs, and which
of their versions, each step sees, and where a head with hidden layers begins; the linear one begins at zero.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.settings.task import Budget
from training.learners.descent import descend, descent, one_thread

if TYPE_CHECKING:
    import torch

VERSION = 3
"""Raised whenever the same head, budget, arm and seed would give other predictions."""

LOOKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""The shares of the steps after which a learner is tested, for its learning curve; it learns nothing from that."""


HIDDEN, DROPPED = 256, 0.5
"""Units of the MLP's hidden layer, and the share of them that a training step leaves out."""

Views = npt.NDArray[np.float16]
"""Features [pictures, versions, dim], the plain version first."""

Said = npt.NDArray[np.int16] | npt.NDArray[np.float64]
"""Class numbers, or numbers."""

_CHUNK = 4096


class Learnt:
    """What is learnt of pairs: class numbers, by cross-entropy; or, where `classes` is 0, numbers, by squared error.

    Numbers are standardised by their own mean and deviation. `truth`, [pairs], is what a network is to say of each.
    """

    def __init__(self, targets: Said, classes: int) -> None:
        import torch

        self._classes = classes
        self._middle = 0.0 if classes else float(targets.mean())
        self._spread = 1.0 if classes else float(targets.std()) or 1.0
        standard = targets.astype(np.int64) if classes else ((targets - self._middle) / self._spread).astype(np.float32)
        self.truth = torch.from_numpy(standard)

    @property
    def outputs(self) -> int:
        """Of a network that learns it."""
        return self._classes or 1

    def loss(self, scores: "torch.Tensor", wanted: "torch.Tensor", reduction: str = "mean") -> "torch.Tensor":
        """Of scores [pairs, outputs], where `wanted` are the rows of `truth`."""
        from torch.nn.functional import cross_entropy, mse_loss

        if self._classes:
            return cross_entropy(scores, wanted, reduction=reduction)
        return mse_loss(scores[:, 0], wanted, reduction=reduction)

    def said(self, scores: "torch.Tensor") -> Said:
        """What scores [pictures, outputs] mean: classes, or numbers as the targets were."""
        if self._classes:
            chosen: npt.NDArray[np.int16] = scores.argmax(dim=1).numpy().astype(np.int16)
            return chosen
        numbers: npt.NDArray[np.float64] = scores[:, 0].double().numpy() * self._spread + self._middle
        return numbers


def predictions(
    head: str,
    views: Views,
    targets: Said,
    heldout: Views,
    classes: int,
    budget: Budget,
    seed: int,
) -> dict[int, Said]:
    """Train a head of HEADS on `views`, aligned with `targets`; what it says of the plain versions of `heldout`.

    By the number of steps at each of LOOKS: the last is what was learnt. Targets are learnt as `Learnt` says. A pair
    that was drawn twice is there twice. Each step sees one version of a pair, any of those in `views`.
    """
    import torch

    pictures, versions, dim = views.shape
    mean, deviation = (torch.from_numpy(each) for each in statistics(views))
    learnt = Learnt(targets, classes)
    generator = np.random.default_rng([seed, VERSION])
    flat, looks = torch.from_numpy(views.reshape(pictures * versions, dim)), steps(budget)

    def said(model: "torch.nn.Module") -> Said:
        model.eval()
        with torch.inference_mode():
            plain = (torch.from_numpy(heldout[at : at + _CHUNK, 0]) for at in range(0, len(heldout), _CHUNK))
            scores = torch.cat([model(each.float().sub_(mean).div_(deviation)) for each in plain])
        model.train()
        return learnt.said(scores)

    found = {}
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HEADS[head](dim, learnt.outputs)
        optimizer = descent(model, budget)
        for step in range(budget.steps):
            rows = generator.integers(pictures, size=budget.batch)
            version = generator.integers(versions, size=budget.batch)
            batch = flat[torch.from_numpy(rows * versions + version)].float().sub_(mean).div_(deviation)
            loss = learnt.loss(model(batch), learnt.truth[torch.from_numpy(rows)])
            descend(optimizer, loss, budget, step)
            if step + 1 in looks:
                found[step + 1] = said(model)
    return found


def steps(budget: Budget) -> list[int]:
    """After how many steps a learner is tested."""
    return sorted({max(1, round(share * budget.steps)) for share in LOOKS})


def _linear(dim: int, classes: int) -> "torch.nn.Module":
    """Multinomial logistic regression."""
    import torch

    model = torch.nn.Linear(dim, classes)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    return model


def _mlp(dim: int, classes: int) -> "torch.nn.Module":
    """One hidden layer."""
    from torch import nn

    return nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Dropout(DROPPED), nn.Linear(HIDDEN, classes))


def _cnn(dim: int, classes: int) -> "torch.nn.Module":
    """Three convolutions, each halving the sides of a square RGB picture that came as [3 * side * side]."""
    from torch import nn

    side = math.isqrt(dim // 3)
    layers: list[nn.Module] = [nn.Unflatten(1, (3, side, side))]
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


HEADS: Mapping[str, Callable[[int, int], "torch.nn.Module"]] = {"linear": _linear, "mlp": _mlp, "cnn": _cnn}
"""Name -> the untrained head for that many features and classes; it draws from torch's own generator."""


def statistics(views: Views) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
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
