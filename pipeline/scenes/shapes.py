"""The eight shapes of scenes, as signed distances in a thing's own space (y up, about 1 unit across).

A distance may be too short, never too long, so that a ray may always advance by it.
"""

# mypy: disable-error-code=no-any-return
# numpy types arithmetic on float32 arrays as Any.

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[Any]
"""float32 all through; numpy's types for arithmetic say less than they know."""
Distance: TypeAlias = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class Shape:
    """`rest`: how high the origin is above the floor; `radius`: a sphere around the origin that holds it all.

    `turn`: how far it may be turned about the vertical, radians to either side, without looking like another shape.
    """

    distance: Distance
    rest: float
    radius: float
    turn: float = np.pi


def _ball(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.sqrt(x * x + y * y + z * z) - 0.8


def _cube(x: Floats, y: Floats, z: Floats) -> Floats:
    x, y, z = np.abs(x) - 0.56, np.abs(y) - 0.56, np.abs(z) - 0.56
    outside = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2 + np.maximum(z, 0) ** 2)
    return outside + np.minimum(np.maximum(np.maximum(x, y), z), 0) - 0.06


def _cone(x: Floats, y: Floats, z: Floats) -> Floats:
    side = (np.sqrt(x * x + z * z) * 1.5 + (y - 0.8) * 0.72) / np.float32(np.hypot(1.5, 0.72))
    return np.maximum(side, -0.67 - y) - 0.03


def _cylinder(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.maximum(np.sqrt(x * x + z * z) - 0.55, np.abs(y) - 0.71) - 0.04


def _pyramid(x: Floats, y: Floats, z: Floats) -> Floats:
    side = (np.maximum(np.abs(x), np.abs(z)) * 1.3 + (y - 0.7) * 0.78) / np.float32(np.hypot(1.3, 0.78))
    return np.maximum(side, -0.57 - y) - 0.03


def _lying_ring(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.hypot(np.hypot(x, z) - 0.62, y) - 0.25


def _standing_ring(x: Floats, y: Floats, z: Floats) -> Floats:
    return np.hypot(np.hypot(x, y) - 0.62, z) - 0.22


def _mug(x: Floats, y: Floats, z: Floats) -> Floats:
    round_ = np.sqrt(x * x + z * z)
    body = np.maximum(round_ - 0.56, np.abs(y) - 0.62)
    handle = np.hypot(np.hypot(x - 0.6, y) - 0.33, z) - 0.1
    hollow = np.maximum(round_ - 0.46, -0.5 - y)
    return np.maximum(np.minimum(body, handle), -hollow)


_TIP, _DENT = 0.9, 0.42
_FIFTH = np.float32(2 * np.pi / 5)
_VALLEY = (_DENT * np.cos(np.pi / 5), _DENT * np.sin(np.pi / 5))
_ACROSS = float(np.hypot(_VALLEY[1], _TIP - _VALLEY[0]))


def _star(x: Floats, y: Floats, z: Floats) -> Floats:
    angle = np.abs((np.arctan2(x, y) + _FIFTH / 2) % _FIFTH - _FIFTH / 2)
    far = np.hypot(x, y)
    edge = ((far * np.cos(angle) - _TIP) * _VALLEY[1] + far * np.sin(angle) * (_TIP - _VALLEY[0])) / _ACROSS
    return np.maximum(edge, np.abs(z) - 0.2) - 0.03


SHAPES: Mapping[str, tuple[Shape, ...]] = {
    "ball": (Shape(_ball, 0.8, 0.8),),
    "cube": (Shape(_cube, 0.62, 1.08),),
    "cone": (Shape(_cone, 0.7, 1.08),),
    "cylinder": (Shape(_cylinder, 0.75, 0.97),),
    "pyramid": (Shape(_pyramid, 0.6, 1.3),),
    "ring": (Shape(_lying_ring, 0.25, 0.88), Shape(_standing_ring, 0.84, 0.85, 0.9)),
    "mug": (Shape(_mug, 0.62, 1.05, 1.2),),
    "star": (Shape(_star, 0.76, 0.98, 0.8),),
}
"""Shapes by class; a class may come in several poses."""
