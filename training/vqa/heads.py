"""Heads that choose an answer from the tokens of a picture and of a question.

They are the three of a study of DINOv2 and RoBERTa on VQAv2: one co-attention layer, concatenation without attention,
and eight attention heads with skip connections. Each takes picture tokens [batch, positions, width], question tokens
[batch, tokens, width] and `mask`, bool [batch, tokens], false for padding, and gives logits [batch, answers]. The first
token of a side sums it up.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError

ADVANCED_HEADS = 8
"""Attention heads of the advanced head."""


class Attention(nn.Module):
    """Co-attention: each side's first token asks the other side's tokens. Returns the two answers, [batch, width].

    Only these two rows of the attention are used, so only they are computed. Sides of another width than `width` are
    projected first; `projections` has nothing to learn for the others.
    """

    def __init__(self, widths: Sequence[int], width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ModelError(f"width = {width} cannot be divided among {heads} attention heads: set another width")
        self.projections = nn.ModuleList(
            [nn.Identity() if each == width else nn.Linear(each, width) for each in widths]
        )
        self.from_text, self.from_image = (nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(2))

    def project(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides in the width of the head."""
        return self.projections[0](image), self.projections[1](text)

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Of projected sides: what the picture finds in the question, and the question in the picture."""
        told, _ = self.from_text(image[:, :1], text, text, key_padding_mask=~mask, need_weights=False)
        seen, _ = self.from_image(text[:, :1], image, image, need_weights=False)
        return told[:, 0], seen[:, 0]


class CoAttention(nn.Module):
    """One co-attention layer with one attention head; the two attended first tokens are added, and classified."""

    def __init__(self, widths: Sequence[int], width: int, classifier: nn.Module) -> None:
        super().__init__()
        self.attention, self.classifier = Attention(widths, width, 1), classifier

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Logits."""
        told, seen = self.attention(*self.attention.project(image, text), mask)
        logits: Tensor = self.classifier(told + seen)
        return logits


class Concatenation(nn.Module):
    """The first tokens of both sides, one after the other, classified. There is no attention between the sides."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Logits. Both sides were summed up without padding, so the mask is not needed."""
        logits: Tensor = self.classifier(torch.cat([image[:, 0], text[:, 0]], dim=1))
        return logits


class Advanced(nn.Module):
    """Co-attention with 8 heads; each side's own first token is added to the attended one, and both are classified."""

    def __init__(self, widths: Sequence[int], width: int, classifier: nn.Module) -> None:
        super().__init__()
        self.attention, self.classifier = Attention(widths, width, ADVANCED_HEADS), classifier

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Logits."""
        image, text = self.attention.project(image, text)
        told, seen = self.attention(image, text, mask)
        logits: Tensor = self.classifier(torch.cat([told + image[:, 0], seen + text[:, 0]], dim=1))
        return logits


def classifier(width: int, hidden: int, answers: int, dropout: float) -> nn.Module:
    """One linear layer, or two with LeakyReLU and dropout between them."""
    if not hidden:
        return nn.Linear(width, answers)
    return nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(), nn.Dropout(dropout), nn.Linear(hidden, answers))


def head(kind: str, widths: Sequence[int], width: int, hidden: int, answers: int, dropout: float) -> nn.Module:
    """The head of that name for the widths of picture and question tokens. Weights come from torch's random state."""
    if kind == "concatenation":
        return Concatenation(classifier(sum(widths), hidden, answers, dropout))
    if kind == "co-attention":
        return CoAttention(widths, width, classifier(width, hidden, answers, dropout))
    return Advanced(widths, width, classifier(2 * width, hidden, answers, dropout))
