"""Label errors: confident learning by hand, and planted wrong labels through the whole pool."""

import numpy as np
import published_sources
import pyarrow as pa
import pytest

from filters import pool as pool_filters
from filters.core import Recipe
from pipeline.errors import ModelError, SourceError
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.scorers import confident
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store.storage import Storage

CLASSES = ("cat", "dog", "bird")
WRONG = {5: "dog", 26: "cat", 48: "bird", 88: "cat"}
TASK = (
    "[task]\n"
    'classes.cat = ["cat"]\nclasses.dog = ["dog", "puppy"]\nclasses.bird = ["bird"]\n'
    'learners.one = { head = "linear", encoder = { kind = "pixels", side = 16 } }\n'
    '[task.test]\nlocation = "tiny.tsv"\nfolder = "."\n'
)


def test_the_confident_joint_by_hand():
    """Thresholds: class 0 (.9 + .6 + .2) / 3 = .567, class 1 (.9 + .55) / 2 = .725. Row 2 reaches that of class 1."""
    likely = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9], [0.45, 0.55]], np.float32)
    found = confident.findings(likely, np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(found.quality, [0.9, 0.6, 0.2, 0.9, 0.55])
    assert found.contradicted.tolist() == [False, False, True, False, False]
    assert found.suggested.tolist() == [0, 0, 1, 1, 1]


def test_of_several_weights_the_least_held_out_loss_is_taken():
    labels = np.array([0, 1])
    sure, unsure, wrong = (np.array([[p, 1 - p], [1 - p, p]], np.float32) for p in (0.9, 0.6, 0.0))
    assert confident.best(iter([unsure, sure, wrong]), labels) is sure


def test_the_learner_is_that_of_the_closed_form():
    """One number, no mean and a deviation of 1: the gradient of the loss is zero at the weights that were found."""
    import torch

    random = np.random.default_rng(0)
    vectors = torch.from_numpy(random.normal(size=(200, 3)).astype(np.float32))
    labels = torch.from_numpy((vectors[:, 0].numpy() + random.normal(size=200) > 0).astype(np.int64))
    weights, bias = confident._fitted(vectors, labels, 2, 0.1)
    weights.requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(vectors @ weights + bias, labels) + 0.05 * (weights**2).sum()
    (gradient,) = torch.autograd.grad(loss, weights)
    assert float(gradient.abs().max()) < 1e-3


def vectors(seed=0):
    """A hundred pictures [100, 2, 8] about one of three directions: number n is a picture of class n % 3."""
    random = np.random.default_rng(seed)
    about = np.eye(8)[np.arange(100) % 3] + random.normal(0, 0.15, (100, 8))
    about /= np.linalg.norm(about, axis=1, keepdims=True)
    return np.stack([about, about], axis=1).astype(np.float16)


def listed(folder, numbers=range(100), more=TASK, wrong=WRONG, unlabelled=(7,), settings="", of="recorded"):
    said = {n: wrong.get(n, CLASSES[n % 3]) if n not in unlabelled else "picture" for n in numbers}
    rows = [(f"a {said[n]} number {n}", f"http://host/{n}.jpg") for n in numbers]
    own = f'[scorers.label_errors]\nkind = "label_errors"\nof = "{of}"\n{settings}'
    more = published_sources.recorded(folder) + own + more
    return published_sources.listed(folder, (), filters=(), rows=rows, more=more)


def judged(described, store, **failed):
    """By picture number the values of the four columns."""
    storage = Storage(store)
    ledger = published_sources.embedded(described, storage, vectors(), **failed)
    pool.run(Plan.of(described), storage, ledger, {})
    publish.publish(Plan.of(described), storage, ledger, {})
    with Manifest.open(storage).connection() as con:
        rows = con.execute("SELECT url, COLUMNS('label_errors_.*') FROM rows WHERE status = 'ok'").fetchall()
    return {int(url.split("/")[-1].removesuffix(".jpg")): tuple(values) for url, *values in rows}, storage


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    return judged(listed(folder), folder / "store")


def test_planted_wrong_labels_are_contradicted(found):
    rows, _ = found
    contradicted = {number for number, (_, _, wrong, _) in rows.items() if wrong}
    assert set(WRONG) <= contradicted
    assert len(contradicted) <= len(WRONG) + 5
    for number, label in WRONG.items():
        given, quality, _, suggested = rows[number]
        assert (given, suggested) == (label, CLASSES[number % 3])
        assert quality < 0.5
    assert rows[3][:1] == ("cat",)
    assert rows[3][3] is None
    assert rows[7] == (None, None, None, None)  # its caption names no class


def test_the_filter_drops_what_is_contradicted_or_has_no_label(found):
    rows, storage = found
    (step,) = Manifest.open(storage).funnel(Recipe("checked", (pool_filters.uncontradicted,)))
    assert step.alone == sum(wrong is False for _, _, wrong, _ in rows.values())
    assert step.unscored == 1


@pytest.mark.slow
def test_the_order_of_the_list_and_its_shards_change_nothing(found, tmp_path):
    rows, _ = found
    described = listed(tmp_path, list(range(100))[::-1])
    described = described.model_copy(update={"download": described.download.model_copy(update={"shard_size": 33})})
    assert judged(described, tmp_path / "store")[0] == rows


@pytest.mark.slow
def test_labels_of_a_column(tmp_path):
    """The list's own column, in shards that do not all have it as the same type, in place of captions."""
    described = listed(
        tmp_path, more="", settings='column = "kind"\nclasses = { zero = ["0"], one = ["1"], two = ["2"] }\n'
    )
    lines = [f"picture\thttp://host/{n}.jpg\t{(n + (n in WRONG)) % 3}\n" for n in range(100)]
    (tmp_path / "tiny.tsv").write_text("".join(lines))
    text = described.path.read_text().replace('["caption", "url"]', '["caption", "url", "kind"]\nextra = ["kind"]')
    described.path.write_text(text)
    rows, _ = judged(loading.load(described.path), tmp_path / "store")
    assert rows[5] == ("zero", pytest.approx(rows[5][1]), True, "two")
    assert {number for number, row in rows.items() if row[2]} >= set(WRONG)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"more": ""}, "scorers.label_errors: there are no labels to check: give it two classes"),
        (
            {"settings": 'column = "kind"\n'},
            "there is no column 'kind'; add it to pairs.extra, or use one of url, caption",
        ),
        ({"of": "pixels"}, "'pixels' stores no embeddings; set of to a clip or recorded scorer"),
    ],
)
def test_bad_settings_are_reported_before_anything_runs(tmp_path, changes, says):
    described = listed(tmp_path, **changes)
    with pytest.raises(SourceError) as error:
        Plan.of(described)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_too_few_pictures_of_a_class(tmp_path):
    with pytest.raises(ModelError, match="0 of 3 classes have 20 pictures with a label and an embedding, and two are"):
        judged(listed(tmp_path, range(30)), tmp_path / "store")


@pytest.mark.slow
def test_a_class_with_too_few_pictures_is_not_judged(tmp_path):
    rows, _ = judged(listed(tmp_path, [n for n in range(100) if n % 3 < 2 or n < 30]), tmp_path / "store")
    assert rows[2] == (None, None, None, None)
    assert rows[5][0] == "dog"
    assert pa.array([row[2] for row in rows.values()]).null_count >= 9
