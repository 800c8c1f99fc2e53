import colorsys
import hashlib
import io

import numpy as np
import pytest
import training_sources
from PIL import Image

from training.augment import picture_policies
from training.augment.picture_policies import POLICIES, STEPS
from training.data import decoding


def test_a_version_is_as_large_as_the_picture_and_differs_from_it():
    for seed in range(5):
        made = picture_policies.augment(training_sources.gradient(), "classic", seed)
        assert made.shape == (48, 64, 3)
        assert made.dtype == np.uint8
        assert not np.array_equal(made, training_sources.gradient())


def test_the_same_seed_gives_the_same_version():
    assert np.array_equal(
        picture_policies.augment(training_sources.gradient(), "classic", 5),
        picture_policies.augment(training_sources.gradient(), "classic", 5),
    )
    assert not np.array_equal(
        picture_policies.augment(training_sources.gradient(), "classic", 5),
        picture_policies.augment(training_sources.gradient(), "classic", 6),
    )


def test_each_step_has_dice_of_its_own():
    """Half of the versions are flipped, half turned, and a quarter is both; what is left out moves nothing else."""
    pixels = training_sources.gradient()
    found = [set(picture_policies.apply(pixels, POLICIES["classic"], seed)[1]) for seed in range(200)]
    for steps, share in (({"flip"}, 0.5), ({"rotate"}, 0.5), ({"flip", "rotate"}, 0.25), ({"jitter"}, 0.8)):
        assert np.mean([steps <= each for each in found]) == pytest.approx(share, abs=0.12), steps
    for seed in range(10):
        whole, without = (
            picture_policies.apply(pixels, steps, seed)[1] for steps in (("crop", "flip", "rotate"), ("rotate",))
        )
        assert ("rotate" in whole) == ("rotate" in without)


def test_a_policy_of_one_step_takes_no_other():
    assert POLICIES["classic"] == ("crop", "flip", "jitter", "rotate")
    for name in STEPS:
        assert {
            step
            for seed in range(9)
            for step in picture_policies.apply(training_sources.gradient(), POLICIES[name], seed)[1]
        } == {name}


def test_shade_is_jitter_that_leaves_hue_alone():
    pixels = np.zeros((8, 8, 3), np.uint8) + np.array([200, 60, 60], np.uint8)
    hues = {step: [] for step in ("jitter", "shade")}
    for seed in range(20):
        for step, found in hues.items():
            made, _ = picture_policies.apply(pixels, (step,), seed)
            found.append(colorsys.rgb_to_hsv(*(made[0, 0] / 255))[0])
    turned = {step: max(min(hue, 1 - hue) for hue in found) for step, found in hues.items()}
    assert turned["shade"] < 0.005 < 0.02 < turned["jitter"]


def test_seeds_depend_on_the_picture_and_the_number_of_the_version():
    assert picture_policies.seed("ab", 1) == int(hashlib.sha256(b"ab:1").hexdigest()[:8], 16)
    assert len({picture_policies.seed(picture, view) for picture in ("ab", "cd") for view in (1, 2, 3)}) == 6


def test_the_classic_policy_flips_half_crops_and_stays_upright():
    flipped, spans = [], []
    for seed in range(60):
        made = picture_policies.augment(training_sources.gradient(), "classic", seed).astype(float)
        across = made[:, -8:, 0].mean() - made[:, :8, 0].mean()
        down = made[-8:, :, 1].mean() - made[:8, :, 1].mean()
        flipped.append(across < 0)
        spans.append(abs(across))
        assert down > 20  # never upside down
    assert 18 <= sum(flipped) <= 42
    assert np.mean(spans) < 200  # less of the gradient is in sight than in the picture: 223


@pytest.mark.parametrize("size", [(7, 9), (300, 20)])
def test_odd_sizes_are_no_trouble(size):
    assert picture_policies.augment(training_sources.gradient(*size), "classic", 1).shape == (*size, 3)


def test_versions_are_the_plain_picture_and_its_own_augmentations():
    picture = training_sources.picture("disc", 1)
    plain, first, second = decoding.decode_versions(picture, "classic", 2)
    assert np.array_equal(plain, np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")))
    again = list(decoding.decode_versions(picture, "classic", 1))
    assert np.array_equal(first, again[1])
    assert not np.array_equal(first, second)
    other = list(decoding.decode_versions(training_sources.picture("disc", 2), "classic", 1))
    assert not np.array_equal(first, other[1])


def test_one_view_doubles_the_set_once():
    """Every picture once as it is and once augmented."""
    pictures = [training_sources.picture("disc", seed) for seed in range(4)]
    doubled = [pixels for picture in pictures for pixels in decoding.decode_versions(picture, "classic", 1)]
    assert len({pixels.tobytes() for pixels in doubled}) == 2 * len(pictures)


def test_versions_stand_upright():
    """EXIF says: turn me by a quarter."""
    turned = Image.fromarray(training_sources.gradient())
    exif = turned.getexif()
    exif[0x0112] = 6
    data = io.BytesIO()
    turned.save(data, "JPEG", exif=exif)
    (plain,) = decoding.decode_versions(data.getvalue(), "classic", 0)
    assert plain.shape == (64, 48, 3)
