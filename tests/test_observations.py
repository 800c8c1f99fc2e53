"""Observations of studies, judged on made-up scores; the most efficient encoder; published figures beside ours."""

import zlib

import numpy as np
import pytest

from training.measures.intervals import Mean
from training.studies import efficiency, observations, published
from training.studies.differences import HOLDS, NOT, OPEN
from training.studies.observations import Scored

SPREAD = 0.004
"""The standard deviation of every made-up score."""

PLAIN = {"objective": "softmax", "batch": 64, "pruning": "none", "masking": 0.0, "noise": "none", "noise_share": 0.0}


def cell(score, spread=SPREAD, **values):
    return _cell(score, spread, PLAIN | values)


def _cell(score, spread, values):
    name = repr(sorted((key, str(value)) for key, value in values.items()))
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return Scored(values, Mean(score, score + spread * rng.standard_normal(4000)))


def batches(sigmoid, softmax, spread=SPREAD):
    return [
        cell(score, spread, objective=name, batch=batch)
        for name, scores in (("sigmoid", sigmoid), ("softmax", softmax))
        for batch, score in zip((16, 64, 256), scores, strict=False)
    ]


def verdicts(cells, seeds=3, chance=0.01):
    return {each.observation: each.verdict for each in observations.find(cells, seeds, chance)}


SMALL, LARGEST, MEDIUM, NOISE, HARD, EASY = (name for name, _, _ in observations.OBSERVATIONS)


@pytest.mark.parametrize(
    ("sigmoid", "softmax", "expected"),
    [
        ((0.40, 0.50, 0.44), (0.30, 0.50, 0.48), (HOLDS, HOLDS, HOLDS)),
        ((0.30, 0.40, 0.50), (0.30, 0.30, 0.30), (NOT, NOT, NOT)),
        ((0.301, 0.30, 0.30), (0.30, 0.30, 0.30), (OPEN, OPEN, OPEN)),
        ((0.33, 0.33, 0.30), (0.30, 0.33, 0.33), (OPEN, HOLDS, OPEN)),
    ],
)
def test_batches(sigmoid, softmax, expected):
    found = verdicts(batches(sigmoid, softmax))
    assert (found[SMALL], found[LARGEST], found[MEDIUM]) == expected


def test_equal_scores_with_narrow_intervals_do_not_differ():
    found = verdicts(batches((0.3, 0.3, 0.3), (0.3, 0.3, 0.3), spread=0.001))
    assert (found[SMALL], found[LARGEST], found[MEDIUM]) == (NOT, NOT, NOT)


def test_nothing_is_told_from_two_seeds_or_without_scores_above_chance():
    clear = batches((0.40, 0.50, 0.44), (0.30, 0.50, 0.48))
    assert set(verdicts(clear, seeds=2).values()) == {OPEN}
    low = [Scored(values, Mean(mean.point / 50, mean.resampled / 50)) for values, mean in clear]
    assert set(verdicts(low, chance=0.05).values()) == {OPEN}


def test_two_batches_have_no_medium_one():
    assert MEDIUM not in verdicts(batches((0.4, 0.5), (0.3, 0.5)))


@pytest.mark.parametrize(("sigmoid", "expected"), [(0.45, HOLDS), (0.30, NOT), (0.356, OPEN)])
def test_noise_takes_less_of_the_one_that_bears_it(sigmoid, expected):
    cells = [
        cell(0.50, objective="softmax"),
        cell(0.50, objective="sigmoid"),
        cell(0.35, objective="softmax", noise="texts", noise_share=0.5),
        cell(0.45, objective="softmax", noise="texts", noise_share=0.2),
        cell(sigmoid, objective="sigmoid", noise="texts", noise_share=0.5),
    ]
    (found,) = observations.find(cells, 3, 0.01)
    assert (found.observation, found.verdict, found.where) == (NOISE, expected, "texts at 0.5")


@pytest.mark.parametrize(
    ("hard", "random", "easy", "expected"),
    [
        (0.5, 0.4, 0.3, (HOLDS, HOLDS)),
        (0.4, 0.5, 0.3, (NOT, HOLDS)),
        (0.55, 0.4, 0.6, (NOT, NOT)),
        (0.5, 0.499, 0.497, (OPEN, OPEN)),
    ],
)
def test_pruned_negatives(hard, random, easy, expected):
    cells = [cell(0.5)]
    pruned = {"hard": hard, "random": random, "easy": easy}
    cells += [cell(score, pruning=how, masking=0.5) for how, score in pruned.items()]
    found = verdicts(cells)
    assert (found[HARD], found[EASY]) == expected


def test_cells_that_differ_in_another_key_are_not_compared():
    cells = [_cell(0.5, SPREAD, PLAIN | {"batch": size, "objective": name, "dim": dim})
             for size in (16, 64) for name in ("softmax", "sigmoid") for dim in (64, 256)]  # fmt: skip
    found = observations.find(cells, 3, 0.01)
    assert {each.where for each in found if each.observation == SMALL} == {
        "dim 64, batches 16 to 64",
        "dim 256, batches 16 to 64",
    }


def row(name, score, flops, parameters=1, half=0.02):
    return {
        "name": name,
        "score": score,
        "low": score - half,
        "high": score + half,
        "flops": flops,
        "parameters": parameters,
    }


def test_the_most_efficient_is_the_cheapest_within_the_interval_of_the_best():
    rows = [row("large", 0.50, 900), row("small", 0.485, 300), row("tiny", 0.47, 100), row("hog", 0.6, None)]
    assert efficiency.most_efficient(rows)["name"] == "small"
    assert efficiency.most_efficient([row("hog", 0.6, None)]) is None
    twins = [row("b", 0.5, 10, 7), row("a", 0.5, 10, 5)]
    assert efficiency.most_efficient(twins)["name"] == "a"


def test_no_row_on_the_front_is_beaten_at_its_cost():
    rows = [row("large", 0.5, 900), row("waste", 0.45, 500), row("small", 0.48, 300), row("twin", 0.47, 300)]
    assert efficiency.front(rows) == ["small", "large"]
    assert efficiency.front(rows, "parameters") == ["large"]


def test_published_figures_are_whole():
    figures = published.read()
    assert {each.metric for each in figures if each.tower} == {"t2i_r1", "t2i_r5", "t2i_r10"}
    assert len({(each.study, each.where, each.of) for each in figures}) == len(figures)
    for each in figures:
        assert all(map(str.strip, (each.study, each.where, each.of, each.unit, each.data, each.instead)))
        assert (each.metric is None) == (each.tower is None)
        assert each.value > 0
    table = {each.of: each.value for each in figures if each.where == "Table III"}
    assert table["MobileNet, Rank@1"] == 0.0148
    assert table["EfficientNet, Rank@10"] == 0.0867


def test_a_figure_with_an_unknown_key_is_refused(tmp_path):
    (tmp_path / "figures.toml").write_text('[[figure]]\nstudy = "a"\nvalues = 3\n')
    with pytest.raises(TypeError, match="values"):
        published.read(tmp_path / "figures.toml")


@pytest.mark.parametrize(
    ("value", "says"), [(0.18, "ours is above it"), (0.001, "ours is below it"), (0.0148, "ours agrees with it")]
)
def test_a_sentence_says_where_ours_differs(value, says):
    ours = {"t2i_r1": {"value": value, "low": value - 0.0005, "high": value + 0.0005}}
    towers = [
        {"name": "ours", "image": "timm:mobilenetv2_100", "metrics": ours, "score": 0.2},
        {"name": "worse", "image": "timm:mobilenetv2_100", "metrics": ours, "score": 0.1},
        {"name": "other", "image": "timm:resnet18", "metrics": ours, "score": 0.3},
    ]
    (found,) = published.beside(published.read(), towers)
    assert (found.name, found.figure.value) == ("ours", 0.0148)
    assert says in found.sentence
    assert "Flickr30k" in found.data
