"""The loss of a widely copied tutorial of small CLIPs (Shariatnia, "Simple CLIP", 2021), as it stands there."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def soft_targets(images: "torch.Tensor", texts: "torch.Tensor") -> "torch.Tensor":
    """Cross-entropy of dots of embeddings [pairs, dim] against targets that the embeddings themselves give.

    Temperature is 1. The tutorial does not normalise its embeddings. The targets are softmax((I I' + T T') / 2) by
    rows: captions of similar pictures are partial matches. They are not detached, so that gradients pass through them
    too. The direction from pictures to captions uses their transpose, whose rows do not sum to 1.
    """
    dots = texts @ images.T
    targets = ((images @ images.T + texts @ texts.T) / 2).softmax(dim=-1)
    to_images = -(targets * dots.log_softmax(dim=-1)).sum(dim=1)
    to_texts = -(targets.T * dots.T.log_softmax(dim=-1)).sum(dim=1)
    return ((to_images + to_texts) / 2).mean()
