"""Pictures of toys on a floor: what stands where, and a ray caster that makes it look like a photograph.

The same generator state gives the same picture on the same machine and libraries.
"""

# mypy: disable-error-code=no-any-return
# numpy types arithmetic on float32 arrays as Any.

from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.demo.shapes import SHAPES, Floats, Shape
from pipeline.demo.surfaces import COLOURS, FLOORS, PATTERNS, grain

VERSION = 1
"""Raised whenever the same seed gives another picture."""

SIZE = 128
"""Pixels a side."""

_TRACED = 192  # rays a side; averaged down to SIZE, which smooths the edges
_SUNK = np.float32(1e-3)

Picture = npt.NDArray[np.uint8]
"""RGB, uint8 [SIZE, SIZE, 3]."""


@dataclass(frozen=True)
class Thing:
    """A toy: what a caption may say of it, and where it stands (units; x to the right, z towards the camera)."""

    shape: str
    colour: str
    pattern: str
    scale: float
    x: float
    z: float
    turn: float
    pose: Shape = field(repr=False)

    @property
    def height(self) -> float:
        """Of its origin above the floor."""
        return self.pose.rest * self.scale


@dataclass(frozen=True)
class Scene:
    """The first thing is the main one: larger, and nearer the middle."""

    things: tuple[Thing, ...]
    floor: str
    warmth: float  # of the light, -1 cold to 1 warm
    brightness: float  # of the light, 1 is usual


def _thing(random: np.random.Generator, scale: float, x: float, z: float) -> Thing:
    name = str(random.choice(list(SHAPES)))
    pose = SHAPES[name][random.integers(len(SHAPES[name]))]
    return Thing(
        shape=name,
        colour=str(random.choice(list(COLOURS))),
        pattern=str(random.choice(list(PATTERNS), p=(0.34, 0.22, 0.16, 0.14, 0.14))),
        scale=scale,
        x=x,
        z=z,
        turn=float(random.uniform(-pose.turn, pose.turn)),
        pose=pose,
    )


def draw(random: np.random.Generator) -> Scene:
    """A scene: one thing, or in one of five scenes a second, smaller one of another shape."""
    main = _thing(
        random, float(random.choice([0.68, 1.0, 1.38], p=(0.25, 0.5, 0.25)) * random.uniform(0.93, 1.07)), 0, 0
    )
    things = [main]
    if random.random() < 0.2:
        angle = random.uniform(0, 2 * np.pi)
        scale = main.scale * random.uniform(0.5, 0.68)
        away = 1.05 * (main.pose.radius * main.scale + scale) + random.uniform(0, 0.3)
        other = _thing(random, float(scale), float(away * np.sin(angle)), float(away * np.cos(angle)))
        while other.shape == main.shape:
            other = _thing(random, other.scale, other.x, other.z)
        things.append(other)
    return Scene(
        things=tuple(things),
        floor=str(random.choice(list(FLOORS))),
        warmth=float(random.uniform(-1, 1)),
        brightness=float(random.choice([0.55, 1.0, 1.35], p=(0.15, 0.65, 0.2)) * random.uniform(0.9, 1.1)),
    )


@dataclass(frozen=True)
class _View:
    """Where the camera stands, and the direction of every ray: float32 [n, 3], unit length."""

    eye: Floats
    rays: Floats


def _unit(vectors: Floats) -> Floats:
    lengths: Floats = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))[..., None]
    return vectors / lengths


def _camera(random: np.random.Generator) -> _View:
    height, round_ = random.uniform(0.22, 0.72), random.uniform(-0.35, 0.35)
    distance = random.uniform(4.6, 6.0)
    eye = distance * np.array([np.cos(height) * np.sin(round_), np.sin(height), np.cos(height) * np.cos(round_)])
    target = np.array([random.uniform(-0.75, 0.75), random.uniform(0.2, 0.8), random.uniform(-0.3, 0.3)])
    forward = _unit((target - eye).astype(np.float32))
    right = _unit(np.cross(forward, [random.normal(0, 0.03), 1, 0]).astype(np.float32))
    up = np.cross(right, forward).astype(np.float32)
    reach = np.float32(np.tan(random.uniform(0.3, 0.38)))
    steps = (np.arange(_TRACED, dtype=np.float32) + 0.5) / _TRACED * 2 - 1
    across, down = np.meshgrid(steps * reach, steps * reach)
    rays = forward + across.ravel()[:, None] * right - down.ravel()[:, None] * up
    return _View(eye.astype(np.float32), _unit(rays))


def _into(thing: Thing, points: Floats, *, direction: bool) -> Floats:
    """World coordinates in the thing's own space, [3, n] for speed."""
    moved = points if direction else points - np.array([thing.x, thing.height, thing.z], np.float32)
    cos, sin = np.float32(np.cos(thing.turn)), np.float32(np.sin(thing.turn))
    x, y, z = moved[..., 0], moved[..., 1], moved[..., 2]
    turned: Floats = np.stack([cos * x - sin * z, y, sin * x + cos * z])
    return turned if direction else turned / np.float32(thing.scale)


def _entry(origin: Floats, rays: Floats, radius: float) -> tuple[Floats, Floats]:
    """Where rays enter and leave a ball around the thing's origin; NaN where they miss. Origin and rays: [3, n]."""
    nearest = -(origin * rays).sum(0)
    inside = radius**2 - (origin * origin).sum(0) + nearest**2
    with np.errstate(invalid="ignore"):
        half = np.sqrt(inside)
    return nearest - half, nearest + half


def _march(thing: Thing, eye: Floats, rays: Floats) -> tuple[npt.NDArray[np.intp], Floats]:
    """Which rays ([n, 3]) meet the thing, and how far from the eye, in its own units."""
    distance = thing.pose.distance
    origin, ways = _into(thing, eye[None], direction=False), _into(thing, rays, direction=True)
    near, far = _entry(origin, ways, thing.pose.radius)
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


def _normal(shape: Shape, points: Floats) -> Floats:
    """Unit normals at points of the surface, [3, n]."""
    corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    slope = np.zeros_like(points)
    for corner in corners:
        slope += corner[:, None] * shape.distance(*(points + 0.004 * corner[:, None]))
    return slope / (np.sqrt((slope * slope).sum(0)) + np.float32(1e-9))


def _shade_of(thing: Thing, floor: Floats, sun: Floats) -> Floats:
    """How much sunshine reaches points of the floor ([n, 3]) past the thing, 0 to 1: a soft shadow."""
    light = np.ones(len(floor), np.float32)
    origin = _into(thing, floor, direction=False)
    way = _into(thing, sun[None], direction=True)
    near, far = _entry(origin, way, thing.pose.radius * 1.15)
    index = np.flatnonzero(far > 0)
    origin, t = origin[:, index], np.maximum(near[index], 0.02)
    lit = np.ones(len(index), np.float32)
    for _ in range(14):
        step = thing.pose.distance(*(origin + t * way))
        lit = np.minimum(lit, 9 * step / t)
        t = t + np.clip(step, 0.03, 0.4)
    light[index] = np.clip(lit, 0, 1)
    return light


def _contact(thing: Thing, floor: Floats) -> Floats:
    """Less sky reaches the floor near a thing's foot: 0.35 to 1."""
    x, y, z = _into(thing, floor, direction=False)
    light = np.ones(len(floor), np.float32)
    close = np.flatnonzero(x * x + z * z < (thing.pose.radius + 0.5) ** 2)
    away = thing.pose.distance(x[close], y[close] + _SUNK, z[close])
    light[close] = np.clip(0.35 + 1.3 * away, 0.35, 1)
    return light


@dataclass(frozen=True)
class _Light:
    sun: Floats  # unit vector towards it
    sunshine: Floats  # RGB
    sky: Floats  # RGB

    @classmethod
    def over(cls, scene: Scene, random: np.random.Generator) -> "_Light":
        height, round_ = random.uniform(0.55, 1.15), random.uniform(-1.9, 1.9)
        sun = np.array([np.cos(height) * np.sin(round_), np.sin(height), np.cos(height) * np.cos(round_)], np.float32)
        tint = np.array([1 + 0.2 * scene.warmth, 1, 1 - 0.28 * scene.warmth], np.float32)
        share = random.uniform(0.3, 0.5)
        brightness = np.float32(scene.brightness)
        return cls(
            sun, tint * brightness * np.float32(1.25 - share), brightness * np.float32(share) * np.ones(3, np.float32)
        )


def _ground(scene: Scene, view: _View, light: _Light, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Colour and distance of everything that is no thing: the floor, and a wall behind it."""
    wall = np.array(random.uniform(0.35, 0.85) + random.uniform(-0.1, 0.1, 3), np.float32)
    behind = np.float32(random.uniform(3.2, 8))
    with np.errstate(divide="ignore"):
        down = np.where(view.rays[:, 1] < 0, -view.eye[1] / view.rays[:, 1], np.inf).astype(np.float32)
        back = np.where(view.rays[:, 2] < 0, (-behind - view.eye[2]) / view.rays[:, 2], np.inf).astype(np.float32)
    distance = np.minimum(down, back)
    colour = np.empty_like(view.rays)
    on_wall = np.flatnonzero(back < down)
    spot = view.eye + back[on_wall, None] * view.rays[on_wall]
    tone = 1 + 0.07 * grain(spot[:, 0] + 40, spot[:, 1], 0.2) - 0.04 * spot[:, 1]
    colour[on_wall] = wall * tone[:, None] * (light.sky + light.sunshine * np.float32(max(light.sun[2], 0.15) * 0.7))
    on_floor = np.flatnonzero(down <= back)
    spot = view.eye + down[on_floor, None] * view.rays[on_floor]
    turn = random.uniform(0, np.pi / 2)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    u = cos * spot[:, 0] - sin * spot[:, 2] + np.float32(random.uniform(20, 40))
    v = sin * spot[:, 0] + cos * spot[:, 2] + np.float32(random.uniform(20, 40))
    shade, open_sky = np.ones(len(spot), np.float32), np.ones(len(spot), np.float32)
    for thing in scene.things:
        shade = np.minimum(shade, _shade_of(thing, spot, light.sun))
        open_sky *= _contact(thing, spot)
    lit = light.sky * open_sky[:, None] + light.sunshine * (shade * light.sun[1])[:, None]
    colour[on_floor] = FLOORS[scene.floor](u, v) * lit * np.float32(random.uniform(0.85, 1.1))
    return colour, distance


def _skin(thing: Thing, points: Floats, random: np.random.Generator) -> Floats:
    """The thing's own colour at points of its surface ([3, n]) -> [n, 3]."""
    base = np.array(COLOURS[thing.colour], np.float32) * np.float32(random.uniform(0.88, 1.12))
    base = np.clip(base + random.normal(0, 0.02, 3).astype(np.float32), 0.01, 1)
    second = np.full(3, 0.9, np.float32) if random.random() < 0.7 else base * np.float32(0.25)
    return base + PATTERNS[thing.pattern](*points)[:, None] * (second - base)


def _put(thing: Thing, view: _View, light: _Light, canvas: tuple[Floats, Floats], random: np.random.Generator) -> None:
    """Draw the thing over the canvas (colour, distance) where it is the nearest."""
    colour, distance = canvas
    index, t = _march(thing, view.eye, view.rays)
    in_front = t * thing.scale < distance[index]
    index, t = index[in_front], t[in_front]
    rays = _into(thing, view.rays[index], direction=True)
    points = _into(thing, view.eye[None], direction=False) + t * rays
    normal = _normal(thing.pose, points)
    sun = _into(thing, light.sun[None], direction=True)
    facing = (normal * sun).sum(0)
    up = 0.5 + 0.5 * normal[1]
    lit = light.sky * (0.45 + 0.75 * up)[:, None] + light.sunshine * np.clip(0.9 * facing + 0.1, 0, 1)[:, None]
    shiny = thing.pattern == "shiny"
    half = sun - rays
    half = half / np.sqrt((half * half).sum(0))
    gleam = np.clip((normal * half).sum(0), 0, 1) ** (60 if shiny else 12) * (facing > 0)
    edge = (1 - np.abs((normal * rays).sum(0))) ** 3
    sheen = gleam * (0.85 if shiny else 0.08) + edge * (0.25 if shiny else 0.06)
    colour[index] = _skin(thing, points, random) * lit + sheen[:, None] * (light.sunshine + light.sky) * np.float32(0.6)
    distance[index] = t * np.float32(thing.scale)


def render(scene: Scene, random: np.random.Generator) -> Picture:
    """A photograph of the scene: another camera, light and sensor noise each time."""
    cv2.setNumThreads(1)
    view, light = _camera(random), _Light.over(scene, random)
    canvas = _ground(scene, view, light, random)
    for thing in scene.things:
        _put(thing, view, light, canvas, random)
    traced = canvas[0].reshape(_TRACED, _TRACED, 3)
    seen = cv2.resize(traced, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return _develop(seen, random)


def _develop(seen: Floats, random: np.random.Generator) -> Picture:
    """What a small camera makes of the light: focus, vignette, exposure, sensor noise, tone curve."""
    focus = float(random.uniform(0.3, 0.65))
    soft = cv2.GaussianBlur(seen, (0, 0), focus)
    steps = np.linspace(-1, 1, SIZE, dtype=np.float32) ** 2
    corner = 1 - np.float32(random.uniform(0, 0.18)) * (steps[:, None] + steps[None])
    exposed = soft * (corner * np.float32(random.uniform(0.9, 1.1)))[..., None]
    noisy = exposed + random.standard_normal(exposed.shape, dtype=np.float32) * np.float32(random.uniform(0.004, 0.022))
    toned = np.clip(noisy, 0, 1.6) / (1 + 0.25 * np.clip(noisy, 0, 1.6))
    picture: Picture = (np.clip(toned * 1.12, 0, 1) ** np.float32(1 / 1.9) * 255).astype(np.uint8)
    return picture
