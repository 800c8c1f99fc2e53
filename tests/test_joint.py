import colorsys

import numpy as np
import pytest
import training_sources

from pipeline.demo import captions
from training.augment import joint, picture_policies

CLASSIC = picture_policies.POLICIES["classic"]


@pytest.mark.parametrize(
    ("caption", "flipped"),
    [
        ("a dog on the left", "a dog on the right"),
        ("A dog to the RIGHT of a cat", "A dog to the LEFT of a cat"),
        ("Left of the tree stands a man", "Right of the tree stands a man"),
        ("the left-hand side", "the right-hand side"),
        ("a cup in his right hand, a hat in the left", "a cup in his left hand, a hat in the right"),
        ("the leftmost, the rightmost", "the rightmost, the leftmost"),
        ("from left to right", "from right to left"),
        ("a bright cleft upright copyright", "a bright cleft upright copyright"),
        ("a dog", "a dog"),
        ("", ""),
    ],
)
def test_a_flip_swaps_left_and_right_as_words(caption, flipped):
    assert joint.mirrored(caption) == flipped
    assert joint.mirrored(flipped) == caption


@pytest.mark.parametrize(
    "caption",
    [
        "right now",
        "a man who left the house",
        "all right",
        "the right way",
        "a dog on the left who left",
        "left-handed",
    ],
)
def test_where_a_word_may_be_no_side_nothing_is_flipped(caption):
    assert joint.mirrored(caption) is None
    assert "flip" not in joint.allowed_steps(CLASSIC, caption)
    for seed in range(20):
        made = joint.augment(training_sources.gradient(), caption, joint.allowed_steps(CLASSIC, caption), "words", seed)
        assert "flip" not in made.applied
        assert rises(made.pixels)


def rises(pixels):
    """Whether red rises to the right, as in the picture that is not flipped."""
    return pixels[:, -8:, 0].mean() > pixels[:, :8, 0].mean()


def test_picture_and_caption_are_flipped_together():
    caption, seen = "a red ball on the left", set()
    for seed in range(30):
        made = joint.augment(training_sources.gradient(), caption, joint.allowed_steps(CLASSIC, caption), "swap", seed)
        said = sorted(made.caption.lower().split())
        assert ("left" in said, "right" in said) == (rises(made.pixels), not rises(made.pixels))
        seen.add("flip" in made.applied)
    assert seen == {True, False}


def test_a_named_colour_keeps_its_hue():
    pixels = np.zeros((8, 8, 3), np.uint8) + np.array([200, 60, 60], np.uint8)
    for caption, most in (("a Red ball", 0.005), ("a ball", 1)):
        steps = joint.allowed_steps(("jitter",), caption)
        made = [joint.augment(pixels, caption, steps, "swap", seed).pixels for seed in range(20)]
        assert len({each.tobytes() for each in made}) > 10  # brightness changes
        hues = [colorsys.rgb_to_hsv(*(each[0, 0] / 255))[0] for each in made]
        turned = max(min(hue, 1 - hue) for hue in hues)
        assert turned < most
        assert (turned > 0.02) == (most == 1)


def test_every_colour_of_the_demo_is_known():
    assert {word for words in captions._COLOUR_WORDS.values() for word in words} <= joint.COLOURS


@pytest.mark.parametrize("caption", ["a dog behind a fence", "a ball in the corner", "a cup Left of a mug"])
def test_who_says_what_stands_where_is_not_cropped(caption):
    assert "crop" not in joint.allowed_steps(CLASSIC, caption)
    assert "crop" in joint.allowed_steps(CLASSIC, "a dog in the snow")


def test_versions_are_the_same_again_and_differ_by_seed():
    made = [
        joint.augment(training_sources.gradient(), "a dog runs in snow", CLASSIC, "words", seed) for seed in (1, 1, 2)
    ]
    assert np.array_equal(made[0].pixels, made[1].pixels)
    assert (made[0].caption, made[0].applied) == (made[1].caption, made[1].applied)
    assert not np.array_equal(made[0].pixels, made[2].pixels)
