"""Towers that give the features of every token: of patches or positions of a picture, and of words of a question.

The first token sums up the others. A tower that has such a token keeps it. For one that has none, the mean of the
others is put before them.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from training.dual import misfit
from training.dual.transformers_text import STEP


class ImageTokens(nn.Module):
    """Features [batch, 1 + positions, width] of pixels [batch, 3, height, width], by an image tower.

    A tower of timm gives its unpooled features, one of open_clip its tokens, one of transformers its last hidden
    states. Maps of convolutional networks have a token for each position.
    """

    def __init__(self, trunk: nn.Module, size: int) -> None:
        super().__init__()
        self.trunk = trunk
        if hasattr(trunk, "output_tokens"):  # of open_clip's ViT: beside the pooled features
            trunk.__dict__["output_tokens"] = True
        self.tokens, self.width = self._shape(size)

    def forward(self, pixels: Tensor) -> Tensor:
        """The first token is the class token, or the mean over positions."""
        trunk: Any = self.trunk
        if hasattr(trunk, "config"):
            hidden: Tensor = trunk(pixel_values=pixels).last_hidden_state
            return hidden
        if hasattr(trunk, "output_tokens"):
            pooled, tokens = trunk(pixels)
            return torch.cat([pooled[:, None], tokens], dim=1)
        trunk = getattr(trunk, "trunk", trunk)  # a timm model in open_clip
        if not hasattr(trunk, "forward_features"):  # a ResNet of open_clip's, without its attention pooling
            return _positions(trunk.layer4(trunk.layer3(trunk.layer2(trunk.layer1(trunk.stem(pixels))))), "NCHW")
        features: Tensor = trunk.forward_features(pixels)
        if features.ndim == 4:
            return _positions(features, str(getattr(trunk, "output_fmt", "NCHW")))
        return features if getattr(trunk, "num_prefix_tokens", 0) else _summed_up(features)

    def _shape(self, size: int) -> tuple[int, int]:
        self.eval()
        try:
            with torch.inference_mode():
                _, tokens, width = self(torch.zeros(1, 3, size, size)).shape
        except (RuntimeError, AssertionError, ValueError, AttributeError, TypeError) as error:
            raise ModelError(f"the image tower gives no features by position: {misfit.from_torch(error)}") from error
        return tokens, width


class TextTokens(nn.Module):
    """Features of token ids, int64 [batch, context], padded at the end with `pad`: [batch, tokens, width].

    With the pooling "mean" the mean over the tokens is put before them.
    """

    def __init__(self, transformer: nn.Module, width: int, pad: int, pooling: Literal["first", "mean"]) -> None:
        super().__init__()
        self.transformer, self.width, self.pad, self.pooling = transformer, width, pad, pooling

    def forward(self, ids: Tensor) -> Tensor:
        """As many tokens as `mask` has."""
        ids = self._cut(ids)
        mask = ids.ne(self.pad)
        hidden: Tensor = self.transformer(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "first":
            return hidden
        mean = (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return torch.cat([mean[:, None], hidden], dim=1)

    def mask(self, ids: Tensor) -> Tensor:
        """Which tokens are no padding: bool [batch, tokens]. A batch is cut to its longest question."""
        mask = self._cut(ids).ne(self.pad)
        return mask if self.pooling == "first" else torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)

    def _cut(self, ids: Tensor) -> Tensor:
        longest = int(ids.ne(self.pad).sum(dim=1).max())
        return ids[:, : -(-longest // STEP) * STEP]


class Flat(nn.Module):
    """A tower whose features are one row a picture, [batch, tokens * width], as they are stored."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, inputs: Tensor) -> Tensor:
        """The tokens one after another."""
        features: Tensor = self.tower(inputs).flatten(1)
        return features


def _positions(features: Tensor, layout: str) -> Tensor:
    rows = features.flatten(1, 2) if layout == "NHWC" else features.flatten(2).transpose(1, 2)
    return _summed_up(rows)


def _summed_up(tokens: Tensor) -> Tensor:
    return torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
