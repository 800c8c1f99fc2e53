"""The loaded CLIP: pictures and captions to normalised embeddings, each distinct one once.

A caption is cut after its end-of-text token, to the next multiple of 8 tokens of its own length: in a causal tower that
pools at that token, nothing behind it can change the result. Its company in a device batch decides nothing. On a GPU
device batches are filled up to a fixed size, because there a kernel is chosen by size, and with it the last bits; on a
processor to a power of two, because there a kernel is made for every size, and kept: 3 MB of them for each.
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
from pipeline.models.batches import exactly, in_batches
from pipeline.models.clip_weights import HUB, Found, line
from pipeline.settings.fields import LOCAL_DIR

STEP = 8
"""Captions are cut to multiples of so many tokens."""

ON_CPU, ON_GPU = 64, 512
"""The batch where the source file names none: as many as a processor gains from, and at most so many on a GPU."""


EXACT = 1e-5
"""A cut tower must give what the whole one gives, in float32, up to this."""

_PROBES = ("a", "a photo of a dog on the beach", "two people ride bicycles along a river, seen from above " * 3)


class Clip:
    """Both towers. `model` is in `precision` on `device`, and sees `batch` pictures or captions at a time.

    It begins in float32 on the CPU, where it can be compared with open_clip, and is then placed. `certificate` is what
    that comparison said.
    """

    def __init__(self, found: Found, batch: int | None = None) -> None:
        self.name, self.model = found.model.rpartition("/")[2], found.load()
        self.logit_scale = self.model.logit_scale.exp().item()
        bias: Tensor | None = getattr(self.model, "logit_bias", None)
        self.logit_bias = None if bias is None else bias.item()
        self.tokenizer: Callable[[list[str]], Tensor] = _tokenizer(found)
        self._geometry, self._mean, self._std = _preprocessing(self.model)
        self._wanted = batch
        self.certificate: Mapping[str, Any] = {}
        self.place("cpu", "float32")
        with torch.inference_mode():
            self.cuts = self._tower.can_be_cut and self._tower.is_exact(self.tokenizer(list(_PROBES)))
            self.embedding_dim: int | None = self.model.encode_text(self.tokenizer(["a"])).shape[1]

    def place(self, device: str, precision: str) -> None:
        """Move to a device, cast to a precision, and find the size of a batch unless one was asked for."""
        self.device, self.precision = device, precision
        # Weights that are cast once are twice as fast as autocast, which casts them again in every pass.
        self.dtype: torch.dtype = getattr(torch, precision)
        self.model.to(device=device, dtype=self.dtype)
        self.model.visual.to(memory_format=torch.channels_last)
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        self._tower = TextTower(self.model)
        self.batch = self._wanted or (ON_CPU if device == "cpu" else self._largest())

    def prepare(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """The model's own resize and crop: uint8 [height, width, 3]. A quarter of the bytes of a normalised tensor."""
        return np.asarray(self._geometry(image))

    def pictures(self, prepared: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """float32 [pictures, dim], L2-normalised. The same object twice is encoded once."""
        distinct, places = _distinct(prepared, key=id)
        with exactly(self.dtype):
            return in_batches(self._encode_pictures, distinct, self.batch, fill=self.device != "cpu")[places]

    def captions(self, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [captions, dim], L2-normalised. The same caption twice is encoded once."""
        distinct, places = _distinct(captions, key=str)
        assert self.embedding_dim is not None
        encoded = np.empty((len(distinct), self.embedding_dim), np.float32)
        with exactly(self.dtype):
            for rows, tokens in self.tokens(distinct):
                encoded[rows] = in_batches(self._encode_captions, list(tokens), self.batch, fill=self.device != "cpu")
        return encoded[places]

    def tokens(self, captions: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """The captions by cut length, the shortest first: which they are, and their tokens [captions, length]."""
        tokens = self.tokenizer(list(captions))
        groups: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(self._lengths(tokens)):
            groups[length].append(row)
        for length, rows in sorted(groups.items()):
            yield rows, tokens[rows, :length]

    @torch.inference_mode()
    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """The text tower on tokens of the device, cut or whole; not normalised."""
        encoded: Tensor = self._tower.encode(tokens) if self.cuts else self.model.encode_text(tokens)
        return encoded

    def _lengths(self, tokens: Tensor) -> list[int]:
        whole = tokens.shape[1]
        if not self.cuts:
            return [whole] * len(tokens)
        ends = self._tower.ends(tokens).tolist()
        return [min(whole, (end // STEP + 1) * STEP) for end in ends]

    @torch.inference_mode()
    def encode_prepared(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """The picture tower on what `prepare` gave, in one pass; not normalised."""
        # Seen as [n, 3, height, width], what lies in memory as [n, height, width, 3] is channels-last by itself.
        stacked = self._on_device(torch.from_numpy(np.stack(pictures))).permute(0, 3, 1, 2)
        standard = stacked.float().div_(255).sub_(self._mean).div_(self._std)
        encoded: Tensor = self.model.encode_image(standard.to(self.dtype))
        return encoded

    def _largest(self) -> int:
        """The largest power of two, `ON_GPU` at most, for which a pass over pictures fits into memory now."""
        picture = self.prepare(Image.new("RGB", (64, 64)))
        size = ON_GPU
        while size > 1:
            try:
                self.encode_prepared([picture] * size)
                break
            except torch.OutOfMemoryError:
                size //= 2
                torch.cuda.empty_cache()
        return size

    def _encode_pictures(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        return normalize(self.encode_prepared(pictures).float(), dim=-1)

    def _encode_captions(self, tokens: Sequence[Tensor]) -> Tensor:
        return normalize(self.encode_tokens(self._on_device(torch.stack(list(tokens)))).float(), dim=-1)

    def _on_device(self, items: Tensor) -> Tensor:
        """From pinned memory a copy to a GPU runs beside the passes that are under way."""
        return items if self.device == "cpu" else items.pin_memory().to(self.device, non_blocking=True)


class TextTower:
    """open_clip's text tower, for fewer positions than it was made for."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tower = getattr(model, "text", model)  # CustomTextCLIP has it apart, CLIP has it built in
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
        """Whether captions that are cut behind their end get the embeddings of whole ones."""
        whole = normalize(self._model.encode_text(tokens), dim=-1)
        cut = [self.encode(row[None, : end + 1]) for row, end in zip(tokens, self.ends(tokens).tolist(), strict=True)]
        return bool((normalize(torch.cat(cut), dim=-1) - whole).abs().max() <= EXACT)

    def ends(self, tokens: Tensor) -> Tensor:
        """The position of each caption's end-of-text token."""
        return tokens.eq(self._eos).int().argmax(dim=1) if self._pool == "eos" else tokens.argmax(dim=1)

    def encode(self, tokens: Tensor) -> Tensor:
        """As `encode_text`, for any number of positions that holds the end-of-text tokens."""
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


def _distinct(values: Sequence[Any], key: Callable[[Any], Hashable]) -> tuple[list[Any], list[int]]:
    """The distinct values in order of appearance, and the place of each value among them."""
    first: dict[Hashable, int] = {}
    places = [first.setdefault(key(value), len(first)) for value in values]
    distinct: dict[int, Any] = {}
    for place, value in zip(places, values, strict=True):
        distinct.setdefault(place, value)
    return list(distinct.values()), places


def _preprocessing(model: Any) -> tuple[Callable[[Image.Image], Image.Image], Tensor, Tensor]:
    """The model's own preprocessing: its geometry, and mean and standard deviation as [3, 1, 1]."""
    from open_clip import get_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose, Normalize, ToTensor

    *geometry, tensor, standard = image_transform_v2(
        PreprocessCfg(**get_model_preprocess_cfg(model)), is_train=False
    ).transforms
    assert isinstance(tensor, ToTensor)
    assert isinstance(standard, Normalize)
    mean, std = (torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (standard.mean, standard.std))
    return Compose(geometry), mean, std


def _tokenizer(found: Found) -> Callable[[list[str]], Tensor]:
    """The model's tokenizer. A folder's own vocabulary lies in the folder, whatever the working directory is."""
    import open_clip

    own = {}
    if found.model.startswith(LOCAL_DIR):
        config = open_clip.get_model_config(found.model)
        vocabulary = (config["text_cfg"].get("tokenizer_kwargs") or {}).get("bpe_path")
        own = {"bpe_path": str(Path(found.model.removeprefix(LOCAL_DIR), vocabulary))} if vocabulary else {}
    try:
        tokenizer: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(found.model, **own)
    except Exception as error:
        way = "check the network" if not found.model.startswith(LOCAL_DIR) or HUB in found.model else "mend the folder"
        raise ModelError(f"the tokenizer of {found.model} cannot be had ({line(error)}): {way}") from error
    return tokenizer
