"""A ray caster: which rays of the camera meet a thing, and how much light reaches the floor past it.

Points and directions are float32; a thing's surface is where its signed distance is 0 (`pipeline.scenes.shapes`).
"""

# mypy: disable-error-code=no-any-return
# numpy types arithmetic on float32 arrays as Any.

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.scenes.scenes import Thing
from pipeline.scenes.shapes import Floats, Shape

TRACED = 192
"""Rays a side of a picture."""

_SUNK = np.float32(1e-3)


@dataclass(frozen=True)
class View:
    """The position of the camera, and the direction of every ray: float32 [n, 3], unit length."""

    eye: Floats
    rays: Floats


def unit(vectors: Floats) -> Floats:
    """The vectors with length 1, [..., 3]."""
    lengths: Floats = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return vectors / lengths


def camera(random: np.random.Generator) -> View:
    """A random view of the middle of the floor, with TRACED ** 2 rays."""
    height, round_ = random.uniform(0.22, 0.72), random.uniform(-0.35, 0.35)
    distance = random.uniform(4.6, 6.0)
    eye = distance * np.array([np.cos(height) * np.sin(round_), np.sin(height), np.cos(height) * np.cos(round_)])
    target = np.array([random.uniform(-0.75, 0.75), random.uniform(0.2, 0.8), random.uniform(-0.3, 0.3)])
    forward = unit((target - eye).astype(np.float32))
    right = unit(np.cross(forward, [random.normal(0, 0.03), 1, 0]).astype(np.float32))
    up = np.cross(right, forward).astype(np.float32)
    reach = np.float32(np.tan(random.uniform(0.3, 0.38)))
    steps = (np.arange(TRACED, dtype=np.float32) + 0.5) / TRACED * 2 - 1
    across, down = np.meshgrid(steps * reach, steps * reach)
    rays = forward + across.ravel()[:, None] * right - down.ravel()[:, None] * up
    return View(eye.astype(np.float32), unit(rays))


def to_thing(thing: Thing, points: Floats, *, direction: bool) -> Floats:
    """World coordinates [n, 3] in the thing's own space, [3, n] for speed. A direction keeps its length."""
    moved = points if direction else points - np.array([thing.x, thing.height, thing.z], np.float32)
    cos, sin = np.float32(np.cos(thing.turn)), np.float32(np.sin(thing.turn))
    x, y, z = moved[..., 0], moved[..., 1], moved[..., 2]
    turned: Floats = np.stack([cos * x - sin * z, y, sin * x + cos * z])
    return turned if direction else turned / np.float32(thing.scale)


def ball_crossing(origin: Floats, rays: Floats, radius: float) -> tuple[Floats, Floats]:
    """Where rays enter and leave a ball around the thing's origin; NaN where they miss. Origin and rays: [3, n]."""
    nearest = -(origin * rays).sum(0)
    inside = radius**2 - (origin * origin).sum(0) + nearest**2
    with np.errstate(invalid="ignore"):
        half = np.sqrt(inside)
    return nearest - half, nearest + half


def march(thing: Thing, eye: Floats, rays: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Which rays ([n, 3]) meet the thing, and how far from the eye, in its own units."""
    distance = thing.pose.distance
    origin, ways = to_thing(thing, eye[None], direction=False), to_thing(thing, rays, direction=True)
    near, far = ball_crossing(origin, ways, thing.pose.radius)
    index = np.flatnonzero(far > 0)
    ways, t, far = ways[:, index], np.maximum(near[index], 0), far[index]
    met: list[tuple[npt.NDArray[np.intp], Floats]] = []
    for _ in range(10):
        for _ in range(4):
            step = distance(*(origin + t * ways))
            t = t + step
        hit = step < 0.004
        met.append((index[hit], t[hit]))
        going = ~hit & (t < far)
        index, ways, t, far = index[going], ways[:, going], t[going], far[going]
        if not index.size:
            break
    return np.concatenate([each[0] for each in met]), np.concatenate([each[1] for each in met])


def normals(shape: Shape, points: Floats) -> Floats:
    """Unit normals at points of the surface, [3, n]."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    slope = np.zeros_like(points)
    for corner in corners:
        slope += corner[:, None] * shape.distance(*(points + 0.004 * corner[:, None]))
    return slope / (np.sqrt((slope * slope).sum(0)) + np.float32(1e-9))


def sunlight(thing: Thing, floor: Floats, sun: Floats) -> Floats:
    """The share of sunshine that reaches points of the floor ([n, 3]) past the thing, 0 to 1: a soft shadow."""
    light = np.ones(len(floor), np.float32)
    origin = to_thing(thing, floor, direction=False)
    way = to_thing(thing, sun[None], direction=True)
    near, far = ball_crossing(origin, way, thing.pose.radius * 1.15)
    index = np.flatnonzero(far > 0)
    origin, t = origin[:, index], np.maximum(near[index], 0.02)
    lit = np.ones(len(index), np.float32)
    for _ in range(14):
        step = thing.pose.distance(*(origin + t * way))
        lit = np.minimum(lit, 9 * step / t)
        t = t + np.clip(step, 0.03, 0.4)
    light[index] = np.clip(lit, 0, 1)
    return light


def skylight(thing: Thing, floor: Floats) -> Floats:
    """The share of skylight that reaches points of the floor ([n, 3]) near a thing, 0.35 to 1."""
    x, y, z = to_thing(thing, floor, direction=False)
    light = np.ones(len(floor), np.float32)
    close = np.flatnonzero(x * x + z * z < (thing.pose.radius + 0.5) ** 2)
    away = thing.pose.distance(x[close], y[close] + _SUNK, z[close])
    light[close] = np.clip(0.35 + 1.3 * away, 0.35, 1)
    return light
