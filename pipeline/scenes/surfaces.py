"""Colours, floors and patterns of scenes: functions from a point of a surface to its colour."""

# mypy: disable-error-code=no-any-return
# numpy types arithmetic on float32 arrays as Any.

from collections.abc import Callable, Mapping
from functools import lru_cache

import cv2
import numpy as np

from pipeline.scenes.shapes import Floats

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.78, 0.06, 0.07),
    "orange": (0.93, 0.38, 0.03),
    "yellow": (0.93, 0.78, 0.07),
    "green": (0.10, 0.50, 0.12),
    "teal": (0.05, 0.62, 0.62),
    "blue": (0.07, 0.17, 0.74),
    "purple": (0.38, 0.10, 0.58),
    "pink": (0.95, 0.45, 0.62),
}
"""Linear-ish RGB, 0 to 1."""

_GRAIN = 256


@lru_cache(maxsize=1)
def _grain() -> Floats:
    """A [256, 256] tile of cloud-like noise, mean 0, about -1 to 1, without a seam."""
    random = np.random.default_rng(20)
    tile = np.zeros((_GRAIN, _GRAIN), np.float32)
    for cell in (4, 8, 16, 32, 64):
        coarse = random.normal(size=(_GRAIN // cell, _GRAIN // cell)).astype(np.float32)
        wrapped = np.pad(coarse, 2, mode="wrap")
        large = cv2.resize(wrapped, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        tile += large[2 * cell : 2 * cell + _GRAIN, 2 * cell : 2 * cell + _GRAIN] * np.float32(cell**0.5 / 8)
    return tile / np.float32(2 * tile.std())


def grain(u: Floats, v: Floats, scale: float) -> Floats:
    """Noise at a point of a surface; `scale` is in tiles a unit, 256 grains wide each."""
    columns = (u * (scale * _GRAIN)).astype(np.int32) & (_GRAIN - 1)
    rows = (v * (scale * _GRAIN)).astype(np.int32) & (_GRAIN - 1)
    return _grain()[rows, columns]


def _mix(share: Floats, low: tuple[float, float, float], high: tuple[float, float, float]) -> Floats:
    ends = np.array([low, high], np.float32)
    return ends[0] + share[:, None] * (ends[1] - ends[0])


def _wood(u: Floats, v: Floats) -> Floats:
    plank = np.floor(u * 1.7)
    along = grain(u, v * 0.12 + plank * 0.37, 0.9)
    tone = 0.5 + 0.28 * along + 0.25 * np.sin(plank * 12.9)
    gap = (u * 1.7 - plank < 0.05).astype(np.float32)
    return _mix(np.clip(tone - 0.7 * gap, 0, 1), (0.22, 0.11, 0.05), (0.66, 0.42, 0.22))


def _tiles(u: Floats, v: Floats) -> Floats:
    odd = (np.floor(u * 1.2) + np.floor(v * 1.2)) % 2
    tone = 0.1 + 0.8 * odd + 0.06 * grain(u, v, 0.5)
    return _mix(tone, (0.10, 0.11, 0.13), (0.86, 0.86, 0.83))


def _carpet(u: Floats, v: Floats) -> Floats:
    weave = 0.2 * np.sin(u * 34) * np.sin(v * 34)
    return _mix(np.clip(0.5 + 0.3 * grain(u, v, 1.6) + weave, 0, 1), (0.24, 0.08, 0.10), (0.50, 0.26, 0.26))


def _sand(u: Floats, v: Floats) -> Floats:
    ripple = 0.16 * np.sin(v * 9 + 1.6 * grain(u, v, 0.1))
    return _mix(np.clip(0.55 + 0.3 * grain(u, v, 2.1) + ripple, 0, 1), (0.55, 0.42, 0.24), (0.88, 0.76, 0.52))


def _grass(u: Floats, v: Floats) -> Floats:
    tone = 0.5 + 0.4 * grain(u * 3, v, 1.3) + 0.2 * grain(u, v, 0.25)
    return _mix(np.clip(tone, 0, 1), (0.05, 0.16, 0.03), (0.36, 0.52, 0.12))


def _marble(u: Floats, v: Floats) -> Floats:
    vein = np.abs(np.sin(u * 2.3 + v * 1.1 + 2.2 * grain(u, v, 0.12)))
    return _mix(np.clip(vein * 2.2, 0, 1), (0.42, 0.44, 0.47), (0.86, 0.86, 0.87))


FLOORS: Mapping[str, Callable[[Floats, Floats], Floats]] = {
    "wood": _wood,
    "tiles": _tiles,
    "carpet": _carpet,
    "sand": _sand,
    "grass": _grass,
    "marble": _marble,
}
"""Floor point (two coordinates in units, float32 [n]) -> RGB [n, 3]."""


def _plain(x: Floats, y: Floats, z: Floats) -> Floats:
    return 0.12 * grain(x + z, y, 0.25)


def _striped(x: Floats, y: Floats, z: Floats) -> Floats:
    return (np.sin(y * 15 + 1) > 0.1).astype(np.float32)


def _spotted(x: Floats, y: Floats, z: Floats) -> Floats:
    return (np.sin(x * 9) * np.sin(y * 9 + 1) * np.sin(z * 9 + 2) > 0.28).astype(np.float32)


def _checked(x: Floats, y: Floats, z: Floats) -> Floats:
    return ((np.floor(x * 3.1 + 0.5) + np.floor(y * 3.1) + np.floor(z * 3.1 + 0.5)) % 2).astype(np.float32)


PATTERNS: Mapping[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "plain": _plain,
    "shiny": _plain,
    "striped": _striped,
    "spotted": _spotted,
    "checked": _checked,
}
"""Point of a thing -> how far its colour goes over into the second one, 0 to 1."""
