"""SigLIP's loss (Zhai et al. 2023): every picture with every caption of the batch is a yes-no question of its own."""

from functools import partial
from typing import TYPE_CHECKING

from training.objectives.matches import is_match, numbers

if TYPE_CHECKING:
    import torch


def sigmoid(
    images: "torch.Tensor",
    texts: "torch.Tensor",
    scale: "torch.Tensor | float",
    bias: "torch.Tensor | float",
    group: "torch.Tensor | None" = None,
    chunk: int = 0,
) -> "torch.Tensor":
    """-1/B times the sum of log sigmoid(z (scale x.y + bias)) over all B * B pairs of normalised embeddings [B, dim].

    z is 1 for a match and -1 otherwise. `group`, int64 [B], numbers the pictures: pairs with the same number match each
    other. With a `chunk` the matrix is computed for so many captions at a time, and again in the backward pass. Then
    memory is B * chunk, not B * B, and one more product is computed.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    pairs = numbers(images, group)
    if not chunk:
        return of_logits(scale * images @ texts.T + bias, is_match(pairs, pairs))
    block = partial(checkpoint, _block, use_reentrant=False, preserve_rng_state=False)
    parts = [slice(at, at + chunk) for at in range(0, len(texts), chunk)]
    return torch.stack([block(images, texts[part], scale, bias, pairs, pairs[part]) for part in parts]).sum()


def of_logits(logits: "torch.Tensor", matches: "torch.Tensor") -> "torch.Tensor":
    """The loss of `sigmoid` by its logits and matches (bool), both [pictures, captions], over the number of pictures.

    The losses of blocks of captions add up to the whole.
    """
    return losses(logits, matches).sum() / len(logits)


def losses(logits: "torch.Tensor", matches: "torch.Tensor") -> "torch.Tensor":
    """-log sigmoid(z logits) of each picture with each caption, [pictures, captions]."""
    import torch
    from torch.nn.functional import softplus

    return softplus(torch.where(matches, -logits, logits))


def _block(
    images: "torch.Tensor",
    texts: "torch.Tensor",
    scale: "torch.Tensor | float",
    bias: "torch.Tensor | float",
    rows: "torch.Tensor",
    columns: "torch.Tensor",
) -> "torch.Tensor":
    """The loss of all pictures with some of the captions. `rows` and `columns` are the numbers of the pairs."""
    return of_logits(scale * images @ texts.T + bias, is_match(rows, columns))
