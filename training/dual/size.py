"""How large a dual encoder is: parameters, and floating-point operations for a picture and for a caption."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn

from training.dual.encoder import DualEncoder, count


@dataclass(frozen=True)
class Size:
    """Parameters of each trunk, of both heads, and of all that trains.

    `image_flops` are of one picture, `text_flops` of one caption that fills the context; a multiplication and an
    addition are two operations.
    """

    image: int
    text: int
    heads: int
    trained: int
    image_flops: int
    text_flops: int

    @property
    def parameters(self) -> int:
        """All of them, without temperature and bias."""
        return self.image + self.text + self.heads


def measure(model: DualEncoder) -> Size:
    """Count parameters, and the operations of a grey picture and of a caption. The model is not changed."""
    parts = {name: count(part.parameters()) for name, part in model.named_parts()}
    device = model.logit_scale.device
    size = model.preparation.size
    picture = model.pictures.stack([model.pictures.prepare(Image.new("RGB", (size, size)))])
    caption = model.tokenizer(["a " * model.settings.context]).ids
    return Size(
        parts["image"],
        parts["text"],
        parts["heads"],
        count(each for each in model.parameters() if each.requires_grad),
        _operations(model.visual, picture.to(device)),
        _operations(model.text, caption.to(device)),
    )


def _operations(branch: nn.Module, inputs: Tensor) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    modes = [(module, module.training) for module in branch.modules()]
    branch.eval()  # without a trace in the running statistics
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            branch(inputs)
    finally:
        _restore(modes)
    return int(counter.get_total_flops())


def _restore(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    for module, training in modes:
        module.training = training
