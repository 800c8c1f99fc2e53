"""Whether a model prefers the right caption of a picture to wrong ones, by kind; strictly: a tie is wrong."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.data.contrasts import Contrast
from training.measures.intervals import LEVEL, RESAMPLES
from training.measures.metrics import Units

Hits = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Share:
    """A share, and its interval: a bootstrap over draws."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Kind:
    """The figures of a kind.

    `accuracy` is the share of contrasts whose right caption is nearer to the picture than every wrong one, `group` that
    of groups in which all are right, and `blind` the accuracy of a model that sees the mean picture in place of each:
    the text alone. `chance` is that of a guess, and `group_chance` that of guessing all of a group.
    """

    name: str
    spatial: bool
    contrasts: int
    groups: int
    accuracy: Share
    group: Share
    blind: float
    chance: float
    group_chance: float

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def hits(items: Sequence[Contrast], pictures: Units, texts: dict[str, npt.NDArray[np.float32]]) -> Hits:
    """Which contrasts are right: [contrasts]. `pictures` [pictures, dim] and texts are L2-normalised."""
    found = [
        float(pictures[each.picture] @ texts[each.right])
        > max(float(pictures[each.picture] @ texts[wrong]) for wrong in each.wrong)
        for each in items
    ]
    return np.array(found, bool)


def blind(items: Sequence[Contrast], pictures: Units, texts: dict[str, npt.NDArray[np.float32]]) -> Hits:
    """The same for the mean of all pictures in place of each."""
    mean = pictures.mean(axis=0, keepdims=True)
    return hits([Contrast(each.kind, 0, each.right, each.wrong, 0, 0) for each in items], mean, texts)


def kinds(items: Sequence[Contrast], right: Hits, alone: Hits, spatial: frozenset[str]) -> list[Kind]:
    """The figures of every kind, in the order of the contrasts. `alone` are the hits of the text alone."""
    names = list(dict.fromkeys(each.kind for each in items))
    return [_kind(name, name in spatial, items, right, alone) for name in names]


def _kind(name: str, spatial: bool, items: Sequence[Contrast], right: Hits, alone: Hits) -> Kind:
    own = [at for at, each in enumerate(items) if each.kind == name]
    guess = np.array([1 / (1 + len(items[at].wrong)) for at in own])
    groups, place = np.unique([items[at].group for at in own], return_inverse=True)
    place = place.reshape(-1)
    whole = np.bincount(place, ~right[own], minlength=len(groups)) == 0
    guessed = np.exp(np.bincount(place, np.log(guess), minlength=len(groups)))
    draw = np.array([items[at].draw for at in own])
    group_draw = np.zeros(len(groups), np.int64)
    group_draw[place] = draw
    return Kind(
        name,
        spatial,
        len(own),
        len(groups),
        _share(right[own], draw),
        _share(whole, group_draw),
        float(alone[own].mean()),
        float(guess.mean()),
        float(guessed.mean()),
    )


def _share(right: Hits, draw: npt.NDArray[np.int64]) -> Share:
    """The share, with a bootstrap over draws, each with all that it has."""
    draws, place = np.unique(draw, return_inverse=True)
    place = place.reshape(-1)
    hit = np.bincount(place, right, minlength=len(draws))
    count = np.bincount(place, minlength=len(draws))
    random = np.random.default_rng(20261126)
    times = random.multinomial(len(draws), np.full(len(draws), 1 / len(draws)), size=RESAMPLES)
    low, high = np.quantile((times @ hit) / (times @ count), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Share(float(right.mean()), float(low), float(high))
