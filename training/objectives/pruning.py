"""Leave out negatives: the loss sees a part of the pairs of a batch that do not match (Zhai et al. 2023)."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from training.objectives import sigmoid as yes_no
from training.objectives import softmax as directions
from training.objectives.matches import is_match, numbers

if TYPE_CHECKING:
    import torch

How = Literal["random", "hard", "easy"]


@dataclass(frozen=True)
class Pruning:
    """A share of the negatives of a batch, its `ratio`, 0 <= ratio < 1, is masked. Matches never are.

    "hard" keeps the negatives with the highest loss, "easy" those with the lowest, and "random" draws from torch's
    random state. The choice is over the whole matrix of the batch: a picture may keep more negatives than another, or
    none. For the softmax both directions keep the same pairs. No gradient passes through the choice.
    Raises ValueError for another ratio.
    """

    how: How
    ratio: float

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ValueError(f"the masking ratio is {self.ratio:g}, not 0 or more and less than 1")

    def softmax(
        self,
        images: "torch.Tensor",
        texts: "torch.Tensor",
        scale: "torch.Tensor | float",
        group: "torch.Tensor | None" = None,
    ) -> "torch.Tensor":
        """The loss `softmax`, whose sums leave out masked pairs."""
        import torch

        logits, pairs = scale * images @ texts.T, numbers(images, group)
        masked = ~self.kept(logits, is_match(pairs, pairs))
        return directions.of_logits(logits.masked_fill(masked, torch.finfo(logits.dtype).min / 2), group)

    def sigmoid(
        self,
        images: "torch.Tensor",
        texts: "torch.Tensor",
        scale: "torch.Tensor | float",
        bias: "torch.Tensor | float",
        group: "torch.Tensor | None" = None,
    ) -> "torch.Tensor":
        """The loss `sigmoid` without the terms of masked pairs, still over the number of pictures."""
        logits, pairs = scale * images @ texts.T + bias, numbers(images, group)
        matches = is_match(pairs, pairs)
        return (yes_no.losses(logits, matches) * self.kept(logits, matches)).sum() / len(logits)

    def kept(self, logits: "torch.Tensor", matches: "torch.Tensor") -> "torch.Tensor":
        """Which pairs are kept, bool [pictures, captions]: all matches, and the rounded share of the negatives.

        The loss of a negative grows with its logit, in the softmax and in the sigmoid.
        """
        order = self._order(logits)
        count = round((1 - self.ratio) * int((~matches).sum()))
        kept = matches.clone()
        kept.view(-1)[order.masked_fill(matches, -math.inf).flatten().topk(count).indices] = True
        return kept

    def matched_steps(self, steps: int, batch: int) -> int:
        """How many steps see as many pairs, matches included, as so many steps of whole batches: "matched pairs"."""
        negatives = batch * (batch - 1)
        return math.ceil(steps * batch**2 / (batch + round((1 - self.ratio) * negatives)))

    def _order(self, logits: "torch.Tensor") -> "torch.Tensor":
        """The larger a number, the sooner its pair is kept: [pictures, captions]."""
        import torch

        if self.how == "random":
            return torch.rand_like(logits)
        return logits if self.how == "hard" else -logits
