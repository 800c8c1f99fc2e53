"""Tasks beside classes that captions name: a column with a label or a number; a test set that is split off."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import training_sources

from pipeline import progress
from pipeline.errors import CompareError, SourceError
from pipeline.manifest import arms
from pipeline.settings.task import Budget, Split, Task
from pipeline.settings.task import TestSet as Held
from pipeline.trials import trials
from training.data import labels, near_duplicates, pool
from training.data.features import Features
from training.data.heldout import HeldOut
from training.learners import descent, probe
from training.learners.targets import Objective
from training.measures import metrics
from training.studies import experiment, gain, roster
from training.studies.learner import Learner

LEARNERS = {"linear": {"head": "linear", "encoder": {"kind": "hog"}}}
BREEDS = Task(kind="label", column="breed", classes={"dog": ("Pug", "boxer"), "cat": ("manx",)}, learners=LEARNERS)
PRICE = Task(kind="number", column="price", learners=LEARNERS)
TEST = '[task.test]\nlocation = "test.parquet"\nfolder = "test"\n'
SHAPES = (
    f'[task]\nkind = "label"\ncolumn = "told"\nclasses.disc = ["disc"]\nclasses.stripes = ["stripes"]\n'
    f'classes.cross = ["cross"]\n{TEST}column = "shape"\n'
)
LIGHT = f'[task]\nkind = "number"\ncolumn = "told"\n{TEST}column = "light"\n'
SPLIT = training_sources.NAMED.partition("[task.test]")[0] + "[task.split]\nshare = 0.4\nagree = 1\n"


def test_a_column_s_values_are_labels():
    batch = pa.record_batch(
        {"uid": list("abcde"), "caption": ["x"] * 5, "target": ["pug", " BOXER", "manx", "cow", None]}
    )
    table, counts = labels.label_pairs([batch], BREEDS)
    assert table.to_pylist() == [{"uid": "a", "label": 0}, {"uid": "b", "label": 0}, {"uid": "c", "label": 1}]
    assert counts == {"downloaded": 5, "no_class": 2, "several_classes": 0, "labelled": 3}


def test_a_column_s_values_are_numbers():
    batch = pa.record_batch({"uid": list("abcde"), "caption": ["x"] * 5, "target": ["1.5", "-2e1", "", "dear", "inf"]})
    table, counts = labels.label_pairs([batch], PRICE)
    assert table["label"].to_pylist() == [1.5, -20]
    assert counts == {"downloaded": 5, "no_number": 3, "labelled": 2}


@pytest.mark.parametrize(
    ("task", "values", "expected"),
    [(BREEDS, ["pug", "boxer", "pug", "manx", "cow", "manx"], [0, 1]), (PRICE, [3, 3, 3, 4, None, 7], [3, 7])],
)
def test_held_out_pictures_whose_rows_differ_are_left_out(tmp_path, task, values, expected):
    """Picture 0 says one thing twice, 1 two things, 2 nothing and then something, and 3 nothing at all."""
    names = ["0", "0", "1", "1", "2", "2", "3"]
    for name in set(names):
        (tmp_path / name).write_bytes(training_sources.picture("disc", int(name)))
    table = pa.table({"image": names, task.column: pa.array([*values, None])})
    pq.write_table(table, tmp_path / "test.parquet")
    read = HeldOut.read(Held(location=tmp_path / "test.parquet", folder=tmp_path), task)
    assert read.labels.tolist() == expected
    assert (read.ambiguous, read.unlabelled, [path.name for path in read.paths]) == (1, 1, ["0", "2"])


def test_r2_and_mae_by_hand():
    """Truth 0 2 4, said 0 2 1: squared errors 9 of a spread of 8, absolute errors 3 of three."""
    measure = metrics.Regression(np.array([0.0, 2, 4]))
    assert measure.scores(np.array([0.0, 2, 1])) == {"r2": pytest.approx(1 - 9 / 8), "mae": pytest.approx(1)}
    assert measure.scores(measure.truth) == {"r2": 1, "mae": 0}
    assert measure.scores(np.full(3, 2.0))["r2"] == pytest.approx(0)
    twice = np.array([[2, 0, 1], [0, 3, 0]], np.float32)  # the first and the last; the middle one alone does not vary
    assert measure.resampled(np.array([0.0, 2, 1]), twice).tolist() == pytest.approx([1 - 9 / (32 / 3), 0])


def test_a_learning_curve_ends_where_the_learner_does():
    rng = np.random.default_rng(0)
    views = rng.normal(size=(300, 1, 6)).astype(np.float16)
    truth = 40 + 7 * views[:, 0, :3].astype(np.float64).sum(axis=1)
    budget = Budget(steps=320, batch=64, learning_rate=0.01)
    said = probe.train("linear", views[:200], Objective(truth[:200], 0), views[200:], budget, 1)
    assert list(said) == descent.evaluation_steps(320) == [10, 20, 40, 80, 160, 240, 320]
    scores = [metrics.Regression(truth[200:]).scores(each)["r2"] for each in said.values()]
    assert scores[0] < 0.5 < 0.95 < scores[-1]


def test_a_learning_rate_is_found_on_pairs_that_were_not_drawn():
    """Half of the pool is drawn. Under the first rate nothing is learnt, under the second three blobs are."""
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=400).astype(np.int16)
    views = (rng.normal(size=(400, 1, 8)) + 3 * np.eye(8)[truth][:, None]).astype(np.float16)
    column = {"uid": [f"{n}" for n in range(300)], "sha256": [f"{n}" for n in range(300)], "picture": np.arange(300)}
    test, features = HeldOut((), truth[300:], 0, 0), Features(views[:300], np.zeros(300, np.uint64))
    held = Features(views[300:], np.zeros(100, np.uint64))
    known = pool.Pool(pa.table(column | {"label": truth[:300]}), test, [features], [held], np.zeros(300, bool), {}, {})
    learner = Learner("linear", "linear", {}, features, held)
    told = []
    for rates in ({"learning_rate": 1e-6, "learning_rates": [0.01]}, {"learning_rate": 0.01}):
        task = Task(
            classes={name: (name,) for name in "abc"}, learners=LEARNERS, budget={"steps": 60, "batch": 32} | rates
        )
        tried = experiment.Experiment("", None, task, known, test, (learner,))
        setting = trials.Setting(
            0, "", "", "", "", "linear", "linear", "raw", False, 1, task.budget.per_trial, {}, "classes", None, {}, ""
        )
        told.append(tried.trial(learner, setting, lambda seed: {"raw": np.arange(150)}))
    searched, fixed = told
    assert (searched.learning_rate, searched.predictions) == (0.01, fixed.predictions)
    assert (searched.images, fixed.images) == (2 * 60 * 32, 60 * 32)
    assert searched.scores["accuracy"] > 0.8
    assert searched.curve == fixed.curve


@pytest.mark.slow
def test_filtering_helps_where_a_column_lies(tmp_path):
    lies = [number for number in range(300) if number % 5 < 2]
    told = {number: training_sources.truth(number + (number in lies)) for number in range(300)}
    described, storage = training_sources.task(tmp_path / "t", 300, lies, column=told, measured=SHAPES, steps=100)
    measured = gain.measure(described, storage)
    assert (measured["kind"], measured["counts"]["labelled"]) == ("label", 300)
    told = {"says": "45 held-out pictures", "pictures": 45, "captions": 0, "ambiguous": 0, "unlabelled": 0}
    assert measured["test"] == told | {"digest": measured["test"]["digest"]}
    (found,) = (each for each in measured["learners"][0]["differences"] if each["name"] == "filtered - random")
    assert found["low"] > 0


@pytest.mark.slow
def test_a_number_is_regressed(tmp_path):
    """Two of five pairs are 120 brighter than their picture."""
    lies = [number for number in range(300) if number % 5 < 2]
    told = {
        n: training_sources.light(training_sources.picture(training_sources.truth(n), n)) + 120 * (n in lies)
        for n in range(150)
    }
    pixels = {"linear": ("linear", '{ kind = "pixels", side = 16 }')}
    described, storage = training_sources.task(
        tmp_path / "t", 150, lies, column=told, measured=LIGHT, learners=pixels, steps=150, learning_rate=0.01
    )
    measured = gain.measure(described, storage)
    assert measured["metrics"] == [["r2", "R2"], ["mae", "mean absolute error"]]
    rows = {(row["arm"], row["augmented"]): row for row in measured["learners"][0]["rows"]}
    assert rows["filtered", False]["r2_mean"] > 0.5 > rows["raw", False]["r2_mean"]
    assert rows["filtered", False]["mae_mean"] < rows["raw", False]["mae_mean"]
    assert measured["baseline"]["r2"] < 0.01
    told = measured["learners"][0]["differences"][0]
    assert told["sentence"].startswith("linear, filtering by taught: +")


def split(folder, count=90, **told):
    """The pool of a source whose test set is split off. Picture n + 1 is picture n again, for every tenth n."""
    again = {n + 1: training_sources.encoded(taught_pixels(n), 60) for n in range(0, count, 10)}
    described, storage = training_sources.task(folder, count, pictures=again, measured=SPLIT, **told)
    return described, storage


def taught_pixels(number):
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(training_sources.picture(training_sources.truth(number), number))))


def read(described, storage):
    extractors = roster.plan(described, storage).extractors
    return pool.read(arms.Choice.open(storage), described.task, extractors, None, progress.silent)


def test_near_duplicates_are_split_to_one_side(tmp_path):
    described, storage = split(tmp_path / "t")
    known = read(described, storage)
    assert known.leaked.sum() == known.counts["leaked_exact"] == known.counts["leaked_near"] == 0
    assert known.counts["split_off"] + known.counts["pool"] == 90
    assert 15 < len(known.test.labels) < 60
    hashes = known.features[0].phash[known.table["picture"].to_numpy()]
    assert not near_duplicates.near_any(hashes, known.heldout[0].phash).any()
    assert not pc.any(pc.is_in(known.table["sha256"], value_set=pa.array(known.test.sha256))).as_py()
    for uids in arms.draw(known.usable, 0).values():
        assert pc.all(pc.is_in(uids, value_set=known.table["uid"])).as_py()
    held = dict(zip(known.test.sha256, known.test.labels.tolist(), strict=True))
    assert held == dict(zip(read(described, storage).test.sha256, known.test.labels.tolist(), strict=True))


def test_a_grown_source_keeps_its_sides(tmp_path):
    """Other pictures have no say in the side of a picture that is near none of them."""
    few, many = (read(*split(tmp_path / "t", count)) for count in (60, 90))
    trained = set(many.table["sha256"].to_pylist())
    assert not trained & set(few.test.sha256)
    assert set(few.table["sha256"].to_pylist()) <= trained | set(many.test.sha256)


@pytest.mark.slow
def test_the_gain_on_a_split(tmp_path):
    described, storage = split(tmp_path / "t")
    measured = gain.measure(described, storage)
    assert measured["counts"]["split_off"] > 0
    assert gain.measure(described, storage) == measured


def test_a_split_needs_agreement(tmp_path):
    described, storage = training_sources.task(tmp_path / "t", 30, measured=SPLIT.replace("agree = 1", "agree = 2"))
    with pytest.raises(CompareError, match="has a label: raise share, or lower agree"):
        gain.measure(described, storage)


def test_chains_of_near_duplicates_stay_together():
    rng = np.random.default_rng(0)
    apart = rng.integers(2**63, size=2000, dtype=np.uint64)
    chain = apart[0] ^ np.cumsum([0] + [0b1111 << (4 * n) for n in range(9)], dtype=np.uint64)  # 36 bits end to end
    for seed in range(5):
        held = near_duplicates.split_off(np.concatenate([apart, chain, apart[:50]]), Split(share=0.25, seed=seed))
        assert 0.2 < held[:2000].mean() < 0.3
        assert len(set(held[2000:2010])) == 1
        assert np.array_equal(held[:50], held[2010:])


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"kind": "label"}, "kind = label needs column"),
        ({"kind": "number", "column": "a", "classes": {"b": ("c",)}}, "kind = number has no classes"),
        ({"column": "a", "classes": {"b": ("c",), "d": ("e",)}}, "remove column, or set kind"),
        ({"classes": {"b": ("c",)}}, "at least two classes"),
        ({"classes": {"b": ("c",), "d": ("e",)}, "split": {}, "test": {"location": ".", "folder": "."}}, "not both"),
    ],
)
def test_a_task_that_makes_no_sense_is_told(told, says):
    with pytest.raises(ValueError, match=says):
        Task(learners=LEARNERS, **told)


def test_a_missing_column_is_told(tmp_path):
    told = dict.fromkeys(range(30), "disc")
    described, storage = training_sources.task(
        tmp_path / "t", 30, column=told, measured=SHAPES.replace('column = "told"', 'column = "tolt"')
    )
    with pytest.raises(SourceError, match=r"no column 'tolt'; did you mean 'told'"):
        gain.measure(described, storage)
