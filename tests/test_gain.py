import dataclasses
import hashlib
import io
import json
from dataclasses import replace
from functools import partial

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import training_sources
from PIL import Image
from rich.console import Console

from filters.selections import SoftCap
from flows.console import gain as gains
from pipeline import progress
from pipeline.errors import CompareError, SourceError
from pipeline.manifest import arms, publish
from pipeline.manifest.manifest import Manifest
from pipeline.query import sandbox
from pipeline.scorers import class_labels
from pipeline.settings.encoder import Pixels
from pipeline.settings.task import Budget, Task
from pipeline.settings.task import TestSet as Held
from pipeline.sources import loading
from pipeline.store import tarfiles
from pipeline.trials import trials
from training.data import labels, near_duplicates, pool
from training.data.heldout import HeldOut
from training.encoders import encoders
from training.learners import probe
from training.learners.targets import Objective
from training.measures import intervals, metrics
from training.studies import experiment, fairness, gain, plot, roster, summary

FILTERS = {**training_sources.HONEST, "blind": "uid < 'e'", "idle": "caption IS NOT NULL"}
HOG = '{ kind = "hog", side = 64 }'
WORDS = {"dog": ("dog", "dogs"), "pool": ("swimming pool",), "cafe": ("café",)}
LINEAR = {"linear": {"head": "linear", "encoder": {"kind": "hog"}}}
NAMED = Task(classes=WORDS, learners=LINEAR)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Two captions of five lie, and one filter knows; another drops blindly, a third nothing: source, storage, gain."""
    lies = [number for number in range(240) if number % 5 < 2]
    learners = {
        "linear": ("linear", training_sources.RESNET),
        "mlp": ("mlp", training_sources.RESNET),
        "other": ("linear", HOG),
    }
    folder = tmp_path_factory.mktemp("noisy")
    told = {"lies": lies, "learners": learners, "filters": FILTERS}
    described, storage = training_sources.task(folder, count=240, steps=90, **told)
    return described, storage, gain.measure(described, storage)


def of(measured, name):
    """Rows by cell, and differences by name, of a learner."""
    learner = next(each for each in measured["learners"] if each["name"] == name)
    rows = {(row["arm"], row["augmented"]): row for row in learner["rows"]}
    return rows, {each["name"]: each for each in learner["differences"]}


def files(storage, *folders):
    return {path: path.stat().st_mtime_ns for name in folders for path in (storage.root / name).rglob("*.*")}


@pytest.mark.parametrize(
    ("caption", "label"),
    [
        ("A DOG runs", 0),
        ("two dogs, one doge", 0),
        ("(dog)", 0),
        ("a hotdog in a doghouse", class_labels.NONE),
        ("a dogé", class_labels.NONE),
        ("the dog's toy", 0),
        ("by the Swimming Pool.", 1),
        ("swimming in a pool", class_labels.NONE),
        ("a CAFÉ", 2),
        ("a cafés", class_labels.NONE),
        ("a dog in a swimming pool", class_labels.SEVERAL),
        ("a dog and a dog", 0),
        ("", class_labels.NONE),
        (None, class_labels.NONE),
    ],
)
def test_a_caption_s_label_is_the_only_class_it_names(caption, label):
    named = class_labels.classes_named(pa.array([caption], pa.string()), WORDS)
    assert class_labels.single_class(named).tolist() == [label]


def test_pairs_without_a_label_are_counted():
    batch = pa.record_batch({"uid": ["a", "b", "c"], "caption": ["a dog", "a cat", "dog, swimming pool"]})
    table, counts = labels.label_pairs([batch, batch.slice(0, 1)], NAMED)
    assert table.to_pylist() == [{"uid": "a", "label": 0}, {"uid": "a", "label": 0}]
    assert counts == {"downloaded": 4, "no_class": 1, "several_classes": 1, "labelled": 2}


def written(folder, rows, **told):
    for name, _ in rows:
        (folder / name).write_bytes(training_sources.picture("disc", 1))
    table = pa.table({"image": [name for name, _ in rows], "caption": [caption for _, caption in rows]})
    pq.write_table(table, folder / "test.parquet")
    return Held(location=folder / "test.parquet", folder=folder, **told)


def test_a_held_out_label_needs_agreement(tmp_path):
    rows = [("b", "a dog"), ("b", "a dog in a café"), ("a", "dogs"), ("a", "a puppy")]  # b: 2 say dog, 1 café
    rows += [("c", "a dog"), ("c", "dog, café"), ("c", "a café"), ("d", "nothing"), ("e", "café"), ("e", "café")]
    read = HeldOut.read(written(tmp_path, rows, agree=2), NAMED)
    assert [path.name for path in read.paths] == ["b", "e"]
    assert read.labels.tolist() == [0, 2]
    assert (read.ambiguous, read.unlabelled) == (1, 2)


def test_a_csv_will_do(tmp_path):
    written(tmp_path, [("a", "a dog")])
    (tmp_path / "test.csv").write_text("image,text\na,a dog\n")
    read = HeldOut.read(Held(location=tmp_path / "test.csv", folder=tmp_path, caption="text", agree=1), NAMED)
    assert [path.name for path in read.paths] == ["a"]


@pytest.mark.parametrize(
    ("told", "says"),
    [({"caption": "captoin"}, "did you mean 'caption'"), ({"agree": 3}, "no picture has 3 captions")],
)
def test_a_bad_held_out_set_is_told(tmp_path, told, says):
    with pytest.raises(SourceError, match=says):
        HeldOut.read(written(tmp_path, [("a", "a dog"), ("a", "a dog")], **told), NAMED)


def test_a_missing_held_out_picture_is_told(tmp_path):
    described = written(tmp_path, [("a", "a dog")], agree=1)
    (tmp_path / "a").unlink()
    with pytest.raises(SourceError, match="there is no picture"):
        HeldOut.read(described, NAMED)


def test_near_means_at_most_four_bits():
    hashes = np.array([0, 0b1111, 0b11111, 2**64 - 1, 0], np.uint64)
    assert near_duplicates.near_any(hashes, np.array([0], np.uint64)).tolist() == [True, True, False, False, True]
    assert not near_duplicates.near_any(hashes, np.array([], np.uint64)).any()


def test_scores_by_hand():
    """Truth a a a b, said a a b b: a has precision 1 and recall 2/3, b has 1/2 and 1; c is neither there nor said."""
    truth, said = np.array([0, 0, 0, 1], np.int16), np.array([0, 0, 1, 1], np.int16)
    told = metrics.scores(truth, said, ["a", "b", "c"])
    assert told["accuracy"] == told["f1_micro"] == 0.75
    assert told["per_class"]["a"] == {
        "precision": 1,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
    }
    assert told["per_class"]["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert told["f1_macro"] == pytest.approx((0.8 + 2 / 3 + 0) / 3)
    assert told["precision_macro"] == pytest.approx(0.5)
    assert told["recall_macro"] == pytest.approx((2 / 3 + 1) / 3)


def bootstrapped(truth, classes, seeds):
    return intervals.Bootstrap(metrics.Classification(truth, "abc"[:classes]), len(truth), seeds)


def difference(bootstrap, better, worse, **told):
    return intervals.difference(bootstrap.mean(np.stack(better)), bootstrap.mean(np.stack(worse)), **told)


def test_an_interval_by_hand():
    """One class, so that resampling pictures changes nothing: of two seeds, differences 0 and 1, a resample has 0, 1/2
    or 1 with probabilities 1/4, 1/2, 1/4, and the bounds are 0 and 1."""
    truth = np.zeros(40, np.int16)
    right, wrong = truth, truth + 1
    bootstrap = bootstrapped(truth, 2, 2)
    whole = difference(bootstrap, [right, right], [wrong, wrong])
    assert (whole.difference, whole.low, whole.high) == (0.5, 0.5, 0.5)  # macro over two classes, one of them empty
    assert whole.relative is None
    half = difference(bootstrap, [right, right], [wrong, right])
    assert (half.difference, half.low, half.high) == (0.25, 0, 0.5)
    assert half.relative == 1
    assert half.relative_low is None  # one resample in four divides by 0


def test_an_interaction_by_hand():
    """As above: with both factors right in each seed, with the first alone in one of two, else in none. What the first
    adds is 0.5 with the second and 0.25 without it; by seed the interaction is 0.5 and 0."""
    truth = np.zeros(40, np.int16)
    right, wrong = truth, truth + 1
    bootstrap = bootstrapped(truth, 2, 2)
    both, first, none = (bootstrap.mean(np.stack(each)) for each in ([right] * 2, [wrong, right], [wrong] * 2))
    told = intervals.interaction(both, first, none, none)
    assert (told.difference, told.low, told.high) == (0.25, 0, 0.5)
    assert intervals.interaction(both, both, none, none).difference == 0
    assert intervals.interaction(first, both, none, none).difference == -0.25


def test_an_interval_covers_the_spread_over_pictures():
    """Accuracy 0.8 against 0.6 on n balanced pictures, in disjoint quarters: the known standard error of the mean of
    paired differences is about sqrt(0.2 / n), and macro-F1 is close to accuracy here."""
    n = 400
    truth = np.arange(n, dtype=np.int16) % 2
    better = np.where(np.arange(n) % 10 < 2, 1 - truth, truth).astype(np.int16)
    worse = np.where(np.arange(n) % 10 < 4, 1 - truth, truth).astype(np.int16)
    told = difference(bootstrapped(truth, 2, 3), [better] * 3, [worse] * 3)
    assert told.difference == pytest.approx(0.2)
    expected = 1.96 * np.sqrt(0.2 * 0.8 / n)
    assert told.high - told.low == pytest.approx(2 * expected, rel=0.1)
    assert told.low < 0.2 < told.high


def trained(head, views, truth, heldout, classes, budget, seed):
    """The last predictions of a probe."""
    predictions = probe.train(head, views, Objective(truth, classes), heldout, budget, seed)
    return predictions[max(predictions)]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_learns_and_repeats_itself(head):
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=300).astype(np.int16)
    views = (rng.normal(size=(300, 2, 8)) + 3 * np.eye(8)[truth][:, None]).astype(np.float16)
    views[:, :, 7] = 5  # a feature that never changes
    train = partial(trained, head, views[:200], truth[:200], views[200:], 3)
    said = train(Budget(steps=100, batch=64), 4)
    assert np.mean(said == truth[200:]) > 0.9
    torch.rand(3)  # somebody else draws a number
    assert np.array_equal(said, train(Budget(steps=100, batch=64), 4))
    early = [train(Budget(steps=3, batch=8), seed) for seed in (4, 5)]
    assert not np.array_equal(*early)


def test_an_mlp_learns_what_no_line_separates():
    """Exclusive or."""
    rng = np.random.default_rng(0)
    views = rng.normal(size=(600, 1, 2)).astype(np.float16)
    truth = ((views[:, 0, 0] > 0) != (views[:, 0, 1] > 0)).astype(np.int16)
    right = {
        head: np.mean(trained(head, views[:400], truth[:400], views[400:], 2, Budget(steps=200), 0) == truth[400:])
        for head in ("linear", "mlp")
    }
    assert right["linear"] < 0.7
    assert right["mlp"] > 0.9


@pytest.mark.slow
def test_a_cnn_learns_shapes_wherever_they_lie_and_repeats_itself():
    tower = encoders.load(Pixels(kind="pixels", side=32))
    drawn = [Image.open(io.BytesIO(training_sources.picture(training_sources.truth(n), n))) for n in range(240)]
    views = tower.encode([tower.prepare(each) for each in drawn]).astype(np.float16)[:, None]
    truth = (np.arange(240) % 3).astype(np.int16)
    train = partial(trained, "cnn", views[:180], truth[:180], views[180:], 3, Budget(steps=100, batch=64))
    said = train(1)
    assert np.mean(said == truth[180:]) > 0.6
    assert np.array_equal(said, train(1))


@pytest.mark.slow
def test_filtering_out_lies_helps(noisy):
    _, _, measured = noisy
    rows, names = of(measured, "linear")
    assert set(rows) == set(experiment.CELLS)
    assert rows["raw", False]["pairs_mean"] == 240
    assert rows["filtered", False]["pairs_mean"] == rows["random", True]["pairs_mean"]
    assert rows["filtered", False]["pairs_mean"] == pytest.approx(measured["counts"]["pool_kept"], abs=20)
    told = names["filtered - random"]
    assert told["low"] < told["difference"] < told["high"]
    assert told["low"] > 0
    assert told["clear"]
    says = f"linear, filtering by taught, against a random subset of the same size: {told['difference']:+.3f} ["
    assert told["sentence"].startswith(says)
    expected = rows["filtered", False]["f1_macro_mean"] - rows["random", False]["f1_macro_mean"]
    assert told["difference"] == pytest.approx(expected)
    assert {name for name, each in names.items() if each["factors"] != 1} == {
        "filtered and augmented - raw",
        summary.INTERACTION,
    }


@pytest.mark.slow
def test_every_learner_is_reported(noisy):
    _, storage, measured = noisy
    kinds = [(each["name"], each["head"], each["encoder"]["kind"]) for each in measured["learners"]]
    assert kinds == [("linear", "linear", "timm"), ("mlp", "mlp", "timm"), ("other", "linear", "hog")]
    assert len({path.parent for path in (storage.root / "features").rglob("*.npz")}) == 4  # 2 encoders, held-out apart
    for learner in measured["learners"]:
        rows, names = of(measured, learner["name"])
        gains = [rows["filtered", each]["f1_macro_mean"] - rows["raw", each]["f1_macro_mean"] for each in (True, False)]
        assert names[summary.INTERACTION]["difference"] == pytest.approx(gains[0] - gains[1])
        assert all(each["sentence"].startswith(f"{learner['name']}, ") for each in names.values())


@pytest.mark.slow
def test_sql_tells_which_trial_was_trained_on_which_row(noisy):
    _, storage, _ = noisy
    told = sandbox.run(
        "SELECT key, arm, f1_macro, sum(times) AS pairs, count(*) AS n FROM trained_on GROUP BY ALL", [storage]
    )
    found = [trials.Trial.from_json(storage.fetch(key).read_bytes()) for key in trials.finished(storage)]
    assert {(row["key"], row["arm"], row["f1_macro"], row["pairs"], row["n"]) for row in told.to_pylist()} == {
        (each.setting.key.partition("/")[2], each.setting.arm, each.scores["f1_macro"], each.pairs, each.distinct)
        for each in found
    }
    of_arms = sandbox.run(
        "SELECT arm, bool_and(h.kept) AS kept "
        "FROM trained_on t JOIN history h USING (manifest, uid) GROUP BY arm ORDER BY arm",
        [storage],
    ).to_pylist()
    assert {row["arm"] for row in of_arms} == {each.setting.arm for each in found}
    assert [row["arm"] for row in of_arms if row["kept"]] == ["filtered"]


@pytest.mark.slow
def test_a_filter_that_drops_blindly_is_said_to_add_nothing(noisy):
    _, _, measured = noisy
    rows, _ = of(measured, "linear")
    told = measured["filters"]
    honest, blind = told["differences"]
    assert (told["learner"], honest["name"], honest["filter"]) == ("linear", "filtered - without-honest", "honest")
    assert honest["low"] > 0
    assert honest["sentence"].startswith(f"linear, honest adds {honest['difference']:+.3f} [")
    assert not blind["clear"]
    assert blind["sentence"].startswith("linear, blind shows no clear gain: ")
    without = {row["arm"]: row for row in told["rows"]}
    assert honest["difference"] == pytest.approx(
        rows["filtered", False]["f1_macro_mean"] - without["without-honest"]["f1_macro_mean"]
    )
    assert without["without-honest"]["pairs_mean"] == pytest.approx(
        measured["counts"]["pool_kept"] + honest["alone"], abs=20
    )
    assert [each["sentence"] for each in told["same"]] == [
        "idle adds nothing: it drops no pair that could be trained on"
    ]


@pytest.mark.slow
def test_intervals_of_two_filters_are_wider_and_as_computed_directly(noisy):
    """By hand: every resample of the same draws, scored anew; for two filters the quantiles 0.0125 and 0.9875."""
    _, storage, measured = noisy
    found = [trials.Trial.from_json(storage.fetch(key).read_bytes()) for key in trials.finished(storage)]
    truth = (np.arange(45) % 3).astype(np.int16)
    names = [f"{number}.jpg" for number in range(45)]
    truth = truth[np.argsort(names)]

    def said(arm):
        cell = [each for each in found if (each.setting.learner, each.setting.arm) == ("linear", arm)]
        plain = sorted((each for each in cell if not each.setting.augmented), key=lambda each: each.setting.seed)
        return [np.array(each.predictions) for each in plain]

    rng = np.random.default_rng(20261121)
    pictures = rng.multinomial(45, np.full(45, 1 / 45), size=intervals.RESAMPLES)
    seeds = rng.multinomial(5, np.full(5, 1 / 5), size=intervals.RESAMPLES)
    whole, without, differences = said("filtered"), said("without-blind"), []
    for some, drawn in zip(pictures[:400], seeds[:400], strict=True):
        rows, twice = np.repeat(np.arange(45), some), np.repeat(np.arange(5), drawn)
        scored = [
            np.mean([metrics.scores(truth[rows], each[seed][rows], "abc")["f1_macro"] for seed in twice])
            for each in (whole, without)
        ]
        differences.append(scored[0] - scored[1])
    bootstrap = bootstrapped(truth, 3, 5)
    means = [bootstrap.mean(np.stack(each).astype(np.int16)) for each in (whole, without)]
    np.testing.assert_allclose((means[0].resampled - means[1].resampled)[:400], differences, atol=1e-6)
    blind = measured["filters"]["differences"][1]
    expected = np.quantile(means[0].resampled - means[1].resampled, [0.0125, 0.9875])
    np.testing.assert_allclose([blind["low"], blind["high"]], expected)
    assert blind["level"] == pytest.approx(0.975)
    plain = intervals.difference(*means)
    assert blind["low"] < plain.low < plain.high < blind["high"]
    assert "97.5% each, so that 95% hold for all 2 together" in measured["filters"]["interval"]


@pytest.mark.slow
def test_a_filter_whose_pairs_others_drop_is_not_trained_without(tmp_path):
    """Both filters drop the lies: without either of them the same pairs would be kept."""
    filters = {**training_sources.HONEST, "again": "NOT starts_with(caption, 'stock')"}
    described, storage = training_sources.task(tmp_path / "task", count=60, lies=range(9), filters=filters)
    told = gain.measure(described, storage)["filters"]
    assert told["differences"] == []
    says = "adds nothing: other filters drop all that it drops, too (pairs that could be trained on: 9)"
    assert [each["sentence"] for each in told["same"]] == [f"honest {says}", f"again {says}"]
    assert len(trials.finished(storage)) == 30


@pytest.mark.slow
def test_the_baseline_stands_beside(noisy):
    _, storage, measured = noisy
    kept = len(Manifest.open(storage).select())
    assert 110 < kept < 144
    assert measured["baseline"]["accuracy"] == pytest.approx(1 / 3)
    assert measured["baseline"]["f1_macro"] == pytest.approx(1 / 6)
    assert measured["counts"] == {
        "downloaded": 240, "no_class": 0, "several_classes": 0, "labelled": 240,
        "leaked_exact": 0, "leaked_near": 0, "pool": 240, "pool_kept": kept,
    }  # fmt: skip


@pytest.mark.slow
def test_a_second_run_trains_nothing(noisy):
    described, storage, measured = noisy
    before = files(storage, "trials", "gains", "features")
    assert gain.measure(described, storage) == measured
    assert gain.measure(described, storage, Manifest.open(storage).id[:10]) == measured
    assert files(storage, "trials", "gains", "features") == before
    assert len(trials.finished(storage)) == (3 * 6 + 4) * 5


@pytest.mark.slow
def test_the_gain_of_a_recipe_that_repeats_is_at_equal_samples(tmp_path):
    described, storage = training_sources.task(tmp_path / "task", count=60, lies=range(20), steps=5)
    cap = SoftCap(by="length(caption)", penalty=2, budget=90, unit="samples", batch=10)
    publish.republish(storage, replace(described.own_recipe, selection=cap))
    told = gain.measure(described, storage)
    rows, differences = of(told, "linear")
    filtered, blind = rows["filtered", False], rows["random", False]
    assert filtered["pairs_mean"] == blind["pairs_mean"] > 70
    finished = [json.loads(path.read_bytes()) for path in storage.fetch_all(trials.finished(storage))]
    assert len({json.dumps(each["budget"]) for each in finished}) == 1  # every arm sees steps x batch samples
    assert "filtered - random" in differences
    with Manifest.open(storage).connection() as con:
        ((samples, kept),) = con.execute("SELECT sum(copies), count(*) FROM rows WHERE kept").fetchall()
    assert samples == 90 > kept == told["counts"]["pool_kept"]


@pytest.mark.slow
def test_the_gain_of_a_recipe_that_was_not_published(tmp_path):
    described, storage = training_sources.task(tmp_path / "task", count=45, lies=range(9), steps=5)
    told = gain.measure(described, storage, recipe="everything")
    assert (told["recipe"], told["published"], told["counts"]["pool_kept"]) == ("everything", False, 45)
    rows, _ = of(told, "linear")
    assert rows["filtered", False]["f1_macro_mean"] == rows["raw", False]["f1_macro_mean"]
    assert trials.gain_of(storage, told["manifest"]) is None


@pytest.mark.slow
def test_the_same_task_elsewhere_gives_the_same_trials(tmp_path):
    told = []
    for name in ("one", "two"):
        described, storage = training_sources.task(tmp_path / name, count=60, lies=range(9))
        measured = gain.measure(described, storage)
        measured.pop("seconds")
        for row in (*measured["learners"][0]["rows"], *measured["filters"]["rows"]):
            assert row.pop("cost")["seconds"] >= 0
        found = [trials.Trial.from_json(storage.fetch(key).read_bytes()) for key in trials.finished(storage)]
        told.append((measured, [dataclasses.replace(each, seconds=0, memory_mb=None) for each in found]))
    assert told[0] == told[1]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_at_the_trial(tmp_path):
    described, storage = training_sources.task(tmp_path / "task", count=60)

    def interrupt(step, done, total):
        if (step, done) == ("trials", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gain.measure(described, storage, progress=interrupt)
    before = files(storage, "trials", "features")
    assert len(trials.finished(storage)) == 5
    gain.measure(described, storage)
    after = files(storage, "trials", "features")
    assert before.items() <= after.items()
    assert len(trials.finished(storage)) == 30


@pytest.mark.slow
def test_another_budget_trains_anew_on_the_same_features(tmp_path):
    described, storage = training_sources.task(tmp_path / "task", count=60)
    first = gain.measure(described, storage)
    features = files(storage, "features")
    described, storage = training_sources.task(tmp_path / "task", count=60, steps=61)
    assert gain.measure(described, storage) != first
    assert files(storage, "features") == features
    described, storage = training_sources.task(tmp_path / "task", count=60, seeds=6)
    gain.measure(described, storage)
    assert len(trials.finished(storage)) == 30 + 30 + 6  # a seed more is a seed more


def pictures(storage):
    """By uid, the picture that each row of the newest manifest has in the store."""
    stages = Manifest.open(storage).stages
    rows = sandbox.run("SELECT uid, shard, member FROM rows", [storage]).to_pylist()
    tars = {row["shard"] for row in rows}
    stored = {number: dict(tarfiles.read(storage.fetch(f"shards-{stages.shards}/{number:05d}.tar"))) for number in tars}
    return {row["uid"]: stored[row["shard"]][row["member"]] for row in rows}


def shows(pictures, held):
    """The uids of the pictures that are those of the files `held`: the same bytes, or nearly the same to the eye."""

    def seen(picture):
        return imagehash.phash(Image.open(io.BytesIO(picture)).convert("RGB"))

    digests, looks = {hashlib.sha256(each).digest() for each in held}, [seen(each) for each in held]
    return {
        uid
        for uid, picture in pictures.items()
        if hashlib.sha256(picture).digest() in digests or min(seen(picture) - each for each in looks) <= 4
    }


@pytest.mark.slow
def test_pictures_of_the_test_set_do_not_train(tmp_path):
    """An exact copy, a copy encoded again and smaller, and one at two addresses of the list: by what the store says."""
    exact, near = training_sources.picture("stripes", 10_004), training_sources.picture("cross", 10_005)
    small = io.BytesIO()
    Image.open(io.BytesIO(near)).resize((56, 56)).save(small, "JPEG", quality=70)
    copies = {4: exact, 5: small.getvalue(), 7: exact}
    described, storage = training_sources.task(tmp_path / "task", count=60, lies=range(9, 20), pictures=copies, steps=5)
    counts = gain.measure(described, storage)["counts"]
    assert (counts["leaked_exact"], counts["leaked_near"]) == (2, 1)
    assert counts["pool"] == 57
    assert counts["pool_kept"] == 46

    stored = pictures(storage)
    of_test = shows(stored, [path.read_bytes() for path in sorted((tmp_path / "task" / "test").iterdir())])
    planted = sandbox.run("SELECT uid FROM rows WHERE kept AND url SIMILAR TO 'http://host/[457].jpg'", [storage])
    assert of_test == set(planted["uid"].to_pylist())
    assert len(of_test) == 3
    drawn = [pq.read_table(storage.fetch(key)) for key in storage.keys("draws")]
    assert len(drawn) == 5
    for table in drawn:
        assert set(table["arm"].to_pylist()) == {"raw", "filtered", "random", "without-honest", "random-without-honest"}
        assert not of_test & set(table["uid"].to_pylist())
    assert len({uid for table in drawn for uid in table["uid"].to_pylist()}) > 50
    trained = sandbox.run("SELECT key, sum(times) AS pairs, count(*) AS n FROM trained_on GROUP BY key", [storage])
    found = [trials.Trial.from_json(storage.fetch(key).read_bytes()) for key in trials.finished(storage)]
    assert {(row["key"], row["pairs"], row["n"]) for row in trained.to_pylist()} == {
        (each.setting.key.partition("/")[2], each.pairs, each.distinct) for each in found
    }


def test_an_arm_with_a_picture_of_the_test_set_is_refused(tmp_path):
    """Whatever the mask of the pool says: a copy, and one that is encoded again."""
    exact = training_sources.picture("stripes", 10_004)
    again = training_sources.encoded(np.asarray(Image.open(io.BytesIO(training_sources.picture("cross", 10_005)))), 70)
    described, storage = training_sources.task(tmp_path / "task", count=60, pictures={4: exact, 5: again})
    test = HeldOut.read(described.task.test, described.task)
    extractors = roster.plan(described, storage).extractors
    known = pool.read(arms.Choice.open(storage), described.task, extractors, test, progress.silent)
    own = partial(experiment.Experiment, "", None, described.task, test=test, learners=())
    assert np.flatnonzero(own(pool=known).shows_test).tolist() == np.flatnonzero(known.leaked).tolist() == [4, 5]
    for seed in range(5):
        assert not known.leaked[np.concatenate(list(own(pool=known).draw(seed).values()))].any()
    for unseen in (4, 5):
        forgetful = dataclasses.replace(known, leaked=known.leaked & (np.arange(60) != unseen))
        with pytest.raises(CompareError, match="the arm 'raw' trains on a picture of the test set"):
            list(map(own(pool=forgetful).draw, range(20)))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"filters": {"none": "false"}}, "keeps no pair that can be trained on"),
        ({"filters": {"plain": "caption NOT LIKE '%cross%'"}}, "the arm 'filtered' has no pair of the class 'cross'"),
        ({"captions": dict.fromkeys(range(30), "nothing")}, "none of 30 downloaded captions names exactly one class"),
        ({"test": 2}, "no held-out picture shows the class 'cross'"),
    ],
)
def test_an_unfair_comparison_is_refused(tmp_path, told, says):
    described, storage = training_sources.task(tmp_path / "task", count=30, **told)
    with pytest.raises(CompareError, match=says):
        gain.measure(described, storage)


@pytest.mark.slow
def test_unequal_trials_are_not_compared(noisy):
    _, storage, _ = noisy
    every = [trials.Trial.from_json(storage.fetch(key).read_bytes()) for key in trials.finished(storage)]
    found = sorted((each for each in every if each.setting.learner == "mlp"), key=lambda each: each.setting.seed)
    fairness.check_comparable("mlp", found)
    spent = dataclasses.replace(found[0].setting, budget={**found[0].setting.budget, "steps": 1})
    with pytest.raises(CompareError, match="trials of 'mlp' differ in their budget"):
        fairness.check_comparable("mlp", [dataclasses.replace(found[0], setting=spent), *found[1:]])
    with pytest.raises(CompareError, match="not paired"):
        fairness.check_comparable("mlp", found[1:])
    with pytest.raises(CompareError, match="at least 5 seeds"):
        fairness.check_comparable("mlp", [each for each in found if each.setting.seed < 4])


@pytest.mark.slow
def test_a_source_without_a_task_is_told(noisy):
    described, storage, _ = noisy
    with pytest.raises(SourceError, match=r"there is no \[task\]"):
        gain.measure(described.model_copy(update={"task": None}), storage)
    untested = described.task.model_copy(update={"test": None})
    with pytest.raises(SourceError, match=r"\[task.test\] is missing"):
        gain.measure(described.model_copy(update={"task": untested}), storage)


@pytest.mark.slow
def test_a_grown_source_keeps_the_features_of_its_old_shards(tmp_path):
    described, storage = training_sources.task(tmp_path / "task", count=50)
    gain.measure(described, storage)
    before = files(storage, "features")
    described, storage = training_sources.task(tmp_path / "task", count=80)
    counts = gain.measure(described, storage)["counts"]
    assert counts["pool"] == 80
    assert before.items() <= files(storage, "features").items()


@pytest.mark.slow
def test_the_table_says_it_all(noisy):
    _, _, measured = noisy
    console = Console(width=120, file=io.StringIO())
    console.print(gains.table(measured))
    shown = console.file.getvalue()
    for learner in measured["learners"]:
        for row in learner["rows"]:
            spread = f"{row['f1_macro_sd']:.3f}".lstrip("0")
            assert f"{row['f1_macro_mean']:.3f} ({spread})" in shown
        for each in learner["differences"]:
            assert (f"\n{each['sentence']}\n" in shown) == each["first"]  # on a line of its own
    for each in (*measured["filters"]["differences"], *measured["filters"]["same"]):
        assert f"\n{each['sentence']}\n" in shown
    assert "always" in shown


@pytest.mark.slow
def test_the_forest_plot_is_the_same_each_time(noisy, tmp_path):
    _, _, measured = noisy
    for name in ("a.svg", "b.svg", "c.png"):
        plot.forest(measured, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "filtered - random" in (tmp_path / "a.svg").read_text()
    assert "filtered - without-blind" in (tmp_path / "a.svg").read_text()
    assert Image.open(tmp_path / "c.png").width > 500


@pytest.mark.slow
def test_trials_lie_flat_for_sql(noisy):
    _, storage, _ = noisy
    fields = json.loads(storage.fetch(trials.finished(storage)[0]).read_bytes())
    assert fields["source"] == "taught"
    assert fields["classes"] == [[name, list(words)] for name, words in noisy[0].task.classes.items()]
    assert len(fields["predictions"]) == 45


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ('a = ["x"]\nb = ["X"]', "the word 'X' names both 'a' and 'b'"),
        ('a = ["x"]\nb = []', "classes.b needs at least one word"),
    ],
)
def test_classes_share_no_word(tmp_path, classes, says):
    training_sources.heldout(tmp_path, 1)
    (tmp_path / "list.tsv").write_text("a\thttp://host/1.jpg\n")
    toml = tmp_path / "bad.toml"
    toml.write_text(
        f'[pairs]\nlocation = "list.tsv"\ncolumns = ["caption", "url"]\n[task.classes]\n{classes}\n'
        '[task.learners.linear]\nhead = "linear"\nencoder = { kind = "hog" }\n'
    )
    with pytest.raises(SourceError, match=says):
        loading.load(toml)


@pytest.mark.parametrize(
    ("learner", "says"),
    [
        ('head = "cnn"\nencoder = { kind = "hog" }', "task.learners.x: a cnn needs pixels"),
        (
            'head = "linear"\nencoder = { kind = "hgo" }',
            "task.learners.x.encoder.kind: 'hgo' is unknown; did you mean 'hog'",
        ),
        ('head = "linear"\nencoder = { kind = "hog", sied = 64 }', "x.encoder.sied; did you mean 'side'"),
        ('haed = "linear"\nencoder = { kind = "hog" }', "unknown key task.learners.x.haed; did you mean 'head'"),
    ],
)
def test_a_wrong_learner_is_told(tmp_path, learner, says):
    (tmp_path / "list.tsv").write_text("a\thttp://host/1.jpg\n")
    toml = tmp_path / "bad.toml"
    toml.write_text(
        '[pairs]\nlocation = "list.tsv"\ncolumns = ["caption", "url"]\n[task.classes]\na = ["a"]\nb = ["b"]\n'
        f"[task.learners.x]\n{learner}\n"
    )
    with pytest.raises(SourceError, match=says):
        loading.load(toml)
