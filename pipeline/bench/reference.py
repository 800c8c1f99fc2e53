"""The loop around open_clip as people write it: what scoring is compared with."""

import io
import os
import tarfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

BATCH = 64


class Reference:
    """A model of open_clip's on a device."""

    def __init__(self, model: str, device: str) -> None:
        self._name, self._device = model, device
        self._model, _, self._preprocess = open_clip.create_model_and_transforms(model, device=device)
        self._model.eval()

    def similarities(self, tars: Sequence[Path], captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """The cosines of the first pictures of the tars and the captions, one each."""
        pairs = _Tars(tars, captions, self._preprocess, open_clip.get_tokenizer(self._name))
        loader = DataLoader(pairs, batch_size=BATCH, num_workers=os.cpu_count() or 1)
        similarities = []
        with torch.no_grad(), torch.autocast("cuda") if self._device != "cpu" else nullcontext():
            for pictures, tokens in loader:
                image = self._model.encode_image(pictures.to(self._device), normalize=True)
                text = self._model.encode_text(tokens.to(self._device), normalize=True)
                similarities.append((image * text).sum(dim=-1).float().cpu())
        return torch.cat(similarities).numpy()


class _Tars(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The pictures of some tars, in order, and captions beside them."""

    def __init__(self, tars: Sequence[Path], captions: Sequence[str], preprocess: Any, tokenizer: Any) -> None:
        self._places = []
        for tar in tars:
            with tarfile.open(tar) as opened:
                self._places += [(tar, member.offset_data, member.size) for member in opened]
        self._captions, self._preprocess, self._tokenizer = captions, preprocess, tokenizer

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        tar, start, size = self._places[index]
        with tar.open("rb") as file:
            file.seek(start)
            picture = Image.open(io.BytesIO(file.read(size))).convert("RGB")
        return self._preprocess(picture), self._tokenizer([self._captions[index]])[0]
