"""The loss of a dual encoder on a batch: embeddings of both sides, and the objective that its settings name."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.learners.clip import Batch
from training.objectives.sigmoid import sigmoid
from training.objectives.soft_targets import soft_targets
from training.objectives.softmax import softmax

if TYPE_CHECKING:
    import torch

    from training.dual.encoder import Branch, DualEncoder


@dataclass(frozen=True)
class DualLoss:
    """The objective that a model's settings name, on the embeddings of both sides of a batch.

    The model's frozen towers are skipped: their heads read stored features.
    """

    model: "DualEncoder"

    def backward(self, batch: Batch) -> float:
        """As `PairLoss`."""
        self.model.train()
        loss = self._of(*self._embed(batch), batch.pictures)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def value(self, batch: Batch) -> float:
        """As `PairLoss`."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            return self._of(*self._embed(batch), batch.pictures).item()

    def broken(self, batch: Batch) -> npt.NDArray[np.bool_]:
        """As `PairLoss`."""
        import torch

        self.model.eval()
        with torch.inference_mode():
            images, texts = (each.isfinite().all(dim=1) for each in self._embed(batch))
        found: npt.NDArray[np.bool_] = ~(images & texts).cpu().numpy()
        return found

    def _embed(self, batch: Batch) -> "tuple[torch.Tensor, torch.Tensor]":
        return embed(self.model, self.model.visual, batch.images), embed(self.model, self.model.text, batch.texts)

    def _of(self, images: "torch.Tensor", texts: "torch.Tensor", pictures: "torch.Tensor") -> "torch.Tensor":
        settings = self.model.settings
        group = pictures.to(images.device) if settings.same_picture == "match" else None
        if settings.objective == "soft-targets":
            return soft_targets(images, texts)
        scale = self.model.logit_scale.exp()
        if settings.objective == "sigmoid":
            assert self.model.logit_bias is not None
            return sigmoid(images, texts, scale, self.model.logit_bias, group)
        return softmax(images, texts, scale, group)


def embed(model: "DualEncoder", branch: "Branch", inputs: "torch.Tensor") -> "torch.Tensor":
    """Embeddings, float32 [batch, dim], of pixels or tokens, or of features if the branch is frozen.

    They are normalised, unless the model's objective takes them as they are.
    """
    import torch
    from torch.nn.functional import normalize

    settings, on = model.settings, model.logit_scale.device
    with torch.autocast(on.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
        embeddings = (branch.head if branch.frozen else branch)(inputs.to(on)).float()
    return embeddings if settings.objective == "soft-targets" else normalize(embeddings, dim=-1)
