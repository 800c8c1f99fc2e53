"""Augmentation of pictures, by named policies. The same picture and view number always give the same version."""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 1
"""Raised whenever a policy of the same name would give other versions."""

Pixels = npt.NDArray[np.uint8]
"""RGB, [height, width, 3]."""


def _classic(height: int, width: int) -> list[Any]:
    """Crop, flip, colour jitter and up to 10 degrees of rotation, as in most image classification recipes."""
    import albumentations as album

    return [
        album.RandomResizedCrop(size=(height, width), scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3)),
        album.HorizontalFlip(p=0.5),
        album.ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.7, 1.3), hue=(-0.05, 0.05), p=0.8),
        album.Rotate(limit=10, border_mode=4, p=0.5),  # 4: the edge is mirrored, no black corners
    ]


POLICIES: Mapping[str, Callable[[int, int], list[Any]]] = {"classic": _classic}
"""Name -> the transforms for a picture of that height and width."""


def seed(sha256: str, view: int) -> int:
    """The random seed of one version: of a picture's sha256, in hex, and the number of the view, from 1."""
    return int.from_bytes(hashlib.sha256(f"{sha256}:{view}".encode()).digest()[:4], "big")


def view(pixels: Pixels, policy: str, seed: int) -> Pixels:
    """One augmented version, as large as the picture."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it asks a server for its newest version when imported
    import albumentations as album

    transforms = POLICIES[policy](*pixels.shape[:2])
    made: Pixels = album.Compose(transforms, seed=seed)(image=pixels)["image"]
    return made
