"""The text tower of an open_clip model, on captions that are cut after their end-of-text token."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

EXACT = 1e-5
"""The largest difference between embeddings of cut and whole captions, in float32."""


class TextTower:
    """The text tower, for any number of positions up to the model's context length."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tower = getattr(model, "text", model)  # CustomTextCLIP has a separate tower, CLIP has none
        self._pool = getattr(model, "text_pool_type", None) or getattr(self._tower, "pool_type", None)
        self._eos: Any = getattr(model, "text_eos_id", None) or getattr(self._tower, "eos_id", None)

    @property
    def can_be_cut(self) -> bool:
        """Whether the tower is causal and pools at the end-of-text token."""
        return (
            self._pool in ("argmax", "eos")
            and getattr(self._tower, "attn_mask", None) is not None
            and getattr(self._tower, "cls_emb", None) is None
            and isinstance(getattr(self._tower, "transformer", None), torch.nn.Module)
        )

    def is_exact(self, tokens: Tensor) -> bool:
        """Whether captions that are cut after their end get the embeddings of whole captions, up to `EXACT`."""
        whole = normalize(self._model.encode_text(tokens), dim=-1)
        cut = [self.encode(row[None, : end + 1]) for row, end in zip(tokens, self.ends(tokens).tolist(), strict=True)]
        return bool((normalize(torch.cat(cut), dim=-1) - whole).abs().max() <= EXACT)

    def ends(self, tokens: Tensor) -> Tensor:
        """The position of each caption's end-of-text token."""
        return tokens.eq(self._eos).int().argmax(dim=1) if self._pool == "eos" else tokens.argmax(dim=1)

    def encode(self, tokens: Tensor) -> Tensor:
        """As `encode_text`. The positions must include the end-of-text token of each caption."""
        tower, length = self._tower, tokens.shape[1]
        dtype = tower.transformer.get_cast_dtype()
        x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        pooled: Tensor = x[torch.arange(len(x), device=x.device), self.ends(tokens)]
        projection = tower.text_projection
        if projection is None:
            return pooled
        projected: Tensor = projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
        return projected
