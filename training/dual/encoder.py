"""A dual encoder: an image tower and a text tower whose embeddings share a space.

It answers as open_clip's CustomTextCLIP does. Each tower is a trunk, which gives features, and a head, so that features
of a frozen trunk can be computed once.
"""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from pipeline.settings.model import Model
from training.dual.modes import rest
from training.dual.parts import Part
from training.dual.pictures import Preparation, tower
from training.dual.tokens import Tokenizer


class Branch(nn.Module):
    """A trunk and a head: to embeddings [batch, dim]."""

    def __init__(self, trunk: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    @property
    def frozen(self) -> bool:
        """Whether no parameter of the trunk trains."""
        return not any(each.requires_grad for each in self.trunk.parameters())

    def forward(self, inputs: Tensor) -> Tensor:
        """[batch, ...] to [batch, dim]."""
        embeddings: Tensor = self.head(self.trunk(inputs))
        return embeddings


class DualEncoder(nn.Module):
    """`logit_scale` is the logarithm of the factor of cosines. `logit_bias` is None unless the objective is sigmoid.

    `pictures.prepare` and `pictures.stack` make pixels [batch, 3, height, width], `tokenizer` makes tokens
    [batch, context]. `towers` describes both towers.
    """

    def __init__(
        self,
        settings: Model,
        visual: Branch,
        text: Branch,
        preparation: Preparation,
        tokenizer: Tokenizer,
        towers: tuple[Part, Part],
    ) -> None:
        super().__init__()
        self.settings, self.visual, self.text = settings, visual, text
        self.towers = towers
        self.tokenizer, self.preparation = tokenizer, preparation
        self.pictures = tower(visual, preparation)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.logit_bias: nn.Parameter | None = None

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        """From float32 [batch, 3, height, width] to [batch, dim]."""
        return _normalized(self.visual(pixels), normalize)

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        """From int64 [batch, context] to [batch, dim]."""
        return _normalized(self.text(tokens), normalize)

    def train(self, mode: bool = True) -> Self:
        """As for any module, but what is frozen stays in evaluation mode, and so does batch norm unless it is trained.

        So a frozen part has no dropout, and its running statistics do not move.
        """
        super().train(mode)
        if mode:
            for branch in (self.visual, self.text):
                rest(branch.trunk, self.settings.batch_norm == "eval")
        return self

    def named_parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts that may have learning rates of their own: image, text, heads."""
        yield "image", self.visual.trunk
        yield "text", self.text.trunk
        yield "heads", nn.ModuleList([self.visual.head, self.text.head])


def _normalized(embeddings: Tensor, wanted: bool) -> Tensor:
    return normalize(embeddings, dim=-1) if wanted else embeddings


def count(parameters: Any) -> int:
    """The number of numbers in parameters."""
    return sum(each.numel() for each in parameters)
