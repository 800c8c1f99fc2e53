"""The loss of a dual encoder on a batch: embeddings of both sides, and the objective that its settings name."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.learners.clip import Batch
from training.objectives.pruning import Pruning
from training.objectives.scale import clamp_scale
from training.objectives.sigmoid import sigmoid
from training.objectives.soft_targets import soft_targets
from training.objectives.softmax import softmax

if TYPE_CHECKING:
    import torch

    from training.dual.encoder import Branch, DualEncoder


@dataclass(frozen=True)
class DualLoss:
    """The objective that a model's settings name, on the embeddings of both sides of a batch.

    The model's frozen towers are skipped: their heads read stored features. With a `pruning` the loss that trains
    leaves out negatives; the validation loss has all of them.
    """

    model: "DualEncoder"
    pruning: Pruning | None = None

    def backward(self, batch: Batch) -> float:
        """As `PairLoss`."""
        import torch

        from training.objectives.cached import cached_backward

        self.model.train()
        whole, size = (batch.images, batch.texts), self.model.settings.cached_batch
        if size:
            parts = list(zip(*(torch.split(side, size) for side in whole), strict=True))
            return cached_backward(parts, self._embed, partial(self._of, batch, self.pruning)).item()
        loss = self._of(batch, self.pruning, *self._embed(whole))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def value(self, batch: Batch) -> float:
        """As `PairLoss`."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            return self._of(batch, None, *self._embed((batch.images, batch.texts))).item()

    def clamp(self) -> None:
        """As `PairLoss`: the temperature."""
        clamp_scale(self.model.logit_scale)

    def broken(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """As `PairLoss`."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            images, texts = (each.isfinite().all(dim=1) for each in self._embed((batch.images, batch.texts)))
        found: npt.NDArray[np.bool_] = ~(images & texts).cpu().numpy()
        return found

    def _embed(self, inputs: "tuple[torch.Tensor, torch.Tensor]") -> "tuple[torch.Tensor, torch.Tensor]":
        from torch.nn.functional import normalize

        branches = self.model.visual, self.model.text
        images, texts = (project(self.model, *side) for side in zip(branches, inputs, strict=True))
        if self.model.settings.objective == "soft-targets":  # on dots of embeddings as they are
            return images, texts
        return normalize(images, dim=-1), normalize(texts, dim=-1)

    def _of(
        self, batch: Batch, pruning: Pruning | None, images: "torch.Tensor", texts: "torch.Tensor"
    ) -> "torch.Tensor":
        settings = self.model.settings
        group = self._group(batch, images.device)
        if settings.objective == "soft-targets":
            return soft_targets(images, texts)
        scale = self.model.logit_scale.exp()
        if settings.objective == "sigmoid":
            assert self.model.logit_bias is not None
            return (pruning.sigmoid if pruning else sigmoid)(images, texts, scale, self.model.logit_bias, group)
        return (pruning.softmax if pruning else softmax)(images, texts, scale, group)

    def _group(self, batch: Batch, device: "torch.device") -> "torch.Tensor | None":
        """The numbers by which pairs match, int64 [batch, 1 or 2], or None where a pair matches only itself."""
        import torch

        settings = self.model.settings
        sides = ((settings.same_picture, batch.pictures), (settings.same_text, batch.captions))
        chosen = [numbers for rule, numbers in sides if rule == "match"]
        if len(chosen) == 1:
            return chosen[0].to(device)
        return torch.stack(chosen, dim=1).to(device) if chosen else None


def project(model: "DualEncoder", branch: "Branch", inputs: "torch.Tensor") -> "torch.Tensor":
    """Embeddings, float32 [batch, dim], of pixels or tokens, or of features if the branch is frozen.

    Pixels are what the model's `pictures.prepare` returned: uint8 [batch, height, width, 3].
    """
    import torch

    on = model.logit_scale.device
    if inputs.dtype == torch.uint8:
        inputs = model.pictures.stack(list(inputs.numpy()))
    with torch.autocast(on.type, torch.bfloat16, enabled=model.settings.precision == "bfloat16"):
        embeddings: torch.Tensor = (branch.head if branch.frozen else branch)(inputs.to(on))
    return embeddings.float()
