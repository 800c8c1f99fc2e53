"""A model that answers questions about pictures: two towers, and a head that chooses an answer."""

from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.settings.vqa import VqaModel
from training.dual.modes import rest
from training.dual.pictures import Preparation, tower
from training.dual.tokens import Tokenizer
from training.vqa.towers import ImageTokens, TextTokens


class Answerer(nn.Module):
    """`pictures.prepare` and `pictures.stack` make pixels, `tokenizer` makes token ids.

    A model without a picture has no image tower: its head sees one token of zeros.
    """

    def __init__(
        self,
        settings: VqaModel,
        image: ImageTokens,
        text: TextTokens,
        head: nn.Module,
        preparation: Preparation,
        tokenizer: Tokenizer,
    ) -> None:
        super().__init__()
        self.settings, self.text, self.head = settings, text, head
        self.image = image if settings.picture else None
        self.image_shape, self.text_width = (image.tokens, image.width), text.width
        self.tokenizer, self.preparation = tokenizer, preparation
        self.pictures = tower(nn.Identity() if self.image is None else self.image, preparation)

    @property
    def image_frozen(self) -> bool:
        """Whether nothing of the image tower trains."""
        return self.image is None or not any(each.requires_grad for each in self.image.parameters())

    @property
    def text_frozen(self) -> bool:
        """Whether nothing of the text tower trains."""
        return not any(each.requires_grad for each in self.text.parameters())

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.head.parameters()).device

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        """Logits [batch, answers] of float32 [batch, 3, height, width] and int64 [batch, context]."""
        logits: Tensor = self.head(self.see(pixels), self.text(ids), self.text.mask(ids))
        return logits

    def see(self, pixels: Tensor) -> Tensor:
        """Picture tokens [batch, positions, width]; zeros of a model without a picture."""
        if self.image is None:
            return torch.zeros(len(pixels), 1, self.image_shape[1], device=self.device)
        tokens: Tensor = self.image(pixels)
        return tokens

    def train(self, mode: bool = True) -> Self:
        """As for any module, but what is frozen stays in evaluation mode, and so does batch norm unless it is trained.

        So a frozen part has no dropout, and its running statistics do not move.
        """
        super().train(mode)
        if mode:
            for part in (self.image, self.text):
                if part is not None:
                    rest(part, self.settings.batch_norm == "eval")
        return self

    def named_parts(self) -> Iterator[tuple[str, nn.Module]]:
        """The parts that may have learning rates of their own: image, text, head."""
        if self.image is not None:
            yield "image", self.image
        yield "text", self.text
        yield "head", self.head


def parameter_groups(model: Answerer) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with `name`, `lr` and `weight_decay`, without what is frozen.

    Adapters have a group of their own. Biases and norms have no weight decay.
    """
    settings = model.settings
    rates = {"image": settings.image_rate, "text": settings.text_rate, "head": settings.head_rate}
    if settings.lora:
        rates["adapters"] = settings.lora.rate
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for part, module in model.named_parts():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                kind = "adapters" if "lora_" in name else part
                groups.setdefault((kind, parameter.ndim > 1), []).append(parameter)
    return [
        {"name": kind, "params": chosen, "lr": rates[kind], "weight_decay": settings.weight_decay if decays else 0.0}
        for (kind, decays), chosen in groups.items()
    ]
