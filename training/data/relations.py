"""Drawn pictures that differ in where two things are, and control pictures that differ in what is there.

Each draw has two things, whose colours differ. For a relation there are two pictures, in which the things have changed
places under the same camera and light, and each is asked with both orders of mention: "a yellow cube in front of a blue
ball" against "a yellow cube behind a blue ball". So every caption is right as often as it is wrong, and words, order,
colours, shapes and sizes tell nothing. Of a control the second picture has another shape or colour in place of one: "a
blue cube and a yellow cube" against "a blue cube and a yellow ball".
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from pipeline.scenes import rendering, scenes
from pipeline.scenes.scenes import Scene, Thing
from pipeline.scenes.shapes import SHAPES
from pipeline.scenes.surfaces import COLOURS, FLOORS
from pipeline.store.digests import digest
from training.data.contrasts import Contrast, Contrasts, Pixels

VERSION = 1

DRAWS = 25
"""Draws of each kind."""

RELATIONS: Mapping[str, tuple[str, str]] = {
    "front and behind": ("in front of", "behind"),
    "left and right": ("to the left of", "to the right of"),
    "above and below": ("above", "below"),
}
"""By kind, a relation and its reverse."""

CONTROLS = ("control: shape", "control: colour")

_ASIDE, _DEEP, _HIGH = 0.62, 0.8, 1.1
"""Half of the distance between two things that are side by side, or one behind the other, and how high one floats."""


def drawn(draws: int = DRAWS, seed: int = 0) -> Contrasts:
    """So many draws of each kind: four contrasts of two pictures each. The same seed gives the same ones."""
    items, pictures = list[Contrast](), list[tuple[Scene, int]]()
    for number, kind in enumerate((*RELATIONS, *CONTROLS)):
        for draw in range(draws):
            random = np.random.default_rng([seed, number, draw])
            one, other = _things(random)
            both, captions = (_relation if kind in RELATIONS else _control)(kind, one, other, random)
            floor, light = str(random.choice(list(FLOORS))), int(random.integers(2**31))
            first, place = len(pictures), number * draws + draw
            pictures += [(Scene(things, floor, 0.0, 1.0), light) for things in both]
            for order, (right, wrong) in enumerate(captions):
                group = 2 * place + order
                items.append(Contrast(kind, first, right, (wrong,), group, place))
                items.append(Contrast(kind, first + 1, wrong, (right,), group, place))
    identity = digest(["relations", VERSION, scenes.VERSION, draws, seed])
    return Contrasts(items, partial(_rendered, pictures), len(pictures), identity, frozenset(RELATIONS))


def _rendered(pictures: list[tuple[Scene, int]]) -> Iterator[Pixels]:
    for scene, light in pictures:
        yield rendering.render(scene, np.random.default_rng(light))


def _things(random: np.random.Generator) -> tuple[Thing, Thing]:
    """Two things whose colours differ, at the same place."""
    colours = random.choice(list(COLOURS), 2, replace=False)
    one, other = (_thing(random, str(random.choice(list(SHAPES))), str(colour)) for colour in colours)
    return one, other


def _thing(random: np.random.Generator, shape: str, colour: str) -> Thing:
    pose = SHAPES[shape][0]
    turn = float(random.uniform(-pose.turn, pose.turn))
    return Thing(shape, colour, "plain", float(random.uniform(0.48, 0.6)), 0.0, 0.0, turn, pose)


def _relation(
    kind: str, one: Thing, other: Thing, random: np.random.Generator
) -> tuple[tuple[tuple[Thing, Thing], tuple[Thing, Thing]], list[tuple[str, str]]]:
    """The first thing in the relation to the second, and the other way round; the captions of both orders."""
    aside = random.uniform(-0.25, 0.25, 2)

    def at(thing: Thing, side: float) -> Thing:
        jitter = float(aside[int(side > 0)])
        if kind == "front and behind":
            return replace(thing, x=jitter, z=side * _DEEP)
        if kind == "left and right":
            return replace(thing, x=-side * _ASIDE, z=jitter)
        return replace(thing, x=jitter / 2, z=0.0, lift=_HIGH * (side + 1) / 2)

    named = (_named(one), _named(other))
    relation, reverse = RELATIONS[kind]
    captions = [
        (f"{named[0]} {relation} {named[1]}", f"{named[0]} {reverse} {named[1]}"),
        (f"{named[1]} {reverse} {named[0]}", f"{named[1]} {relation} {named[0]}"),
    ]
    return ((at(one, 1), at(other, -1)), (at(one, -1), at(other, 1))), captions


def _control(
    kind: str, one: Thing, other: Thing, random: np.random.Generator
) -> tuple[tuple[tuple[Thing, Thing], tuple[Thing, Thing]], list[tuple[str, str]]]:
    """Both things, and another one in place of the second; the captions of both orders."""
    side = float(random.choice([-1, 1]))
    one, other = (replace(thing, x=way * side * _ASIDE) for thing, way in ((one, 1), (other, -1)))
    if kind == "control: shape":
        name = str(random.choice([each for each in SHAPES if each not in (one.shape, other.shape)]))
        changed = replace(other, shape=name, pose=SHAPES[name][0])
    else:
        free = [each for each in COLOURS if each not in (one.colour, other.colour)]
        changed = replace(other, colour=str(random.choice(free)))
    first, second, third = _named(one), _named(other), _named(changed)
    captions = [(f"{first} and {second}", f"{first} and {third}"), (f"{second} and {first}", f"{third} and {first}")]
    return ((one, other), (one, changed)), captions


def _named(thing: Thing) -> str:
    return f"{'an' if thing.colour == 'orange' else 'a'} {thing.colour} {thing.shape}"
