"""Captions as tokens, and how many were cut."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.models.clip_weights import first_line


@dataclass(frozen=True)
class Tokens:
    """`ids`, int64 [captions, context], and the number of captions that have more tokens than `context`."""

    ids: Tensor
    cut: int


class Tokenizer:
    """An open_clip tokenizer for `context` tokens. `length` counts a caption's tokens if nothing is cut.

    `vocabulary` is the file of a vocabulary that is not open_clip's own.
    """

    def __init__(
        self, own: Any, context: int, length: Callable[[str], int], pad: int, vocabulary: Path | None = None
    ) -> None:
        self.context, self._own, self._length, self._pad, self._vocabulary = context, own, length, pad, vocabulary

    def save(self, folder: Path) -> None:
        """Write the files that the tokenizer is loaded from."""
        if hasattr(self._own, "save_pretrained"):
            self._own.save_pretrained(folder)
        if self._vocabulary is not None:
            shutil.copyfile(self._vocabulary, folder / self._vocabulary.name)

    def __call__(self, captions: Sequence[str]) -> Tokens:
        """Padded and cut to the context."""
        if not captions:
            return Tokens(torch.empty((0, self.context), dtype=torch.int64), 0)
        ids: Tensor = self._own(list(captions)).to(torch.int64)
        full = ids[:, -1].ne(self._pad).nonzero()[:, 0].tolist()
        return Tokens(ids, sum(self._length(captions[row]) > self.context for row in full))


def of_transformers(folder: Path, context: int) -> Tokenizer:
    """The tokenizer of a folder. Raises ModelError."""
    from open_clip.tokenizer import HFTokenizer

    try:
        own = HFTokenizer(str(folder), context_length=context, trust_remote_code=False)
    except Exception as error:
        raise ModelError(
            f"the tokenizer in {folder} cannot be loaded ({first_line(error)}): put tokenizer.json, or the "
            "vocabulary, beside config.json"
        ) from error
    if own.tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no token for padding: name another text tower")
    return Tokenizer(own, context, lambda text: _hf_length(own, text), own.tokenizer.pad_token_id)


def of_open_clip(own: Any, context: int, vocabulary: Path | None = None) -> Tokenizer:
    """A tokenizer of open_clip's."""
    if hasattr(own, "tokenizer"):
        return Tokenizer(own, context, lambda text: _hf_length(own, text), own.tokenizer.pad_token_id or 0)
    return Tokenizer(own, context, lambda text: len(own.encode(text)) + 2, 0, vocabulary)


def _hf_length(own: Any, text: str) -> int:
    return len(own.tokenizer(own.clean_fn(text), truncation=False, padding=False, verbose=False)["input_ids"])
