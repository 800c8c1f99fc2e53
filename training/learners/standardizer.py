"""Features with mean 0 and deviation 1, by the statistics of the pairs that a learner trains on."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.encoders.finite import check_finite

if TYPE_CHECKING:
    import torch

Views = npt.NDArray[np.float16]
"""Features [pictures, versions, dim], the plain version first."""

Statistics = npt.NDArray[np.float32]

_CHUNK = 4096


class Standardizer:
    """Subtracts a mean and divides by a deviation: float32 [dim] each."""

    def __init__(self, mean: Statistics, deviation: Statistics, device: str = "cpu") -> None:
        import torch

        self._mean, self._deviation = (torch.from_numpy(each).to(device) for each in (mean, deviation))

    @classmethod
    def of(cls, views: Views) -> "Standardizer":
        """By all versions of all pictures. Raises ModelError for a picture whose features are not finite."""
        check_finite(views, "training pair {}".format)
        return cls(*statistics(views))

    def __call__(self, features: "torch.Tensor") -> "torch.Tensor":
        """float32 [rows, dim]."""
        import torch

        return features.to(torch.float32, copy=True).sub_(self._mean).div_(self._deviation)


def statistics(views: Views) -> tuple[Statistics, Statistics]:
    """Mean and standard deviation of each feature over all versions; 1 for a feature that never changes."""
    total = np.zeros(views.shape[2])
    squares = np.zeros(views.shape[2])
    for at in range(0, len(views), _CHUNK):
        chunk = views[at : at + _CHUNK].astype(np.float64)
        total += chunk.sum(axis=(0, 1))
        squares += (chunk**2).sum(axis=(0, 1))
    count = views.shape[0] * views.shape[1]
    mean = total / count
    variance = squares / count - mean**2
    deviation = np.sqrt(np.where(variance > 1e-10, variance, 1.0))
    return mean.astype(np.float32), deviation.astype(np.float32)
