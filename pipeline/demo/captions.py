"""Captions of scenes: a phrase that names the main thing, and often its colour, size, floor or light."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.scenes.scenes import Scene, Thing

VERSION = 1
"""Raised when the same scene and seed get another caption."""

SHAPE_WORDS: Mapping[str, tuple[str, ...]] = {
    "ball": ("ball", "ball", "sphere", "orb"),
    "cube": ("cube", "cube", "block", "box"),
    "cone": ("cone",),
    "cylinder": ("cylinder", "cylinder", "tin", "drum"),
    "pyramid": ("pyramid",),
    "ring": ("ring", "ring", "donut", "hoop"),
    "mug": ("mug", "mug", "cup"),
    "star": ("star",),
}
"""The words that name a class; no word stands for two, and none occurs in any other part of a caption."""

_COLOUR_WORDS: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "tangerine"),
    "yellow": ("yellow", "yellow", "golden"),
    "green": ("green", "green", "emerald"),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "blue", "cobalt"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "rose"),
}
_PATTERN_WORDS: Mapping[str, tuple[str, ...]] = {
    "plain": ("",),
    "shiny": ("shiny", "glossy", "polished"),
    "striped": ("striped", "banded"),
    "spotted": ("spotted", "dotted"),
    "checked": ("checked", "chequered"),
}
_FLOOR_WORDS: Mapping[str, tuple[str, ...]] = {
    "wood": ("on a wooden floor", "on wooden planks", "on a wood table"),
    "tiles": ("on black and white tiles", "on a tiled floor"),
    "carpet": ("on a carpet", "on a rug", "on the carpet"),
    "sand": ("on sand", "on the beach", "in the sand"),
    "grass": ("on grass", "on a lawn", "on the grass"),
    "marble": ("on marble", "on a marble floor"),
}
_STARTS = ("", "", "", "photo of ", "a photo of ", "picture of ", "close-up of ", "snapshot of ")


def _one(words: Sequence[str], random: np.random.Generator) -> str:
    return words[int(random.integers(len(words)))]


def _size(thing: Thing) -> tuple[str, ...]:
    if thing.scale < 0.8:
        return ("small", "little", "tiny")
    return ("large", "big", "huge") if thing.scale > 1.2 else ("",)


def _name(thing: Thing, random: np.random.Generator, size: Sequence[str]) -> str:
    """ "a small glossy red ball": article, now and then a size and a colour, a pattern where there is one."""
    words = [
        _one(size, random) if random.random() < 0.5 else "",
        _one(_PATTERN_WORDS[thing.pattern], random) if random.random() < 0.7 else "",
        _one(_COLOUR_WORDS[thing.colour], random) if random.random() < 0.93 else "",
        "toy" if random.random() < 0.08 else "",
        _one(SHAPE_WORDS[thing.shape], random),
    ]
    said = " ".join(word for word in words if word)
    return ("an " if said[0] in "aeiou" else "a ") + said


def _relation(main: Thing, other: Thing, random: np.random.Generator) -> str:
    if abs(other.z) > 1.2 * abs(other.x):
        return "in front of" if other.z < main.z else "behind"
    return _one(("next to", "beside", "with", "and"), random)


def _light(scene: Scene) -> tuple[str, ...]:
    if scene.brightness < 0.65:
        return ("in dim light", "in the dark")
    if scene.brightness > 1.2:
        return ("in bright light", "in the sun")
    if scene.warmth > 0.6:
        return ("in warm light",)
    return ("in cold light",) if scene.warmth < -0.6 else ("",)


def caption(scene: Scene, random: np.random.Generator) -> str:
    """One caption. Another state of the generator gives other words for the same scene."""
    main = scene.things[0]
    parts = [_one(_STARTS, random) + _name(main, random, _size(main))]
    if len(scene.things) > 1 and random.random() < 0.5:
        other = scene.things[1]
        parts.append(f"{_relation(main, other, random)} {_name(other, random, ('',))}")
    if random.random() < 0.6:
        parts.append(_one(_FLOOR_WORDS[scene.floor], random))
    if random.random() < 0.3:
        parts.append(_one(_light(scene), random))
    said = " ".join(part for part in parts if part)
    return said[0].upper() + said[1:] if random.random() < 0.4 else said
