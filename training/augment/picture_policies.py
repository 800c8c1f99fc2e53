"""Augmentation of pictures, by named policies. The same picture and seed always give the same version."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

VERSION = 2

Pixels = npt.NDArray[np.uint8]
"""RGB, [height, width, 3]."""


def _crop(height: int, width: int) -> Any:
    """At least half of the area, stretched to the whole."""
    import albumentations as album

    return album.RandomResizedCrop(size=(height, width), scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3))


def _flip(height: int, width: int) -> Any:
    import albumentations as album

    return album.HorizontalFlip(p=0.5)


def _jitter(height: int, width: int, hue: float = 0.05) -> Any:
    """Brightness, contrast and saturation by up to 30 %, and hue by up to that share of its circle."""
    import albumentations as album

    up_to = (0.7, 1.3)
    return album.ColorJitter(brightness=up_to, contrast=up_to, saturation=up_to, hue=(-hue, hue), p=0.8)


def _rotate(height: int, width: int) -> Any:
    """Up to 10 degrees. The edge is mirrored, so that no corner is black."""
    import albumentations as album

    return album.Rotate(limit=10, border_mode=4, p=0.5)


STEPS: Mapping[str, Callable[[int, int], Any]] = {
    "crop": _crop,
    "flip": _flip,
    "jitter": _jitter,
    "shade": partial(_jitter, hue=0),
    "rotate": _rotate,
}
"""Name -> the transform for a picture of that height and width. "shade" is "jitter" that leaves hue alone."""

POLICIES: Mapping[str, tuple[str, ...]] = {
    "classic": ("crop", "flip", "jitter", "rotate"),
    "question": ("flip", "jitter", "rotate"),
    **{name: (name,) for name in STEPS},
}
"""Name -> the steps, in order; "classic" has those of most image classification recipes.

"question" is "classic" without its crop, which could cut away what a question asks about.
"""


def seed(of: str, view: int) -> int:
    """The random seed of a version, by a picture's sha256 or a pair's uid, and the number of the view, from 1."""
    return int.from_bytes(hashlib.sha256(f"{of}:{view}".encode()).digest()[:4], "big")


def augment(pixels: Pixels, policy: str, seed: int) -> Pixels:
    """One augmented version, as large as the picture."""
    return apply(pixels, POLICIES[policy], seed)[0]


def apply(pixels: Pixels, steps: Sequence[str], seed: int) -> tuple[Pixels, tuple[str, ...]]:
    """The picture after these steps, and the steps that were applied: each has a probability.

    Every step has a seed of its own, so that leaving one out does not change the others.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask a server for its newest version
    applied = []
    for name in steps:
        transform = STEPS[name](*pixels.shape[:2])
        # With one seed for all, as in Compose, flip and rotation would always come together.
        transform.set_random_seed(_step_seed(seed, "jitter" if name == "shade" else name))
        pixels = transform(image=pixels)["image"]
        if transform.get_applied_params():
            applied.append(name)
    return pixels, tuple(applied)


def _step_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:4], "big")
