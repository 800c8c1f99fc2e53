"""Scenes of toys on a floor, as data for captions and for the renderer.

The same generator state gives the same scene on the same machine and libraries.
"""

from dataclasses import dataclass, field

import numpy as np

from pipeline.scenes.shapes import SHAPES, Shape
from pipeline.scenes.surfaces import COLOURS, FLOORS, PATTERNS

VERSION = 1
"""Raised when the same seed gives another picture."""


@dataclass(frozen=True)
class Thing:
    """A toy: its properties for a caption, and its position in units (x to the right, z towards the camera)."""

    shape: str
    colour: str
    pattern: str
    scale: float
    x: float
    z: float
    turn: float
    pose: Shape = field(repr=False)
    lift: float = 0.0  # above the floor

    @property
    def height(self) -> float:
        """Height of its origin above the floor, in units."""
        return self.pose.rest * self.scale + self.lift


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
