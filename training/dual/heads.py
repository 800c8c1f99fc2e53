"""Heads: from the features of a tower to embeddings."""

from collections import OrderedDict
from typing import Literal

import torch
from torch import Tensor, nn

Name = Literal["linear", "residual"]


class Residual(nn.Module):
    """Linear, GELU, Linear, dropout, plus the output of the first Linear, LayerNorm: [batch, width] to [batch, dim].

    The head of the widely copied tutorial of small CLIPs.
    """

    def __init__(self, width: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.projection, self.hidden = nn.Linear(width, dim), nn.Linear(dim, dim)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, width] to [batch, dim]."""
        projected = self.projection(features)
        normed: Tensor = self.norm(projected + self.dropout(self.hidden(nn.functional.gelu(projected))))
        return normed


def head(name: Name, width: int, dim: int, dropout: float, projection: Tensor | None = None) -> nn.Module:
    """A head with random weights. A linear one takes over a `projection` [dim, width], if there is one of that size.

    A linear head has no bias, as in CLIP, and drops features.
    """
    if name == "residual":
        return Residual(width, dim, dropout)
    linear = nn.Linear(width, dim, bias=False)
    if projection is not None and projection.shape == linear.weight.shape:
        with torch.no_grad():
            linear.weight.copy_(projection)
    return nn.Sequential(OrderedDict(drop=nn.Dropout(dropout), proj=linear))
