"""The rule for thresholds: against every threshold there is, and on samples that cannot give one."""

import json
import math
from itertools import pairwise

import main_job
import numpy as np
import published_sources
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import labels, server
from pipeline.errors import SourceError, StorageError
from pipeline.filtering.thresholds import Comparison
from pipeline.manifest.manifest import Manifest
from pipeline.review import calibrate, rule
from pipeline.review.sample_source import sample_source, sample_storage, scored
from pipeline.settings.choice import Calibration
from pipeline.sources import loading
from pipeline.store.storage import Storage


@st.composite
def samples(draw):
    """Few values, so that there are ties, and some that are NaN."""
    values = draw(st.lists(st.sampled_from([math.nan, -2.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=1, max_size=30))
    bad = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    return np.array(values), np.array(bad)


def f1(values, bad, edge):
    """Of "bad is below the edge", by counting; NaN is not below."""
    below = [value < edge for value in values]
    hits = sum(low and spoiled for low, spoiled in zip(below, bad, strict=True))
    return 2 * hits / (sum(below) + sum(bad))


@settings(deadline=None)
@given(samples())
def test_the_best_threshold_is_the_best_of_all_and_the_laxest_of_those(sample):
    values, bad = sample
    levels = sorted({value for value in values.tolist() if value == value})
    between = [(low + high) / 2 for low, high in pairwise(levels)]
    scores = [f1(values, bad, edge) for edge in between] if bad.any() else []
    found = rule.best_edge(values, bad)
    if not any(scores):
        assert found is None
    else:
        assert found == between[scores.index(max(scores))]


def test_neighbours_as_near_as_floats_can_be_are_told_apart():
    low = 1.0
    high = np.nextafter(low, 2)
    assert rule.best_edge(np.array([low, high]), np.array([True, False])) == high
    assert rule.best_edge(np.array([-np.inf, np.inf]), np.array([True, False])) == 0


@settings(deadline=None)
@given(st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6))
def test_a_number_is_rounded_to_the_side_asked_for(value):
    for down in (True, False):
        numbers = rule.roundings(value, down)
        assert all((float(number) <= value) if down else (float(number) >= value) for number in numbers)
        assert float(numbers[-1]) == value
        assert abs(float(numbers[0]) - value) <= abs(value) * 0.01
        assert all(Comparison.of(f"x < {number}") for number in numbers)


def test_rounding_by_hand():
    assert rule.roundings(0.469987, down=True)[:2] == ["0.469", "0.4699"]
    assert rule.roundings(0.469987, down=False)[0] == "0.47"
    assert rule.roundings(-0.12345, down=True)[0] == "-0.124"
    assert rule.roundings(123456.0, down=False)[0] == "124000"


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("pixels_sharpness >= 50", ("pixels_sharpness", ">=", "50")),
        (' "pixels_sharpness"<-1.5e1 ', ("pixels_sharpness", "<", "-1.5e1")),
        ("a > 3 AND b > 4", None),
        ("NOT captions_spam", None),
        ("a >= (SELECT quantile_cont(a, 0.5) FROM rows)", None),
        ("3 < a", None),
        ("least(a, b) > 3", None),
        ("a >= b", None),
    ],
)
def test_one_comparison_of_one_column_with_one_number(sql, told):
    found = Comparison.of(sql)
    assert (found and (found.column, found.operator, found.number)) == told
    if found:
        assert Comparison.of(found.at("7.25")).number == "7.25"


def test_chance_is_rare_for_labels_that_follow_the_value_and_common_for_others():
    rng = np.random.default_rng(1)
    values = rng.normal(size=60)
    assert rule.chance(values, values < 0) == 1 / 1000
    blind = [rule.chance(rng.normal(size=40), rng.permutation(40) < 20) for _ in range(40)]
    assert sum(share <= 0.05 for share in blind) <= 6
    assert rule.chance(np.zeros(10), np.arange(10) < 5) == 1


SHARP = published_sources.SHARP | {"catches": ["blurred"]}
LABELS = {number: "blurred" if number < 45 else "swapped" if number > 95 else "clean" for number in range(20, 100)}


def sampled(folder, labels, filters=(SHARP,), more="", **results):
    """A published source, its storage, and the labels of most of its pictures: {number: label}."""
    described = published_sources.listed(folder, sorted(labels.keys() | set(range(120))), filters, more=more)
    storage = Storage(folder / "root" / "tiny")
    published_sources.published(described, storage, **results)
    rows = [f"http://host/{number}.jpg\tpicture number {number}\t{label}\n" for number, label in labels.items()]
    (folder / "labels.tsv").write_text("url\tcaption\tlabel\n" + "".join(rows))
    return described.model_copy(update={"calibration": Calibration(labels=folder / "labels.tsv")}), storage


def measured(described, storage):
    return calibrate.measure(described, storage, described.calibration.labels)


def test_by_hand(tmp_path):
    """25 pairs are blurred, 51 clean; 43 is unscored, 44 failed. Sharpness tells all but the one without a score."""
    described, storage = sampled(tmp_path, LABELS | {60: "blurred"}, unscored={43}, failed={44, 50})
    found = measured(described, storage)
    (sharp,) = found["filters"]
    assert found["downloaded"] == 78
    assert [sharp[name] for name in ("bad", "good", "aside", "unscored")] == [25, 49, 4, 1]
    assert sharp["now"]["sql"] == "pixels_sharpness >= 50"
    assert sharp["now"]["lost"]["hits"] == 5  # 45 to 49
    assert sharp["best"]["sql"] == "pixels_sharpness >= 43.5"
    assert sharp["best"]["lost"] == {
        "hits": 0,
        "of": 49,
        "share": 0.0,
        "low": 0.0,
        "high": pytest.approx(0.0727, abs=1e-4),
    }
    assert (sharp["best"]["recall"]["hits"], sharp["best"]["recall"]["of"]) == (23, 25)
    assert sharp["best"]["precision"]["share"] == 1
    assert sharp["best"]["f1"] == pytest.approx(46 / 48)
    assert sharp["remarks"] == ["pairs without a score count as not caught: 1"]


def test_what_is_wrong_otherwise_moves_no_threshold(tmp_path):
    one = measured(*sampled(tmp_path / "one", LABELS))
    two = measured(*sampled(tmp_path / "two", LABELS | dict.fromkeys(range(20), "washed_out")))
    assert one["filters"][0]["best"] == two["filters"][0]["best"]
    assert two["filters"][0]["aside"] == 24


def test_a_filter_that_keeps_low_values(tmp_path):
    low = {"name": "low", "sql": "pixels_sharpness <= 100", "catches": ["swapped", "blinding"]}
    (found,) = measured(*sampled(tmp_path, LABELS, [low]))["filters"]
    assert found["best"]["sql"] == "pixels_sharpness <= 95.5"
    assert found["best"]["recall"]["share"] == found["best"]["precision"]["share"] == 1
    assert "no pair is labelled 'blinding'" in found["remarks"][0]
    assert "fewer than 20 good or bad pairs" in found["remarks"][1]


def test_random_labels_give_no_threshold(tmp_path):
    rng = np.random.default_rng(5)
    labels = dict(zip(range(20, 80), rng.permutation(["blurred"] * 30 + ["clean"] * 30).tolist(), strict=True))
    (found,) = measured(*sampled(tmp_path, labels))["filters"]
    assert found["best"] is None
    assert found["now"]
    assert "this sample shows no threshold that is better than chance" in found["remarks"][-1]


def test_a_threshold_that_is_worse_than_dropping_all_is_not_recommended(tmp_path):
    labels = dict.fromkeys(range(20, 80), "blurred") | dict.fromkeys((30, 31, 50), "clean")
    (found,) = measured(*sampled(tmp_path, labels))["filters"]
    assert found["best"] is None
    assert "dropping all pairs 0.97" in found["remarks"][-1]


def test_filters_that_no_number_helps(tmp_path):
    fine = {"name": "fine", "sql": "pixels_sharpness / 1000 >= 0", "catches": ["blurred"]}
    by = {"name": "by", "sql": "bytes >= 0", "catches": ["blurred"]}
    found = measured(*sampled(tmp_path, LABELS, [fine, by]))["filters"]
    assert "not one comparison" in found[0]["remarks"][-1]
    assert "separates bad pairs from good ones" in found[1]["remarks"][-1]
    assert [each["best"] for each in found] == [None, None]
    assert found[1]["now"]["recall"]["share"] == 0


@pytest.mark.parametrize("only", ["clean", "blurred"])
def test_one_side_alone_gives_no_threshold(tmp_path, only):
    labels = dict.fromkeys(range(20, 60), only) | {110: "clean", 111: "other"}
    (found,) = measured(*sampled(tmp_path, labels, failed={110}))["filters"]
    assert found["best"] is found["now"] is None
    assert "nothing to compare" in found["remarks"][-1]


def test_scores_that_are_all_missing_give_no_threshold(tmp_path):
    (found,) = measured(*sampled(tmp_path, LABELS, unscored=set(range(120))))["filters"]
    assert found["best"] is None
    assert found["unscored"] == found["bad"] + found["good"]


def test_a_label_that_nobody_catches_and_a_filter_that_catches_nothing(tmp_path):
    quantile = {
        "name": "half",
        "sql": "pixels_sharpness >= (SELECT quantile_cont(pixels_sharpness, 0.5) FROM rows)",
        "catches": ["blurred"],
    }
    found = measured(*sampled(tmp_path, LABELS, [SHARP, published_sources.WORDED, quantile]))
    assert found["left_out"] == ["worded"]
    assert "depends on the other rows" in found["filters"][1]["remarks"][-1]
    with pytest.raises(SourceError, match="add catches"):
        measured(*sampled(tmp_path / "none", LABELS, [published_sources.SHARP]))


def test_the_figures_are_kept_and_no_file_is_changed(tmp_path):
    described, storage = sampled(tmp_path, LABELS)
    toml = described.path.read_bytes()
    found = measured(described, storage)
    assert measured(described, storage) == found
    (kept,) = (storage.root / "calibration").glob("*.json")
    assert json.loads(kept.read_bytes()) == found
    assert described.path.read_bytes() == toml


@pytest.mark.slow
def test_pairs_that_the_manifest_has_not_must_be_fetched_first(tmp_path):
    more = '[scorers.duplicates]\nkind = "duplicates"\n[distinct]\nradius = 1\nbest_by = "width"\n'
    described, storage = sampled(tmp_path, LABELS, more=more)
    assert measured(described, storage)["manifest"] == Manifest.open(storage).id
    with described.calibration.labels.open("a") as file:
        file.write("http://host/200.jpg\tpicture number 200\tclean\n")
    with pytest.raises(StorageError, match="run `winnow calibrate`"):
        measured(described, storage)
    own = sample_source(described, described.calibration.labels)
    published_sources.published(own, sample_storage(storage))
    assert own.name == "tiny-calibration"
    assert (own.filters, own.distinct, own.task, own.scorers) == (None, None, None, described.scorers)
    assert measured(described, storage)["manifest"] == Manifest.open(sample_storage(storage)).id


def test_scores_of_other_scorers_are_not_taken(tmp_path):
    described, storage = sampled(tmp_path, LABELS)
    other = described.download.model_copy(update={"image_size": 64})
    labels = described.calibration.labels
    assert scored(described, storage, labels) is not None
    assert scored(described.model_copy(update={"download": other}), storage, labels) is None


@pytest.mark.slow
def test_more_digits_where_three_would_cost_too_much(tmp_path):
    """Blurred are 10000 to 10039: 10000 would find none of them, and 10039 all but one."""
    labels = {number: "blurred" if number < 10040 else "clean" for number in range(10000, 10100)}
    (found,) = measured(*sampled(tmp_path, labels))["filters"]
    assert found["best"]["sql"] == "pixels_sharpness >= 10039.5"
    labels[10039] = "clean"
    (found,) = measured(*sampled(tmp_path / "other", labels))["filters"]
    assert found["best"]["f1"] >= 1 - calibrate.DEAREST


@pytest.mark.parametrize(("operator", "number"), [(">=", "18"), (">", "17"), ("<=", "17"), ("<", "18")])
def test_whole_numbers_get_a_whole_one(tmp_path, operator, number):
    """The captions of pictures up to 99 have 17 characters, those after them 18."""
    labels = ["blurred", "clean"] if operator.startswith(">") else ["clean", "blurred"]
    length = {"name": "length", "sql": f"captions_length {operator} 1", "catches": ["blurred"]}
    known = {number: labels[number > 99] for number in range(75, 125)}
    (found,) = measured(*sampled(tmp_path, known, [length]))["filters"]
    assert found["best"]["f1"] == 1
    assert found["best"]["sql"] == f"captions_length {operator} {number}"


@pytest.mark.slow
def test_the_demos_thresholds_are_those_of_the_rule(tmp_path):
    """Whoever changes its scenes, its faults or its CLIP has to calibrate again. Another precision moves a digit.

    The filter of text has no number to choose but 1, and its scorer takes minutes.
    """
    described = loading.load("demo")
    changed = {
        "demo": described.demo.model_copy(update={"port": server.free_port()}),
        "scorers": {name: spec for name, spec in described.scorers.items() if name != "text"},
        "filters": tuple(each for each in described.filters if not each.sql.startswith("text_")),
    }
    described, storage = described.model_copy(update=changed), Storage(tmp_path / "demo")
    main_job.bring_in(labels.labelled_source(described, storage, None), sample_storage(storage))
    found = calibrate.measure(described, storage, labels.sample_labels(described, storage, None))["filters"]
    assert {each["filter"] for each in found if each["best"]} >= {"sharp", "contrast", "unblocky", "aligned"}
    for each in found:
        assert each["best"] is None or each["now"]["f1"] > each["best"]["f1"] - 0.005, each["best"]["sql"]
