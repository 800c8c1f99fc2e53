"""A loaded CLIP: normalised embeddings of pictures and captions, computed once for each distinct one.

A caption is cut to its own length, rounded up to a multiple of 8 tokens. In a causal tower that pools at the
end-of-text token, later tokens cannot change the result, and neither can the other captions of a device batch. On a GPU
device batches are padded to a fixed size, because the size selects the kernel, and with it the last bits. On a
processor they have the sizes of powers of two, because a kernel is compiled and kept for every size, 3 MB each: the
last one is padded in float32 and split in bfloat16, where no bit depends on the size.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.errors import ModelError
from pipeline.models.batches import SPLIT, exact_math, in_batches
from pipeline.models.clip_weights import HUB, ModelFiles, first_line
from pipeline.models.preprocessing import on_device, preprocessing
from pipeline.models.text_tower import TextTower
from pipeline.settings.fields import LOCAL_DIR

STEP = 8
"""Captions are cut to multiples of this number of tokens."""

ON_CPU, ON_GPU = 64, 512
"""The batch size if the source file sets none: on a processor, and at most on a GPU."""

_PROBES = ("a", "a photo of a dog on the beach", "two people ride bicycles along a river, seen from above " * 3)


class Clip:
    """Both towers. `model` has `precision` on `device`, and takes `batch` pictures or captions at a time.

    It starts in float32 on the CPU, where `pipeline.models.certificate` compares it with open_clip. `place` moves it.
    `certificate` is the result of the comparison.
    """

    def __init__(self, files: ModelFiles, batch: int | None = None) -> None:
        self.name, self.model = files.model.rpartition("/")[2], files.load()
        self.logit_scale = self.model.logit_scale.exp().item()
        bias: Tensor | None = getattr(self.model, "logit_bias", None)
        self.logit_bias = None if bias is None else bias.item()
        self.tokenizer: Callable[..., Tensor] = _tokenizer(files)
        self.preparation, self._standard = preprocessing(self.model)
        self._requested_batch = batch
        self.certificate: Mapping[str, Any] = {}
        self.place("cpu", "float32")
        with torch.inference_mode():
            self.cuts = self._tower.can_be_cut and self._tower.is_exact(self.tokenizer(list(_PROBES)))
            self.embedding_dim: int | None = self.model.encode_text(self.tokenizer(["a"])).shape[1]

    def place(self, device: str, precision: str) -> None:
        """Move to a device, cast to a precision, and choose the batch size unless one was set."""
        self.device, self.precision = device, precision
        # Casting the weights once is twice as fast as autocast, which casts them in every pass.
        self.dtype: torch.dtype = getattr(torch, precision)
        self.model.to(device=device, dtype=self.dtype)
        self.model.visual.to(memory_format=torch.channels_last)
        self._tower = TextTower(self.model)
        self.batch = self._requested_batch or (ON_CPU if device == "cpu" else self._largest())

    def prepare(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """The model's own resize and crop: uint8 [height, width, 3]. A quarter of the bytes of a normalised tensor."""
        return self.preparation(image)

    def encode_pictures(self, prepared: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """float32 [pictures, dim], L2-normalised. The same object twice is encoded once."""
        distinct, places = _distinct(prepared, key=id)
        with exact_math(self.dtype):
            return self._in_batches(self._embed_pictures, distinct)[places]

    def encode_captions(self, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [captions, dim], L2-normalised. The same caption twice is encoded once."""
        distinct, places = _distinct(captions, key=str)
        assert self.embedding_dim is not None
        encoded = np.empty((len(distinct), self.embedding_dim), np.float32)
        with exact_math(self.dtype):
            for rows, tokens in self.tokenize(distinct):
                encoded[rows] = self._in_batches(self._embed_tokens, list(tokens))
        return encoded[places]

    def is_steady(self) -> bool:
        """Whether a caption gets the same bits in the smallest batch and in a full one, tried on two lengths.

        On a GPU all batches have one size.
        """
        if self.device != "cpu":
            return True
        with exact_math(self.dtype):
            return all(self._is_steady(tokens[0]) for _, tokens in self.tokenize(_PROBES[:2]))

    def _is_steady(self, tokens: Tensor) -> bool:
        few, full = (self._in_batches(self._embed_tokens, [tokens] * size) for size in (SPLIT, self.batch))
        return bool((few == full[0]).all() and (full == full[0]).all())

    def tokens_cut(self, text: str) -> int:
        """How many tokens of a text are not read, because it is longer than the model's context."""
        room = 4 * len(text.encode()) + 8  # more than any tokenizer makes, so that the last token is padding
        whole = self.tokenizer([text], context_length=room)[0]
        tokens = int(whole.ne(whole[-1]).nonzero().max()) + 1
        return max(0, tokens - self.tokenizer([text]).shape[1])

    def tokenize(self, captions: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """The captions by cut length, shortest first: their positions, and their tokens [captions, length]."""
        tokens = self.tokenizer(list(captions))
        groups: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(self._lengths(tokens)):
            groups[length].append(row)
        for length, rows in sorted(groups.items()):
            yield rows, tokens[rows, :length]

    @torch.inference_mode()
    def text_features(self, tokens: Tensor) -> Tensor:
        """The output of the text tower for tokens on the device, cut or whole; not normalised."""
        encoded: Tensor = self._tower.encode(tokens) if self.cuts else self.model.encode_text(tokens)
        return encoded

    def _lengths(self, tokens: Tensor) -> list[int]:
        whole = tokens.shape[1]
        if not self.cuts:
            return [whole] * len(tokens)
        ends = self._tower.ends(tokens).tolist()
        return [min(whole, (end // STEP + 1) * STEP) for end in ends]

    @torch.inference_mode()
    def picture_features(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """The output of the picture tower for results of `prepare`, in one pass; not normalised."""
        encoded: Tensor = self.model.encode_image(self._standard(pictures, self.device, self.dtype))
        return encoded

    def _in_batches(self, encode: Callable[[Sequence[Any]], Tensor], items: Sequence[Any]) -> npt.NDArray[np.float32]:
        """In float32 the last bits depend on small sizes of a batch, so there a last batch is padded, not split."""
        return in_batches(encode, items, self.batch, fill=self.device != "cpu", split=self.dtype == torch.bfloat16)

    def _largest(self) -> int:
        """The largest power of two up to `ON_GPU` for which a pass over pictures fits into free memory."""
        picture = self.prepare(Image.new("RGB", (64, 64)))
        size = ON_GPU
        while size > 1:
            try:
                self.picture_features([picture] * size)
                break
            except torch.OutOfMemoryError:
                size //= 2
                torch.cuda.empty_cache()
        return size

    def _embed_pictures(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        return normalize(self.picture_features(pictures).float(), dim=-1)

    def _embed_tokens(self, tokens: Sequence[Tensor]) -> Tensor:
        return normalize(self.text_features(on_device(torch.stack(list(tokens)), self.device)).float(), dim=-1)


def _distinct(values: Sequence[Any], key: Callable[[Any], Hashable]) -> tuple[list[Any], list[int]]:
    """The distinct values in order of appearance, and for each value its index among them."""
    first: dict[Hashable, int] = {}
    places = [first.setdefault(key(value), len(first)) for value in values]
    distinct: dict[int, Any] = {}
    for place, value in zip(places, values, strict=True):
        distinct.setdefault(place, value)
    return list(distinct.values()), places


def _tokenizer(files: ModelFiles) -> Callable[[list[str]], Tensor]:
    """The tokenizer of the model. A vocabulary that a folder names is a file of that folder."""
    import open_clip

    own = {}
    if files.model.startswith(LOCAL_DIR):
        config = open_clip.get_model_config(files.model)
        vocabulary = (config["text_cfg"].get("tokenizer_kwargs") or {}).get("bpe_path")
        own = {"bpe_path": str(Path(files.model.removeprefix(LOCAL_DIR), vocabulary))} if vocabulary else {}
    try:
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(files.model, **own)
    except Exception as error:
        local = files.model.startswith(LOCAL_DIR) and HUB not in files.model
        way = "fix the folder" if local else "check the network"
        raise ModelError(f"the tokenizer of {files.model} cannot be loaded ({first_line(error)}): {way}") from error
    return tokenizer
