"""A model's own preprocessing of pictures: geometry on processes of the pool, standardizing on the device."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor


class Standard:
    """Subtracts the mean and divides by the standard deviation of each channel, both [3], of values from 0 to 1."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean, self.std = torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)

    def __call__(self, pictures: Sequence[npt.NDArray[np.uint8]], device: str, dtype: torch.dtype) -> Tensor:
        """[n, 3, height, width], channels-last, for pictures [height, width, 3].

        A processor takes one picture at a time, which its cache holds: that is twice as fast as all of them at once.
        """
        if device == "cpu":
            standard = torch.empty((len(pictures), *pictures[0].shape), dtype=dtype)
            for place, picture in enumerate(pictures):
                standard[place] = self._standard(torch.tensor(picture))
        else:
            standard = self._standard(on_device(torch.from_numpy(np.stack(pictures)), device)).to(dtype)
        return standard.permute(0, 3, 1, 2)

    def _standard(self, values: Tensor) -> Tensor:
        mean, std = self.mean.to(values.device), self.std.to(values.device)
        return values.float().div_(255).sub_(mean).div_(std)


def on_device(items: Tensor, device: str) -> Tensor:
    """From pinned memory a copy to a GPU runs beside the passes that are under way."""
    return items if device == "cpu" else items.pin_memory().to(device, non_blocking=True)


class Geometry:
    """The resize and crop of a model. It pickles, and needs no model."""

    def __init__(self, steps: Callable[[Image.Image], Image.Image]) -> None:
        self._steps = steps

    def __call__(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """An RGB picture as uint8 [height, width, 3]."""
        return np.asarray(self._steps(image))


def preprocessing(model: Any) -> tuple[Geometry, Standard]:
    """The geometry (resize and crop) of an open_clip model, and its standardizing."""
    from open_clip import get_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.transforms import Compose, Normalize, ToTensor

    *geometry, tensor, standard = image_transform_v2(
        PreprocessCfg(**get_model_preprocess_cfg(model)), is_train=False
    ).transforms
    assert isinstance(tensor, ToTensor)
    assert isinstance(standard, Normalize)
    return Geometry(Compose(geometry)), Standard(standard.mean, standard.std)
