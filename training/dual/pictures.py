"""How pictures are prepared for an image tower: as open_clip does, so that a saved model is prepared alike everywhere.

The short side is resized to the tower's size, and the middle is cropped. A `crop_pct` below 1, timm's habit, resizes to
more than is kept: it must be named, and open_clip cannot hold it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from pipeline.errors import ModelError
from training.encoders.encoders import Tower

INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Preparation:
    """`size` in pixels of the square; `mean` and `std` of channels of 0 to 1."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    crop_pct: float = 1.0

    @classmethod
    def of_json(cls, table: Mapping[str, Any]) -> "Preparation":
        """From what `as_json` gave."""
        return cls(**{**table, "mean": tuple(table["mean"]), "std": tuple(table["std"])})

    def as_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    def open_clip(self) -> dict[str, Any]:
        """The preprocess_cfg of open_clip, which lacks `crop_pct`."""
        table = {name: value for name, value in asdict(self).items() if name != "crop_pct"}
        return {**table, "mode": "RGB", "fill_color": 0}


def of_timm(trunk: nn.Module, preprocess: Mapping[str, Any], size: int | None) -> Preparation:
    """A timm model's own mean, standard deviation, interpolation and size, overridden. Raises ModelError."""
    import timm

    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in preprocess.items()
    }
    own = timm.data.resolve_data_config(given, model=trunk)
    if own["interpolation"] not in INTERPOLATIONS:
        raise ModelError(
            f"pictures are resized by {own['interpolation']}, and a model knows {' and '.join(INTERPOLATIONS)}: "
            'set preprocess = { interpolation = "bicubic" }'
        )
    return Preparation(
        size or _square(own["input_size"][1:]),
        tuple(own["mean"]),
        tuple(own["std"]),
        own["interpolation"],
        crop_pct=float(given.get("crop_pct", 1.0)),
    )


def of_open_clip(model: nn.Module) -> Preparation:
    """The preprocessing of an open_clip model."""
    from open_clip import get_model_preprocess_cfg

    own = get_model_preprocess_cfg(model)
    size = own["size"] if isinstance(own["size"], int) else _square(own["size"])
    return Preparation(size, tuple(own["mean"]), tuple(own["std"]), own["interpolation"], own["resize_mode"])


def tower(network: nn.Module, how: Preparation) -> Tower:
    """`prepare` and `stack` for the network, which it holds, and does not change."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    *geometry, _, _ = image_transform_v2(PreprocessCfg(**how.open_clip()), is_train=False).transforms
    if how.crop_pct != 1:
        wider = int(how.size / how.crop_pct)
        geometry = [Resize(wider, InterpolationMode(how.interpolation)), CenterCrop(how.size)]
    return Tower(network, Compose(geometry), how.mean, how.std)


def _square(size: Sequence[int]) -> int:
    height, width = size
    if height != width:
        raise ModelError(f"the image tower sees {height} x {width} pixels, and a model takes squares: name another")
    return int(height)
