"""Photographs of scenes: light, floor, wall and things, as a small camera sees them.

The same generator state gives the same picture on the same machine and libraries.
"""

# mypy: disable-error-code=no-any-return
# numpy types arithmetic on float32 arrays as Any.

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.scenes.rays import TRACED, View, camera, march, normals, skylight, sunlight, to_thing
from pipeline.scenes.scenes import Scene, Thing
from pipeline.scenes.shapes import Floats
from pipeline.scenes.surfaces import COLOURS, FLOORS, PATTERNS, grain

SIZE = 128
"""Pixels a side. Rays are averaged down to them, which smooths the edges."""

Picture = npt.NDArray[np.uint8]
"""RGB, uint8 [SIZE, SIZE, 3]."""


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


def _ground(scene: Scene, view: View, light: _Light, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Colour and distance of the background, a value a ray: the floor, and a wall behind it."""
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
        shade = np.minimum(shade, sunlight(thing, spot, light.sun))
        open_sky *= skylight(thing, spot)
    lit = light.sky * open_sky[:, None] + light.sunshine * (shade * light.sun[1])[:, None]
    colour[on_floor] = FLOORS[scene.floor](u, v) * lit * np.float32(random.uniform(0.85, 1.1))
    return colour, distance


def _skin(thing: Thing, points: Floats, random: np.random.Generator) -> Floats:
    """The thing's own colour at points of its surface ([3, n]) -> [n, 3]."""
    base = np.array(COLOURS[thing.colour], np.float32) * np.float32(random.uniform(0.88, 1.12))
    base = np.clip(base + random.normal(0, 0.02, 3).astype(np.float32), 0.01, 1)
    second = np.full(3, 0.9, np.float32) if random.random() < 0.7 else base * np.float32(0.25)
    return base + PATTERNS[thing.pattern](*points)[:, None] * (second - base)


def _put(thing: Thing, view: View, light: _Light, canvas: tuple[Floats, Floats], random: np.random.Generator) -> None:
    """Draw the thing on the canvas (colour, distance), where nothing is nearer."""
    colour, distance = canvas
    index, t = march(thing, view.eye, view.rays)
    in_front = t * thing.scale < distance[index]
    index, t = index[in_front], t[in_front]
    rays = to_thing(thing, view.rays[index], direction=True)
    points = to_thing(thing, view.eye[None], direction=False) + t * rays
    normal = normals(thing.pose, points)
    sun = to_thing(thing, light.sun[None], direction=True)
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
    view, light = camera(random), _Light.over(scene, random)
    canvas = _ground(scene, view, light, random)
    for thing in scene.things:
        _put(thing, view, light, canvas, random)
    traced = canvas[0].reshape(TRACED, TRACED, 3)
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
