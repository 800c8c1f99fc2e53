"""Encoders, from pictures to the features that a learner sees: the image tower of an open_clip model, any timm model
without its classifier, histograms of oriented gradients, or the pixels themselves."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import ModelError
from pipeline.models import clip_weights, device
from pipeline.settings.encoder import RANDOM, Encoder, Hog, Network, Pixels
from training.encoders import timm_weights

if TYPE_CHECKING:
    import torch

BATCH = 64
"""The largest number of pictures in one forward pass; halved when memory runs out."""

PIXELS = 8 * 224 * 224
"""The largest number of pixels in one forward pass on a CPU. Above it each layer frees and allocates memory again,
which halves the speed of convolutional networks."""

_OPENCV = "opencv-python-headless"


class Preparing(Protocol):
    """What prepares pictures for an encoder."""

    def prepare(self, image: Image.Image) -> Any:
        """From an upright RGB picture to the input of the encoder."""


class LoadedEncoder(Preparing, Protocol):
    """An encoder that is ready to run: `prepare` each picture, then `encode` any number of them."""

    def encode(self, pictures: Sequence[Any]) -> npt.NDArray[np.float32]:
        """Features [pictures, dim]. Raises ModelError."""


def identity(encoder: Encoder) -> dict[str, Any]:
    """All that decides an encoder's features, as JSON. Weights are identified by their digest, wherever they come from.

    Raises ModelError for missing weights, or weights that do not fit their model's activation.
    """
    if not isinstance(encoder, Network):
        return {**encoder.model_dump(), "versions": {_OPENCV: version(_OPENCV)}}
    library = {"timm": "timm", "open_clip": "open_clip_torch"}[encoder.kind]
    made: dict[str, Any] = {
        "kind": encoder.kind,
        "batch": [BATCH, PIXELS],
        "device": device.kind(),
        "versions": {name: version(name) for name in (library, "torch", "torchvision", "pillow")},
    }
    if encoder.kind == "timm":
        weights = timm_weights.find(encoder.model, encoder.weights).identity()
        return made | dict(weights) | {"options": encoder.options, "preprocess": encoder.preprocess}
    if encoder.weights == RANDOM:
        return made | {"model": encoder.model, "weights": RANDOM}
    return made | dict(clip_weights.find_model(encoder.model, encoder.weights, encoder.quick_gelu).identity())


def load(encoder: Encoder) -> LoadedEncoder:
    """The encoder; a network in evaluation mode, in float32. Raises ModelError for missing or wrong weights."""
    if isinstance(encoder, Hog):
        return HogEncoder(encoder.side)
    if isinstance(encoder, Pixels):
        return PixelEncoder(encoder.side)
    if encoder.kind == "open_clip":
        return _open_clip(encoder)
    try:
        return _timm(encoder)
    except Exception as error:
        raise ModelError(f"encoder {encoder.model}: {clip_weights.first_line(error)}") from error


class PixelEncoder:
    """The pixels of the picture resized to a square, RGB, 0 to 1, channel by channel: [3 * side * side]."""

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


class HogEncoder(PixelEncoder):
    """Histograms of oriented gradients (Dalal and Triggs 2005) of the picture resized to a square.

    Cells of 8 x 8 pixels, 9 unsigned directions, blocks of 2 x 2 cells that overlap by half, each normalised by itself:
    36 * (side / 8 - 1) ** 2 features, 0 to 1. They hardly depend on brightness and contrast, but on the position, size
    and rotation of things. Of a pixel the strongest colour channel counts.
    """

    def encode(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """float32 [pictures, dim]."""
        import cv2

        size = (self._side, self._side)
        describe = cv2.HOGDescriptor(size, (16, 16), (8, 8), (8, 8), 9).compute
        return np.stack([describe(each) for each in pictures]).astype(np.float32)


class Tower:
    """A network, ready to run: `network` gives features of a stack of pictures, `geometry` resizes and crops one.

    `batch` is the number of pictures in one pass, by default what suits the device. It is halved when memory runs out.
    """

    def __init__(
        self,
        network: "torch.nn.Module",
        geometry: Callable[[Image.Image], Image.Image],
        mean: Sequence[float],
        std: Sequence[float],
        batch: int | None = None,
    ) -> None:
        import torch

        self.network, self.batch, self.device = network, batch, device.kind()
        self._geometry = geometry
        self._mean, self._std = (
            torch.tensor(each, dtype=torch.float32, device=self.device)[:, None, None] for each in (mean, std)
        )

    def prepare(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """The model's own resize and crop: uint8 [height, width, 3]. A quarter of the bytes of a normalised tensor."""
        return np.asarray(self._geometry(image))

    def stack(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> "torch.Tensor":
        """The network's input from what `prepare` returned: float32 [pictures, 3, height, width], normalised."""
        import torch

        # Memory in the order [n, height, width, 3] is channels-last, which takes half the time on a CPU.
        pixels = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2)
        return pixels.float().div_(255).sub_(self._mean).div_(self._std)

    def default_batch(self, picture: npt.NDArray[np.uint8]) -> int:
        """How many pictures of this size go into one pass on this device."""
        height, width, _ = picture.shape
        return BATCH if self.device != "cpu" else min(BATCH, max(1, PIXELS // (height * width)))

    def encode(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """float32 [pictures, dim]. Raises ModelError if memory ends at one picture.

        Features may be NaN or infinite: see `finite.to_float16`.
        """
        import torch

        from pipeline.models.batches import in_batches, is_out_of_memory

        def run(window: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
            try:
                features: torch.Tensor = self.network(self.stack(window))
                return features.float()
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):  # `in_batches` halves this window; later ones start at that size
                    self.batch = max(1, len(window) // 2)
                raise

        self.batch = self.batch or self.default_batch(pictures[0])
        exactly = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        try:
            with exactly:
                features = in_batches(run, pictures, self.batch, fill=self.device != "cpu")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError("the encoder does not fit into memory, even with one picture at a time") from error
        return features


def _timm(encoder: Network) -> Tower:
    import timm

    model = timm_weights.find(encoder.model, encoder.weights).load(encoder.options)
    model.reset_classifier(0)
    settings = timm.data.resolve_data_config(_tuples(encoder.preprocess), model=model)
    *geometry, _, standard = timm.data.create_transform(**settings, is_training=False).transforms
    return _tower(model, geometry, standard)


def _open_clip(encoder: Network) -> Tower:
    import torch
    from open_clip import get_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torch.nn.functional import normalize

    class Pictures(torch.nn.Module):
        """The image tower of a model."""

        def __init__(self, model: Any) -> None:
            super().__init__()
            self.visual, self._encode = model.visual, model.encode_image

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            return normalize(self._encode(window), dim=-1)

    if encoder.weights == RANDOM:
        model = clip_weights.create_untrained(encoder.model)
    else:
        model = clip_weights.find_model(encoder.model, encoder.weights, encoder.quick_gelu).load()
    *geometry, _, standard = image_transform_v2(
        PreprocessCfg(**get_model_preprocess_cfg(model)), is_train=False
    ).transforms
    return _tower(Pictures(model), geometry, standard)


def _tower(network: "torch.nn.Module", geometry: Sequence[Any], standard: Any) -> Tower:
    """The network, frozen, on its device. `standard` is the model's own Normalize."""
    import torch
    from torchvision.transforms import Compose, Normalize

    assert isinstance(standard, Normalize)
    network.eval().requires_grad_(False).to(device.kind()).to(memory_format=torch.channels_last)
    mean, std = (torch.as_tensor(each).tolist() for each in (standard.mean, standard.std))
    return Tower(network, Compose(geometry), mean, std)


def _tuples(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
