"""CLIP's loss: for each picture a softmax over the captions of the batch, and for each caption over its pictures."""

from typing import TYPE_CHECKING

from training.objectives.matches import distribution

if TYPE_CHECKING:
    import torch

TEMPERATURE = 0.07
"""What cosines are divided by where no temperature is learned: CLIP's initial value (Radford et al. 2021)."""


def softmax(
    images: "torch.Tensor",
    texts: "torch.Tensor",
    scale: "torch.Tensor | float",
    group: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """The mean cross-entropy of both directions (Radford et al. 2021), of normalised embeddings [pairs, dim].

    Cosines are multiplied by `scale`, the exponential of the model's `logit_scale`. `group`, int64 [pairs], numbers
    the pictures: pairs with the same number match each other, and the target is uniform over the matches. Without it a
    pair matches only itself.
    """
    return of_logits(scale * images @ texts.T, group)


def contrastive(images: "torch.Tensor", texts: "torch.Tensor", group: "torch.Tensor") -> "torch.Tensor":
    """The loss of `softmax` at the fixed TEMPERATURE."""
    return of_logits(images @ texts.T / TEMPERATURE, group)


def of_logits(logits: "torch.Tensor", group: "torch.Tensor | None" = None) -> "torch.Tensor":
    """The loss of `softmax` by its logits [pictures, captions], a square."""
    import torch
    from torch.nn.functional import cross_entropy

    if group is None:
        targets = torch.arange(len(logits), device=logits.device)
    else:
        targets = distribution(group, group).to(torch.promote_types(logits.dtype, torch.float32))
    return (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2
