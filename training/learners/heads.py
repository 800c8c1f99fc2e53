"""Untrained heads for frozen features, by name."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HIDDEN, DROPOUT = 256, 0.5
"""Units of the MLP's hidden layer, and the share of them that a training step leaves out."""


def linear(dim: int, outputs: int) -> "torch.nn.Module":
    """Multinomial logistic regression, or linear regression. It begins at zero."""
    import torch

    model = torch.nn.Linear(dim, outputs)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    return model


def mlp(dim: int, outputs: int) -> "torch.nn.Module":
    """One hidden layer."""
    from torch import nn

    return nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, outputs))


def cnn(dim: int, outputs: int) -> "torch.nn.Module":
    """Three convolutions, each halving the sides of a square RGB picture, which comes as [3 * side * side]."""
    from torch import nn

    side = math.isqrt(dim // 3)
    layers: list[nn.Module] = [nn.Unflatten(1, (3, side, side))]
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, outputs))


HEADS: Mapping[str, Callable[[int, int], "torch.nn.Module"]] = {"linear": linear, "mlp": mlp, "cnn": cnn}
"""By name, the head for a number of features and of outputs. Its weights come from torch's own random state."""
