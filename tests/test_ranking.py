"""Median ranks, and the ranks of both directions with intervals and chance: by hand, and against plain loops."""

import numpy as np
import pytest
from scipy.stats import hypergeom

from flows.console import ranks as console
from training.data.pairs import Pairs
from training.measures import medians, ranking
from training.measures.intervals import Bootstrap
from training.measures.matching import Retrieval


@pytest.mark.parametrize(
    ("ranks", "expected"), [([3], 3), ([1, 2], 1), ([5, 1, 2], 2), ([4, 4, 1, 9], 4), ([1, 2, 3, 9], 2)]
)
def test_half_of_the_queries_are_within_the_median(ranks, expected):
    assert medians.median(np.array(ranks)) == expected


@pytest.mark.parametrize("most", [1, 3, 2000])
def test_resampled_medians_are_those_of_repeated_queries(most):
    rng = np.random.default_rng(most)
    picture = np.concatenate([np.arange(60), rng.integers(60, size=140)])
    ranks = rng.integers(1, most + 1, size=200)
    times = rng.multinomial(60, np.full(60, 1 / 60), size=300).astype(np.float32)
    repeated = [np.repeat(ranks, row[picture].astype(int)) for row in times]
    assert medians.resampled(ranks, picture, times).tolist() == [medians.median(each) for each in repeated]


@pytest.mark.parametrize(("relevant", "candidates"), [([1], 1000), ([5], 5000), ([1, 5, 5, 2], 40), ([3], 3)])
def test_the_median_of_chance_is_the_first_rank_with_an_even_chance(relevant, candidates):
    found = medians.by_chance(np.array(relevant), candidates)
    at, before = (np.mean([hypergeom.sf(0, candidates, each, k) for each in relevant]) for k in (found, found - 1))
    assert at >= 0.5 - 1e-9
    assert before < 0.5


@pytest.fixture
def thousand():
    """A gallery of 200 pictures with five captions each, and ranks of two seeds that are known."""
    measure = Retrieval(Pairs.of([f"caption {n}" for n in range(1000)], np.arange(1000) // 5), 200)
    first = np.concatenate([np.full(200, 4), np.full(1000, 12)])
    second = np.concatenate([np.full(200, 4), np.tile([1, 8, 8, 8, 8], 200)])
    return measure, np.stack([first, second])


def test_ranks_of_both_directions_with_chance(thousand):
    measure, ranks = thousand
    images, texts = ranking.summarize(measure, ranks, Bootstrap(measure, 200, 2, 50))
    assert (images["queries"], images["candidates"]) == (1000, 200)
    assert (texts["queries"], texts["candidates"]) == (200, 1000)
    assert [each["value"] for each in images["recalls"]] == pytest.approx([0.1, 0.1, 0.5])
    assert [each["value"] for each in texts["recalls"]] == [0, 1, 1]
    assert [each["chance"] for each in images["recalls"]] == pytest.approx([1 / 200, 5 / 200, 10 / 200])
    chance = [1 - hypergeom.pmf(0, 1000, 5, k) for k in (1, 5, 10)]
    assert [each["chance"] for each in texts["recalls"]] == pytest.approx(chance)
    assert [each["times_chance"] for each in texts["recalls"]] == pytest.approx([0, 1 / chance[1], 1 / chance[2]])
    assert (images["median"]["value"], images["median"]["chance"]) == (10, 100)
    assert (texts["median"]["low"], texts["median"]["high"]) == (4, 4)
    assert images["median"]["low"] == 8
    assert images["median"]["high"] == 12


def test_intervals_hold_the_spread_over_seeds_and_pictures():
    rng = np.random.default_rng(0)
    measure = Retrieval(Pairs.of([f"caption {n}" for n in range(100)], np.arange(100)), 100)
    ranks = rng.integers(1, 20, size=(3, 200))
    for direction in ranking.summarize(measure, ranks, Bootstrap(measure, 100, 3, 400)):
        for each in (*direction["recalls"], direction["median"]):
            assert each["low"] < each["value"] < each["high"]


def test_the_table_has_the_gallery_and_chance(thousand, capsys):
    from rich.console import Console

    measure, ranks = thousand
    directions = ranking.summarize(measure, ranks, Bootstrap(measure, 200, 2, 50))
    for table in console.tables([("dual, raw plain", directions)], "trained"):
        Console(width=160).print(table)
    shown = capsys.readouterr().out
    assert "Text to image: 1,000 queries, a gallery of 200" in shown
    assert "Image to text: 200 queries, a gallery of 1,000" in shown
    assert shown.count("chance ") >= 2
