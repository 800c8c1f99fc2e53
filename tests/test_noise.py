"""Noise on purpose: which pairs, how many, and what stands in their place."""

import numpy as np
import pytest

from training.augment.noise import KINDS, captions, draw, features, picture, tokens

PAIRS = 4000
EVERY = np.ones(3, bool)


@pytest.mark.parametrize("share", [0, 0.1, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_corrupts_what_its_name_says(kind, share):
    noise = draw(kind, share, PAIRS, seed=3)
    moved = noise.order != np.arange(PAIRS)
    expected = {
        "images": (1, 0, 0), "texts": (0, 1, 0), "both": (1, 1, 0), "alignment": (0, 0, 1), "all": (1, 1, 1)
    }[kind]  # fmt: skip
    for mask, corrupted in zip((noise.images, noise.texts, moved), expected, strict=True):
        assert mask.mean() == pytest.approx(share * corrupted, abs=0.025 * (share > 0) * corrupted)
    assert sorted(noise.order) == list(range(PAIRS))


def test_the_draws_of_all_are_independent():
    noise = draw("all", 0.5, PAIRS, seed=0)
    masks = np.array([noise.images, noise.texts, noise.order != np.arange(PAIRS)])
    assert np.abs(np.corrcoef(masks)[np.triu_indices(3, 1)]).max() < 0.05


def test_a_larger_share_corrupts_the_same_pairs_and_more():
    less, more = (draw("all", share, PAIRS, seed=5) for share in (0.2, 0.4))
    assert not (less.images & ~more.images).any()
    assert not (less.texts & ~more.texts).any()
    assert set(np.flatnonzero(less.order != np.arange(PAIRS))) <= set(np.flatnonzero(more.order != np.arange(PAIRS)))


def test_seeds_decide():
    one, same, other = (draw("all", 0.3, PAIRS, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_pools_of_no_pair_or_one_are_possible():
    assert len(draw("all", 0.5, 0, seed=0).order) == 0
    assert draw("alignment", 1, 1, seed=0).order.tolist() == [0]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_another_share_is_refused(share):
    with pytest.raises(ValueError, match="share of noise"):
        draw("images", share, 3, seed=0)


def test_a_noisy_picture_is_uniform_and_its_own():
    photo = np.full((64, 48, 3), 200, np.uint8)
    made = picture(photo, 7, seed=0)
    assert made.shape == photo.shape
    assert made.dtype == np.uint8
    assert (made.min(), made.max()) == (0, 255)
    assert abs(made.mean() - 127.5) < 3
    assert np.array_equal(made, picture(photo, 7, seed=0))
    assert not np.array_equal(made, picture(photo, 8, seed=0))
    assert not np.array_equal(made, picture(photo, 7, seed=1))


def test_noisy_features_stay_within_the_pool():
    pool = (np.random.default_rng(0).normal(size=(200, 2, 8)) * np.arange(8)).astype(np.float16)
    chosen = np.arange(200) % 2 == 0
    made = features(pool, chosen, seed=0)
    assert made.dtype == pool.dtype
    assert np.array_equal(made[~chosen], pool[~chosen])
    assert (made >= pool.min(axis=0)).all()
    assert (made <= pool.max(axis=0)).all()
    assert (made[chosen][..., 1:] != pool[chosen][..., 1:]).mean() > 0.99
    assert np.array_equal(features(pool, np.arange(200) == 4, seed=0)[4], made[4])  # whichever others are chosen


def test_noisy_captions_have_words_and_lengths_of_the_pool():
    pool = ["a red ball", "two dogs run on the beach", "snow"]
    made = captions(pool, np.array([True, False, True]), seed=1)
    words = {word for caption in pool for word in caption.split()}
    assert made[1] == pool[1]
    assert made != pool
    for caption in (made[0], made[2]):
        assert set(caption.split()) <= words
        assert len(caption.split()) in {3, 6, 1}
    assert len({captions(pool, EVERY, seed)[0] for seed in range(20)}) > 10
    assert captions(["", ""], np.ones(2, bool), seed=0) == ["", ""]


def test_noisy_tokens_keep_start_end_and_padding():
    start, end, padding = 101, 102, 0
    pool = np.array([[start, 7, 8, 9, end, padding], [start, 7, end, padding, padding, padding]])
    layouts = {tuple(row) for row in np.isin(pool, [start, end, padding])}
    for seed in range(10):
        made = tokens(pool, np.array([True, False]), 1000, [start, end, padding], seed)
        assert np.array_equal(made[1], pool[1])
        assert tuple(np.isin(made[0], [start, end, padding])) in layouts
        assert made[0, 0] == start
        assert made.max() < 1000
    assert made.dtype == pool.dtype
