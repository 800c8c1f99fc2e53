"""What turns pictures into the numbers that a learner sees: the image tower of an open_clip model, any timm model
without its classifier, histograms of oriented gradients, or the pixels themselves."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import ModelError
from pipeline.score import file_digest
from pipeline.scorers import clip_weights, device
from pipeline.task import Encoder, Hog, Network, Pixels

if TYPE_CHECKING:
    import torch

BATCH = 64
"""Pictures in one forward pass, fewer where memory ends."""

FILE = ".safetensors"

_OPENCV = "opencv-python-headless"


class Encodes(Protocol):
    """An encoder, ready to run: `prepare` once for a picture, then `encode` for as many as there are."""

    def prepare(self, image: Image.Image) -> Any:
        """An upright RGB picture, as `encode` wants it."""

    def encode(self, pictures: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Features [pictures, dim]. Raises ModelError."""


def identity(encoder: Encoder) -> dict[str, Any]:
    """All that decides an encoder's features, as JSON. Files are told by their digest, timm's tags by their name.

    Raises ModelError for an open_clip model whose weights are missing or do not fit its activation.
    """
    if not isinstance(encoder, Network):
        return {**encoder.model_dump(), "versions": {_OPENCV: version(_OPENCV)}}
    library = {"timm": "timm", "open_clip": "open_clip_torch"}[encoder.kind]
    made: dict[str, Any] = {
        "kind": encoder.kind,
        "batch": BATCH,
        "device": device.kind(),
        "versions": {name: version(name) for name in (library, "torch", "torchvision", "pillow")},
    }
    if encoder.kind == "open_clip":
        return made | dict(clip_weights.find(encoder.model, encoder.weights, encoder.quick_gelu).identity())
    weights = file_digest(Path(encoder.weights)) if encoder.weights and encoder.weights.endswith(FILE) else None
    return made | {
        "model": encoder.model,
        "weights": weights or encoder.weights,
        "options": encoder.options,
        "preprocess": encoder.preprocess,
    }


def load(encoder: Encoder) -> Encodes:
    """The encoder; a network in evaluation mode, in float32. Raises ModelError where weights are missing or misfit."""
    if isinstance(encoder, Hog):
        return Gradients(encoder.side)
    if isinstance(encoder, Pixels):
        return Raw(encoder.side)
    if encoder.kind == "open_clip":
        return _open_clip(encoder)
    try:
        return _timm(encoder)
    except Exception as error:
        raise ModelError(f"encoder {encoder.model}: {clip_weights.line(error)}") from error


class Raw:
    """RGB, 0 to 1, of the picture resized to a square whatever its shape: [3 * side * side], channel by channel."""

    def __init__(self, side: int) -> None:
        self._side = side

    def prepare(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Resized by area, uint8 [side, side, 3]."""
        import cv2

        resized: npt.NDArray[np.uint8] = cv2.resize(
            np.asarray(image), (self._side, self._side), interpolation=cv2.INTER_AREA
        )
        return resized

    def encode(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """float32 [pictures, 3 * side * side]."""
        return np.stack(pictures).transpose(0, 3, 1, 2).reshape(len(pictures), -1).astype(np.float32) / np.float32(255)


class Gradients(Raw):
    """Histograms of oriented gradients (Dalal and Triggs 2005) of the picture resized to a square.

    Cells of 8 x 8 pixels, 9 unsigned directions, blocks of 2 x 2 cells that overlap by half and are normalised each by
    itself: 36 * (side / 8 - 1) ** 2 features, 0 to 1. Brightness and contrast of the picture hardly change them; where
    things lie, how large they are and how they are turned does. The strongest colour channel of a pixel counts.
    """

    def encode(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """float32 [pictures, dim]."""
        import cv2

        size = (self._side, self._side)
        describe = cv2.HOGDescriptor(size, (16, 16), (8, 8), (8, 8), 9).compute
        return np.stack([describe(each) for each in pictures]).astype(np.float32)


class Tower:
    """A frozen network, ready to run.

    `prepare` turns an RGB picture into a float tensor [3, height, width]; `forward` takes a stack of those.
    """

    def __init__(
        self,
        forward: "Callable[[torch.Tensor], torch.Tensor]",
        prepare: "Callable[[Image.Image], torch.Tensor]",
        batch: int = BATCH,
    ) -> None:
        self.prepare = prepare
        self._forward, self._batch, self._device = forward, batch, device.kind()

    def encode(self, pictures: "Sequence[torch.Tensor]") -> npt.NDArray[np.float32]:
        """float32 [pictures, dim]. Raises ModelError if memory ends at one picture, or a feature is no number."""
        import torch

        from pipeline.scorers.clip_model import in_batches

        def run(window: "Sequence[torch.Tensor]") -> torch.Tensor:
            # Channels last take half the time on a CPU.
            stacked = torch.stack(list(window)).to(self._device, memory_format=torch.channels_last)
            return self._forward(stacked).float()

        exactly = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        try:
            with exactly:
                features = in_batches(run, pictures, self._batch, fill=self._device != "cpu")
        except torch.OutOfMemoryError as error:
            raise ModelError("the encoder does not fit into memory, even with one picture at a time") from error
        if not np.abs(features).max() < np.finfo(np.float16).max:  # NaN is not either
            raise ModelError("the encoder gave features that are no numbers: its weights do not fit the model")
        return features


def _timm(encoder: Network) -> Tower:
    import timm
    from safetensors.torch import load_file

    local = bool(encoder.weights and encoder.weights.endswith(FILE))
    name = f"{encoder.model}.{encoder.weights}" if encoder.weights and not local else encoder.model
    model = timm.create_model(name, pretrained=not local, **encoder.options)
    if local:
        model.load_state_dict(load_file(str(encoder.weights)), strict=True)
    model.reset_classifier(0)
    settings = timm.data.resolve_data_config(_tuples(encoder.preprocess), model=model)
    return Tower(_frozen(model), timm.data.create_transform(**settings, is_training=False))


def _open_clip(encoder: Network) -> Tower:
    from open_clip import get_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torch.nn.functional import normalize

    model = clip_weights.find(encoder.model, encoder.weights, encoder.quick_gelu).load()
    prepare = image_transform_v2(PreprocessCfg(**get_model_preprocess_cfg(model)), is_train=False)
    _frozen(model)
    return Tower(lambda window: normalize(model.encode_image(window), dim=-1), prepare)


def _frozen(model: "torch.nn.Module") -> "torch.nn.Module":
    import torch

    return model.eval().requires_grad_(False).to(device.kind()).to(memory_format=torch.channels_last)


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
