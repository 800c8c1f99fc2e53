"""The reference learner: a linear map of frozen picture embeddings into the space of frozen caption embeddings.

It begins as the identity, so that it is the stored model itself before its first step. Its loss is CLIP's.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.mixing.pairs import Pairs

if TYPE_CHECKING:
    from torch import Tensor

TEMPERATURE = 0.07
"""What cosines are divided by: CLIP's initial value (Radford et al. 2021)."""

BATCH, RATE, STEPS = 128, 1.0, 40
"""Pairs in a batch, the learning rate of plain gradient descent, and the steps of a training on selected pairs."""


def losses(weights: "Tensor", images: "Tensor", texts: "Tensor", pictures: "Tensor") -> "Tensor":
    """CLIP's loss of each pair, both directions: float32 [pairs]. Other pairs of its picture are left out of its sums.

    `weights` [dim, dim] is the learner; `images` and `texts` are float32 [pairs, dim], `pictures` int64 [pairs].
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    logits = normalize(images @ weights, dim=1) @ texts.T / TEMPERATURE
    same = pictures[:, None] == pictures[None]
    logits = logits.masked_fill(same & ~torch.eye(len(images), dtype=torch.bool), -torch.inf)
    own = torch.arange(len(images))
    return (cross_entropy(logits, own, reduction="none") + cross_entropy(logits.T, own, reduction="none")) / 2


def tensors(pairs: Pairs) -> "tuple[Tensor, Tensor, Tensor]":
    """Picture embeddings, caption embeddings, and numbers of pictures."""
    import torch

    both = torch.from_numpy(pairs.embeddings.astype(np.float32))
    return both[:, 0].contiguous(), both[:, 1].contiguous(), torch.from_numpy(pairs.pictures)


def identity(pairs: Pairs) -> "Tensor":
    """The learner before its first step: float32 [dim, dim]."""
    import torch

    return torch.eye(pairs.embeddings.shape[2])


def train(pairs: Pairs, seed: int) -> "Tensor":
    """The learner after `STEPS` steps on these pairs: float32 [dim, dim]."""
    import torch

    images, texts, pictures = tensors(pairs)
    weights, random = identity(pairs), np.random.default_rng(seed)
    for _ in range(STEPS):
        weights.requires_grad_()
        rows = draw(random, len(pairs))
        loss = losses(weights, images[rows], texts[rows], pictures[rows]).mean()
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = (weights - RATE * gradient).detach()
    return weights


def evaluate(weights: "Tensor", pairs: Pairs) -> float:
    """The mean loss of these pairs, in batches of at most `BATCH`, all of about the same size."""
    import torch

    images, texts, pictures = tensors(pairs)
    with torch.inference_mode():
        parts = np.array_split(np.arange(len(pairs)), max(-(-len(pairs) // BATCH), 1))
        each = [losses(weights, images[rows], texts[rows], pictures[rows]) for rows in map(torch.from_numpy, parts)]
        return float(torch.cat(each).mean())


def draw(random: np.random.Generator, pairs: int) -> "Tensor":
    """The rows of a batch: at most `BATCH` different ones."""
    import torch

    rows: npt.NDArray[np.int64] = random.choice(pairs, min(BATCH, pairs), replace=False)
    return torch.from_numpy(rows)
