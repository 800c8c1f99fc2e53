"""Frozen encoders: the image tower of an open_clip model, or any timm model without its classifier."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import ModelError
from pipeline.score import file_digest
from pipeline.source import Encoder

if TYPE_CHECKING:
    import torch

BATCH = 64
"""Pictures in one forward pass, until memory is short."""

_LOCAL = "local-dir:"


def device() -> str:
    """Where encoders run: "cuda" if there is one, else "cpu"."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def identity(encoder: Encoder) -> dict[str, Any]:
    """All that decides an encoder's features, as JSON. Files are told by their digest, hub weights by their tag."""
    library = {"timm": "timm", "open_clip": "open_clip_torch"}[encoder.kind]
    folder = Path(encoder.model.removeprefix(_LOCAL)) if encoder.model.startswith(_LOCAL) else None
    made: dict[str, Any] = {
        "kind": encoder.kind,
        "model": _LOCAL + folder.name if folder else encoder.model,
        "options": encoder.options,
        "preprocess": encoder.preprocess,
        "batch": BATCH,
        "device": device(),
        "versions": {name: version(name) for name in (library, "torch", "torchvision", "pillow")},
    }
    if folder:
        made["files"] = {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file()}
    local = encoder.weights and encoder.weights.endswith(".safetensors")
    made["weights"] = file_digest(Path(encoder.weights or "")) if local else encoder.weights
    return made


class Tower:
    """A frozen encoder, ready to run.

    `prepare` turns an RGB picture into a float tensor [3, height, width]; `encode` turns a list of those into
    float32 [pictures, dim].
    """

    def __init__(
        self,
        forward: "Callable[[torch.Tensor], torch.Tensor]",
        prepare: "Callable[[Image.Image], torch.Tensor]",
        where: str = "cpu",
        batch: int = BATCH,
    ) -> None:
        self.prepare = prepare
        self.batch = batch
        self._forward, self._where = forward, where

    def encode(self, pictures: "Sequence[torch.Tensor]") -> npt.NDArray[np.float32]:
        """Raises ModelError where not even one picture fits into memory, or a feature is no number."""
        import torch

        done: list[npt.NDArray[np.float32]] = []
        start = 0
        while start < len(pictures):
            window = torch.stack(list(pictures[start : start + self.batch]))
            try:
                with torch.inference_mode():
                    window = window.to(self._where, memory_format=torch.channels_last)
                    done.append(self._forward(window).float().cpu().numpy())
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if self.batch == 1:
                    raise ModelError("the encoder does not fit into memory, even with one picture at a time") from error
                self.batch //= 2
                continue
            start += len(window)
        features = np.concatenate(done)
        if not np.abs(features).max() < np.finfo(np.float16).max:  # NaN is not either
            raise ModelError("the encoder gave features that are no numbers: its weights do not fit the model")
        return features


def load(encoder: Encoder) -> Tower:
    """The encoder in evaluation mode, in float32. Raises ModelError where weights are missing or do not fit."""
    where = device()
    try:
        made = (_timm if encoder.kind == "timm" else _open_clip)(encoder, where)
    except ModelError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"encoder {encoder.model}: {reason}") from error
    return made


def _timm(encoder: Encoder, where: str) -> Tower:
    import timm
    from safetensors.torch import load_file

    local = bool(encoder.weights and encoder.weights.endswith(".safetensors"))
    name = f"{encoder.model}.{encoder.weights}" if encoder.weights and not local else encoder.model
    model = timm.create_model(name, pretrained=not local, **encoder.options)
    if local:
        model.load_state_dict(load_file(str(encoder.weights)), strict=True)
    model.reset_classifier(0)
    settings = timm.data.resolve_data_config(_tuples(encoder.preprocess), model=model)
    return Tower(_frozen(model, where), timm.data.create_transform(**settings, is_training=False), where)


def _open_clip(encoder: Encoder, where: str) -> Tower:
    import open_clip
    from torch.nn.functional import normalize

    if encoder.weights is None and ":" not in encoder.model:
        raise ModelError(f"encoder {encoder.model}: name its weights, a hub tag or a safetensors file")
    model, prepare = open_clip.create_model_from_pretrained(
        encoder.model, pretrained=encoder.weights, precision="fp32", device=where, **encoder.options
    )
    run = _frozen(model, where, "encode_image")
    return Tower(lambda window: normalize(run(window), dim=-1), prepare, where)


def _frozen(model: "torch.nn.Module", where: str, method: str = "forward") -> "Callable[[torch.Tensor], torch.Tensor]":
    import torch

    model.eval().requires_grad_(False).to(where, memory_format=torch.channels_last)  # half the time on a CPU
    run: Callable[[torch.Tensor], torch.Tensor] = getattr(model, method)
    return run


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def _out_of_memory(error: Exception) -> bool:
    import torch

    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
