import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.settings.task import Budget
from pipeline.sources import loading
from training.learners import dual_encoder
from training.measures import metrics

BUDGET = Budget(steps=60, batch=64, learning_rate=0.03)


def pairs(count, wrong=0.0, seed=0):
    """Features of pictures and captions of three classes, and which; so many captions are of another class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=count)
    said = np.where(rng.random(count) < wrong, (truth + 1) % 3, truth)
    views = (rng.normal(size=(count, 1, 8)) + 3 * np.eye(8)[truth][:, None]).astype(np.float16)
    texts = 0.2 * rng.normal(size=(count, 1, 5)) + np.eye(5)[said][:, None]
    return views, (texts / np.linalg.norm(texts, axis=2, keepdims=True)).astype(np.float16), truth


def said(views, texts, heldout, classes, seed=3):
    """Of the test set, at the end: the nearest class."""
    measure = metrics.Classification(np.zeros(len(heldout), np.int16), "abc")

    def answer(embed):
        return measure.predict(embed(heldout[:, 0]), classes.astype(np.float32))

    found = dual_encoder.train(views, texts, answer, BUDGET, seed)
    return found[max(found)]


def test_classes_are_learnt_from_captions_alone():
    views, texts, _ = pairs(200)
    heldout, _, truth = pairs(100, seed=1)
    classes = np.eye(5)[:3].astype(np.float16)
    learnt = said(views, texts, heldout, classes)
    assert np.mean(learnt == truth) > 0.9
    assert np.array_equal(learnt, said(views, texts, heldout, classes))
    turned = said(views, texts, heldout, np.roll(classes, 1, axis=0))
    assert np.array_equal((turned + 2) % 3, learnt)  # what is said depends on the names


def test_captions_of_other_pictures_do_harm():
    heldout, _, truth = pairs(300, seed=1)
    right = []
    for wrong in (0.0, 0.7):
        views, texts, _ = pairs(200, wrong)
        learnt = said(views, texts, heldout, np.eye(5)[:3].astype(np.float16))
        right.append(np.mean(learnt == truth))
    assert right[0] > right[1] + 0.3


def test_one_version_goes_with_all_of_the_other_s():
    views, texts, _ = pairs(60)
    heldout, _, _ = pairs(30, seed=1)
    classes = np.eye(5)[:3].astype(np.float16)
    twice = [np.repeat(each, 2, axis=1) for each in (views, texts)]
    expected = said(twice[0], twice[1], heldout, classes, seed=1)
    for told in ((views, twice[1]), (twice[0], texts)):
        assert np.array_equal(said(*told, heldout, classes, seed=1), expected)


def test_a_learner_of_captions_needs_a_text_tower(tmp_path):
    (tmp_path / "list.tsv").write_text("a\thttp://host/1.jpg\n")
    (tmp_path / "bad.toml").write_text(
        '[pairs]\nlocation = "list.tsv"\ncolumns = ["caption", "url"]\n[task.classes]\na = ["a"]\nb = ["b"]\n'
        '[task.learners.x]\nhead = "dual"\nencoder = { kind = "hog" }\n'
    )
    with pytest.raises(SourceError, match="dual also reads captions"):
        loading.load(tmp_path / "bad.toml")
