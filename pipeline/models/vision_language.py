"""A vision-language model of transformers in a folder of this machine, which answers questions about pictures."""

import io
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.errors import ModelError
from pipeline.models import device
from pipeline.store.digests import digest, file_digest

FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""What a folder's digest covers: settings, weights, chat template and vocabulary."""


def identity(folder: Path) -> str:
    """The digest of a model's files. Raises ModelError for a folder without weights in safetensors files."""
    files = sorted({path for pattern in FILES for path in folder.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files) or not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model: it needs config.json and weights in .safetensors files")
    return digest({path.name: file_digest(path) for path in files})


class VisionLanguageModel:
    """Answers with greedy decoding. It answers one question at a time, whatever the number of threads."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        """Raises ModelError for a folder that transformers cannot load."""
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.max_tokens, self._lock = max_tokens, threading.Lock()
        dtype = torch.bfloat16 if device.best_precision() == "bfloat16" else torch.float32
        try:
            self._processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
            self._model: Any = (
                AutoModelForImageTextToText.from_pretrained(
                    folder, use_safetensors=True, local_files_only=True, dtype=dtype
                )
                .eval()
                .to(device.kind())
            )
        except Exception as error:  # transformers raises a dozen kinds
            line = " ".join(str(error).split())[:200]
            raise ModelError(f"{folder} is no vision-language model that transformers can load: {line}") from error

    def answer(self, picture: bytes, prompt: str) -> tuple[str, int, int, bool]:
        """The reply about a JPEG, the tokens of prompt and reply, and whether the reply was cut off."""
        import torch

        with self._lock, torch.inference_mode():
            inputs = self._inputs(Image.open(io.BytesIO(picture)).convert("RGB"), prompt)
            asked = inputs["input_ids"].shape[1]
            made = self._model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False)[0, asked:]
            text: str = self._processor.decode(made, skip_special_tokens=True)
            ends = self._model.generation_config.eos_token_id
            stops = set(ends if isinstance(ends, list) else [ends])
            return text, asked, len(made), len(made) >= self.max_tokens and int(made[-1]) not in stops

    def _inputs(self, picture: Image.Image, prompt: str) -> Any:
        content = [{"type": "image", "image": picture}, {"type": "text", "text": prompt}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device, self._model.dtype)
