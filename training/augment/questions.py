"""A question and its answers about an augmented picture: what a picture's version changes, the texts follow.

A flip swaps left and right in question and answers. A version with other colours is not for a question about colour,
and one that is cropped not for a question about places: the plain picture is seen in its place. So is it if left or
right may be no side, as in "what is left on the table".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from training.augment.joint import COLOURS, PLACES, mirrored, words
from training.augment.picture_policies import POLICIES, apply, seed

VERSION = 1

COLOUR_WORDS = COLOURS | {"color", "colors", "colour", "colours", "black", "white", "grey", "gray", "shade", "hue"}
"""A question or an answer with one of them is about colour. Jitter changes brightness too, so black and white count."""

_FLIP = "flip"


class Asked(NamedTuple):
    """The number of the version that is seen, 0 for the plain picture, and the texts that belong to it."""

    version: int
    question: str
    answers: tuple[str, ...]


def policy_of(policy: str) -> str:
    """The policy of pictures that are asked about: "question" in place of "classic"."""
    return "question" if policy == "classic" else policy


def flipped(sha256: str, version: int, policy: str) -> bool:
    """Whether that version of a picture is mirrored."""
    steps = [each for each in POLICIES[policy_of(policy)] if each == _FLIP]
    return _FLIP in apply(np.zeros((2, 2, 3), np.uint8), steps, seed(sha256, version))[1]


def asked(question: str, answers: Sequence[str], version: int, policy: str, mirror: bool) -> Asked:
    """What is asked about a version of a picture. `mirror` says whether the version is `flipped`."""
    plain, steps = Asked(0, question, tuple(answers)), POLICIES[policy_of(policy)]
    said = words(" ".join([question, *answers]))
    if not version or ({"jitter", "shade"} & set(steps) and said & COLOUR_WORDS):
        return plain
    if "crop" in steps and said & PLACES:
        return plain
    if not mirror:
        return Asked(version, question, tuple(answers))
    texts = [mirrored(question), *(_answer(each) for each in answers)]
    if any(text is None for text in texts):
        return plain
    whole = [text for text in texts if text is not None]
    return Asked(version, whole[0], tuple(whole[1:]))


def _answer(answer: str) -> str | None:
    """An answer that is a side by itself is one without a preposition."""
    return {"left": "right", "right": "left"}.get(answer.strip().lower()) or mirrored(answer)
