"""A learned mix of score columns: which weights it finds, what it says of itself, and which references it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import ModelError, SourceError
from pipeline.export.made import made
from pipeline.export.markdown import text
from pipeline.images.phash import phash
from pipeline.manifest import publish, remarks
from pipeline.manifest.manifest import Manifest
from pipeline.mixing import comparison, logistic, reference_learner, step
from pipeline.mixing.learn import learn
from pipeline.mixing.pairs import Pairs
from pipeline.scorers import mixture_file
from pipeline.scorers.mixed_pool import Inside
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage
from pipeline.uids import uid


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def embedded_pairs(random, right):
    """float32 [pairs, 2, 16]: captions lie near their pictures, and near another picture where a pair is not right."""
    images = unit(random.normal(size=(len(right), 16)))
    texts = unit(images + 0.7 * unit(random.normal(size=images.shape)))
    wrong = np.flatnonzero(~right)
    texts[wrong] = texts[np.roll(wrong, 1)]
    return np.stack([images, texts], axis=1).astype(np.float32)


def world(pairs=800, reference=120, informative=True, seed=0):
    """A pool of which 40 % are wrong pairs. Two columns tell them, with errors of their own, and the third is noise."""
    random = np.random.default_rng(seed)
    right = random.random(pairs) > 0.4
    told = right if informative else random.random(pairs) > 0.4
    noise = random.normal(size=(pairs, 3)) * [0.8, 0.8, 1.0]
    columns = noise + np.stack([told * 1.0, told * -1.0, np.zeros(pairs)], axis=1)
    of_pool = Pairs(columns * [1, 100, 1e6], embedded_pairs(random, right), np.arange(pairs), np.arange(pairs) % 2)
    clean = np.ones(reference, bool)
    told = random.normal(size=(reference, 3)) * [0.8, 0.8, 1.0] + [1, -1, 0]
    outside = Pairs(told * [1, 100, 1e6], embedded_pairs(random, clean), np.arange(reference), np.full(reference, -1))
    return of_pool, outside, right


@pytest.mark.parametrize("method", ["step", "logistic"])
def test_a_mix_weighs_columns_by_what_they_tell(method, monkeypatch):
    monkeypatch.setattr(reference_learner, "BATCH", 48)
    monkeypatch.setattr(step, "STEPS", 25)
    of_pool, reference, right = world()
    mixture = learn(of_pool, reference, method, refits=3)
    assert mixture.weights.shape == (2, 3, 3)
    np.testing.assert_allclose(np.abs(mixture.weights).sum(axis=2), 1)
    first, second, third = mixture.weights.mean(axis=(0, 1))
    assert first > 0.2
    assert second < -0.2
    assert abs(third) < 0.2
    scores = mixture.score(of_pool.columns, of_pool.fold)
    best = np.argsort(-scores)[:300]
    alone = np.argsort(-of_pool.columns[:, 0])[:300]
    assert right[best].mean() > right[alone].mean() > right.mean()


@pytest.mark.slow
@pytest.mark.parametrize("informative", [True, False])
def test_a_mix_is_better_only_where_its_columns_tell_something(informative):
    of_pool, reference, _ = world(informative=informative)
    mixture = learn(of_pool, reference, refits=4)
    found = comparison.compare(of_pool, reference, mixture, 0.4)
    assert found.better == informative
    assert (found.over_random.low > 0) == informative
    assert sum(found.chosen) == 8
    assert len(found.columns) == 3
    assert found.gain.mean == pytest.approx(found.best.mean - found.mixed.mean)


def test_no_weight_of_a_fold_depends_on_its_pairs():
    of_pool, reference, _ = world(400, 60)
    before = learn(of_pool, reference, "logistic", refits=3)
    changed = of_pool.columns.copy()
    changed[of_pool.fold == 1] *= -3
    after = learn(replace(of_pool, columns=changed), reference, "logistic", refits=3)
    assert (before.weights[1] == after.weights[1]).all()
    assert not np.allclose(before.weights[0], after.weights[0])
    inside = replace(reference, fold=np.arange(60) % 2)
    before = learn(of_pool, inside, "logistic", refits=3)
    moved = replace(inside, columns=np.where((inside.fold == 0)[:, None], -5.0, inside.columns))
    after = learn(of_pool, moved, "logistic", refits=3)
    assert (before.weights[0] == after.weights[0]).all()
    assert not np.allclose(before.weights[1], after.weights[1])


def test_logistic_regression_is_scipys():
    from scipy.optimize import minimize

    random = np.random.default_rng(0)
    low, high = random.normal(size=(300, 2)), random.normal([1, -0.5], 1, (50, 2))

    def loss(weights):
        sides = [
            np.logaddexp(0, sign * (rows @ weights[:2] + weights[2])).mean() for sign, rows in ((1, low), (-1, high))
        ]
        return sum(sides) / 2 + logistic.PENALTY / 2 * (weights[:2] ** 2).sum()

    np.testing.assert_allclose(logistic.learn(low, high), minimize(loss, np.zeros(3)).x[:2], atol=1e-4)


def test_pairs_of_a_picture_stay_together():
    pairs = Pairs(None, np.zeros((60, 2, 4), np.float32), np.arange(60) // 3, np.zeros(60, np.int64))
    one, other = pairs.halves(7)
    assert len(one) == len(other) == 30
    assert not set(one.pictures) & set(other.pictures)
    assert set(pairs.halves(8)[0].pictures) != set(one.pictures)


DEMO = Path(__file__).parent.parent / "pipeline/demo/clip"
PAIRS = 130
GOOD = range(0, PAIRS, 2)
"""Of the pictures of the tests below, those whose captions fit; every third of them is a reference pair."""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(reference_learner, "STEPS", 4)
    monkeypatch.setattr(step, "STEPS", 4)


def vectors():
    random = np.random.default_rng(3)
    return embedded_pairs(random, np.arange(PAIRS) % 2 == 0)[:, :, :8].astype(np.float16)


MIXES = ("pixels.sharpness", "captions.length")


def mixed_source(folder, settings="", good=GOOD, mixes=MIXES, numbers=range(PAIRS), more=""):
    """A source with a mix for reference pairs of its own, by uid. The length of a caption is that of its number."""
    folder.mkdir(exist_ok=True)
    uids = [uid(f"http://host/{number}.jpg", f"picture number {number}") for number in good]
    pq.write_table(pa.table({"uid": pa.array(uids, pa.string())}), folder / "good.parquet")
    table = (
        f'[scorers.mixed]\nkind = "mixed"\nof = "recorded"\nmixes = {json.dumps(mixes)}\nrefits = 3\n{settings}'
        '[scorers.mixed.reference]\nlocation = "good.parquet"\n'
    )
    recorded = published_sources.recorded(folder)
    return published_sources.listed(folder, numbers, filters=(), shard_size=40, more=recorded + table + more)


def mixed_scores(described, storage, **failed):
    """By picture number its score, after publishing."""
    ledger = published_sources.embedded(described, storage, unit(vectors()), **failed)
    pool.run(Plan.of(described), storage, ledger, {})
    publish.publish(Plan.of(described), storage, ledger, {})
    with Manifest.open(storage).connection() as con:
        rows = con.execute("SELECT url, mixed_score FROM rows").fetchall()
    return {int(url.split("/")[-1].removesuffix(".jpg")): score for url, score in rows}


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_source_with_a_mix(tmp_path):
    """The reference are sharp pictures, so that sharpness is what the mix is made of."""
    sharp = range(65, PAIRS)
    described = mixed_source(tmp_path / "a", 'method = "logistic"\n', sharp)
    storage = Storage(tmp_path / "store")
    found = mixed_scores(described, storage, failed={5})
    assert {number for number, score in found.items() if score is None} == {5}
    ranks = np.argsort([found[number] for number in sorted(found) if number != 5])
    assert np.corrcoef(ranks, np.arange(PAIRS - 1))[0, 1] > 0.9
    manifest = Manifest.open(storage)
    weights = manifest.card["mixtures"]["mixed"]["weights"]
    assert weights["pixels_sharpness"]["low"] > 0.5
    learned, compared, alone = remarks.of(manifest)
    assert learned.startswith("mixed: learned by logistic for 65 reference pairs from 64 pairs of the pool; weights")
    assert "pixels_sharpness +" in learned
    assert "no better than the best single column" in compared
    assert "the loss by each column alone: pixels_sharpness" in alone
    assert f"- {text(compared)}." in list(made(manifest))  # in the card of an export
    backwards = mixed_source(tmp_path / "b", 'method = "logistic"\n', sharp, numbers=range(PAIRS - 1, -1, -1))
    assert mixed_scores(backwards, Storage(tmp_path / "other"), failed={5}) == found  # to the bit


@pytest.mark.parametrize(
    ("better", "best", "verdict"),
    [
        (True, 1.0, "better than the best single column, mostly x; with 30%"),
        (False, 1.0, "no better than the best single column, mostly x: use that alone; with 30%"),
        (
            False,
            3.0,
            "no better than the best single column, mostly x, which is no better than a random subset: use neither;",
        ),
    ],
)
def test_a_mix_is_compared_in_words(better, best, verdict):
    none = {"mean": 0.0, "low": 0.0, "high": 0.0}
    losses = {name: {"mean": loss} for name, loss in (("mixed", 1.0), ("best", best), ("random", 2.0))}
    mix = {"method": "step", "reference": 20, "pairs": 40, "refits": 3, "folds": 2, "keep": 0.3, "weights": {"x": none}}
    mix |= {"losses": losses, "alone": [{"column": "x", "loss": none, "chosen": 1}], "gain": none, "better": better}
    _, compared, _ = mixture_file.remarks({"mixed": mix})
    assert compared.startswith(f"mixed: the mix is {verdict}")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_step_gives_scores_and_a_pool_without_pairs_none(tmp_path):
    described = mixed_source(tmp_path)
    found = mixed_scores(described, Storage(tmp_path / "store"))
    assert None not in found.values()
    empty = mixed_scores(described, Storage(tmp_path / "empty"), failed=set(range(PAIRS)))
    assert set(empty.values()) == {None}


@pytest.mark.parametrize(
    ("settings", "mixes", "good", "told"),
    [
        ("", ["pixels.sharpness", "captions.words"], GOOD, "captions_words is 3 for every pair, and says nothing"),
        ("", ["pixels.sharpness", "captions.length"], range(900, 925), "none of the 25 uids of good.parquet is a down"),
        ("", ["pixels.sharpness", "captions.length"], range(24), "a fold can learn from .. pictures of the reference"),
        (
            "",
            ["pixels.sharpness", "captions.length"],
            [1],
            "good.parquet names 1 reference picture, and 20 are the fewest",
        ),
        ("", ["pixels.sharpness", "captions.length"], [], "good.parquet names no reference pair"),
        ("", ["pixels.sharpness", "captions.lenght"], GOOD, "'captions' has no column 'lenght'; did you mean 'length'"),
        ("", ["pixels.sharpness", "pixels.phash"], GOOD, "pixels.phash is uint64, and only numbers can be mixed"),
        ("", ["pixels.sharpness", "mixed.score"], GOOD, "mixed.score is a mix itself"),
        ('hashes = "captions"\n', ["pixels.sharpness", "captions.length"], GOOD, "'captions' makes no phash"),
    ],
)
def test_what_cannot_be_mixed(tmp_path, settings, mixes, good, told):
    described = mixed_source(tmp_path, settings, good, mixes)
    storage = Storage(tmp_path / "store")
    with pytest.raises((ModelError, SourceError), match=told):
        pool.run(Plan.of(described), storage, published_sources.embedded(described, storage, unit(vectors())), {})


@pytest.mark.parametrize(
    ("mixes", "told"),
    [
        (["pixels_sharpness", "captions.length"], "write 'pixels_sharpness' as SCORER.COLUMN"),
        (["pixels.sharpness"], "at least 2"),
        (["pixels.sharpness", "pixels.sharpness"], "named twice"),
        (["pixels.sharpness", "nobody.length"], "there is no scorer 'nobody'"),
    ],
)
def test_what_a_source_file_may_not_say(tmp_path, mixes, told):
    with pytest.raises(SourceError, match=told):
        mixed_source(tmp_path, mixes=mixes)


def test_a_mix_needs_embeddings(tmp_path):
    described = mixed_source(tmp_path, more='[scorers.other]\nkind = "mixed"\nof = "pixels"\n'
        'mixes = ["pixels.sharpness", "captions.length"]\nreference.location = "good.parquet"\n')  # fmt: skip
    with pytest.raises(SourceError, match=r"scorers.other: 'pixels' stores no embeddings"):
        Plan.of(described)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_score_of_the_whole_pool_is_mixed(tmp_path):
    loss = '[scorers.loss]\nkind = "neg_clip_loss"\nof = "recorded"\ntemperature = 0.05\nbatch = 64\nshuffles = 2\n'
    described = mixed_source(tmp_path, 'method = "logistic"\n', mixes=("pixels.sharpness", "loss.score"), more=loss)
    storage = Storage(tmp_path / "store")
    assert None not in mixed_scores(described, storage).values()
    weights = Manifest.open(storage).card["mixtures"]["mixed"]["weights"]
    assert weights["loss_score"]["mean"] > abs(weights["pixels_sharpness"]["mean"])  # the reference are pairs that fit
    other = mixed_source(
        tmp_path, 'method = "logistic"\n', mixes=("pixels.sharpness", "loss.score"), more=loss.replace("64", "65")
    )
    keys = [Plan.of(each).of_pool["mixed"]["reads"]["loss"] for each in (described, other)]
    assert keys[0] != keys[1]


@pytest.fixture
def real(tmp_path, monkeypatch):
    """A folder of 50 pictures with captions, which is listed in reference.csv; and a test set of five others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random = np.random.default_rng(5)
    (tmp_path / "pictures").mkdir()
    for number in range(55):
        cells = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        picture = Image.fromarray(cells).resize((64, 64), Image.Resampling.BICUBIC)
        picture.save(tmp_path / "pictures" / f"{number:03d}.png")
    for name, numbers in (("reference", range(50)), ("test", range(50, 55))):
        lines = [f"{number:03d}.png,picture number {number},{number},{number % 7}" for number in numbers]
        (tmp_path / f"{name}.csv").write_text("\n".join(["image,caption,pixels_sharpness,captions_length", *lines]))
    return tmp_path


class Rows:
    """Rows of a pool, as columns."""

    def __init__(self, **columns):
        self._columns = {
            name: pa.chunked_array([pa.array(values, pa.uint64() if name == "pixels_phash" else pa.string())])
            for name, values in columns.items()
        }

    def column(self, name):
        return self._columns[name]


def outside():
    """The mix of a reference outside of the pool, and the task whose pictures it must not have."""
    return (
        (
            f'[scorers.clip]\nkind = "clip"\nmodel = "local-dir:{DEMO}"\nprecision = "float32"\n'
            '[scorers.mixed]\nkind = "mixed"\nmixes = ["pixels.sharpness", "captions.length"]\nmethod = "logistic"\n'
            '[scorers.mixed.reference]\nlocation = "reference.csv"\nfolder = "pictures"\n'
            f'[task.test]\nlocation = "test.csv"\nfolder = "pictures"\n'
            '[task]\nkind = "classes"\nclasses = {{ a = ["one"], b = ["two"] }}\n'
            '[task.learners.linear]\nhead = "linear"\nencoder = {{ kind = "pixels" }}\n'
        )
        .replace("{{", "{")
        .replace("}}", "}")
    )


def test_pictures_of_the_test_set_are_no_reference(real):
    described = published_sources.listed(real, range(3), filters=(), more=outside())
    Plan.of(described)
    with (real / "reference.csv").open("a") as file:
        file.write("\n052.png,again,1,1")
    with pytest.raises(ModelError, match=r"1 of 51 pictures of .* are in the test set of the task, 052.png first"):
        Plan.of(described)


@pytest.mark.slow  # it loads a CLIP
def test_a_reference_outside_of_the_pool_is_encoded_by_the_model(real):
    described = published_sources.listed(real, range(3), filters=(), more=outside())
    scorer = described.scorers["mixed"].load(described.scorers["clip"].load)
    pairs = scorer._reference
    assert pairs.columns[:, 0].tolist() == list(range(50))
    np.testing.assert_allclose(np.linalg.norm(pairs.embeddings, axis=2), 1, atol=1e-5)
    assert set(pairs.fold) == {-1}
    assert len(set(pairs.pictures)) == 50
    (real / "reference.csv").write_text((real / "reference.csv").read_text().replace("captions_length", "length"))
    with pytest.raises(SourceError, match="there is no column 'captions_length'; did you mean 'caption'"):
        Plan.of(described)


def test_a_pair_of_the_pool_with_a_test_picture_is_no_reference(real):
    task = outside().split("[task.test]")[1]
    more = f"[task.test]{task}"
    with pytest.raises(SourceError, match="set hashes to a scorer of kind pixels"):
        Plan.of(mixed_source(real, more=more))
    spec = mixed_source(real, 'hashes = "pixels"\n', more=more).scorers["mixed"]
    reference = Inside(spec.reference, "pixels", spec.test)
    uids = spec.reference.read()["uid"].to_pylist()[:2]
    tested = phash(Image.open(real / "pictures" / "053.png"))
    assert reference.rows(Rows(uid=uids, pixels_phash=[1, 2])).tolist() == [True, True]
    with pytest.raises(ModelError, match=r"1 of 2 pictures of .*good.parquet are in the test set .*\(as 053.png\)"):
        reference.rows(Rows(uid=uids, pixels_phash=[1, tested ^ 0b11]))


def test_a_source_that_holds_out_its_own_pictures_has_its_reference_elsewhere(real):
    split = outside().split("[task.test]")[1].split("\n", 3)[3]
    with pytest.raises(SourceError, match=r"scorers.mixed: task.split holds out pictures of this source"):
        mixed_source(real, more=f"[task.split]\nshare = 0.5\n{split}")
