"""The scorer of kind clip: columns from the towers of `pipeline.models.clip`."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from scipy.special import expit

from pipeline.errors import ModelError
from pipeline.models.clip import Clip
from pipeline.models.clip_weights import ModelFiles
from pipeline.models.recent import Embeddings, Recent
from pipeline.scorers.spec import Batch, Columns


class ClipScorer(Clip):
    """A CLIP that scores pairs. Raises ModelError for `sigmoid` and a model without a logit bias."""

    def __init__(self, found: ModelFiles, batch: int | None = None, sigmoid: bool = False) -> None:
        super().__init__(found, batch)
        if sigmoid and self.logit_bias is None:
            raise ModelError(
                f"{found.model} has no logit bias, which only models like SigLIP have: remove sigmoid = true"
            )
        self._bias = self.logit_bias if sigmoid else None

    def score(self, batch: Batch) -> Columns:
        """The columns of `ClipSpec`, and the embeddings."""
        pictures = self.encode_pictures(batch.images)
        captions = self.embed_captions(batch.captions)
        similarity = np.einsum("nd,nd->n", pictures, captions)
        columns = {"similarity": similarity, "embeddings": np.stack([pictures, captions], axis=1)}
        if self._bias is None:
            return columns
        logit = np.float32(self.logit_scale) * similarity + np.float32(self._bias)
        return {**columns, "logit": logit, "sigmoid": expit(logit)}

    @cached_property
    def embed_captions(self) -> Callable[[Sequence[str]], Embeddings]:
        """`encode_captions`; where no bit depends on it, not again for a caption that was encoded lately."""
        return Recent(self.encode_captions) if self.is_steady() else self.encode_captions
