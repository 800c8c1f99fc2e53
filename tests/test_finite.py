"""Losses, scores and features that are not finite are errors that say where, never results."""

import numpy as np
import pytest
import training_sources
from PIL import Image

from pipeline.errors import CompareError, ModelError, TrainingError
from pipeline.settings.encoder import Pixels
from pipeline.settings.task import Budget, Task
from pipeline.settings.task import TestSet as Held
from pipeline.store.storage import Storage
from pipeline.trials import trials
from training.data import labels
from training.data.features import Extractor
from training.data.heldout import HeldOut
from training.encoders.encoders import PixelEncoder
from training.learners import dual_encoder, probe
from training.learners.targets import Objective
from training.measures.metrics import Regression
from training.studies import gain

BUDGET = Budget(steps=40, batch=32)
WILD = Budget(steps=40, batch=32, learning_rate=1e30)


def pairs(count=200):
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=count).astype(np.int16)
    return (rng.normal(size=(count, 2, 8)) + 2 * truth[:, None, None]).astype(np.float16), truth


def probed(views, truth, heldout, budget=BUDGET, head="linear", classes=2):
    return probe.train(head, views, Objective(truth, classes), heldout, budget, 0)


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("classes", [2, 0])
def test_a_diverged_training_names_its_step(head, classes):
    views, truth = pairs()
    targets = truth if classes else truth.astype(np.float64)
    with pytest.raises(TrainingError, match=r"(not finite|is (nan|inf)).* step \d+ of 40"):
        probed(views, targets, views[:20], WILD, head, classes)


def test_a_diverged_learner_of_captions_names_its_step():
    views, truth = pairs()
    texts = np.eye(5, dtype=np.float16)[truth][:, None]
    with pytest.raises(TrainingError, match=r"step \d+ of 40"):
        dual_encoder.train(views, texts, lambda embed: embed(views[:20, 0]), WILD, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_not_finite_names_its_row(value):
    views, truth = pairs()
    broken = views.copy()
    broken[150, 1, 3] = value
    with pytest.raises(ModelError, match="training pair 150 are not finite"):
        probed(broken, truth, views[:20])
    with pytest.raises(ModelError, match="training pair 150 are not finite"):
        dual_encoder.train(broken, np.eye(5, dtype=np.float16)[truth][:, None], lambda embed: None, BUDGET, 0)
    heldout = views[:20].copy()
    heldout[7, 0, 0] = value
    with pytest.raises(ModelError, match="held-out picture 7 are not finite"):
        probed(views, truth, heldout)
    with pytest.raises(ModelError, match="held-out picture 7 are not finite"):
        dual_encoder.train(
            views, np.eye(5, dtype=np.float16)[truth][:, None], lambda embed: embed(heldout[:, 0]), BUDGET, 0
        )


def test_a_text_feature_that_is_not_finite_names_its_row():
    views, truth = pairs()
    texts = np.eye(5, dtype=np.float16)[truth][:, None]
    texts[12, 0, 1] = np.nan
    with pytest.raises(ModelError, match="caption 12 are not finite"):
        dual_encoder.train(views, texts, lambda embed: None, BUDGET, 0)


@pytest.mark.parametrize("learners", [None, {"mlp": ("mlp", training_sources.RESNET)}])
def test_a_diverged_trial_names_learner_arm_seed_and_step(tmp_path, learners):
    described, storage = training_sources.task(tmp_path / "s", steps=20, learning_rate=1e30, learners=learners)
    with pytest.raises(TrainingError) as error:
        gain.measure(described, storage)
    said = str(error.value)
    assert "\n" not in said
    for each in ("learner '", "arm 'raw'", "seed 0", "of 20", "learning_rate"):
        assert each in said
    assert not list(storage.root.glob("gains/*"))


@pytest.mark.slow
def test_a_rate_that_diverges_is_never_the_best_one(tmp_path):
    described, storage = training_sources.task(tmp_path / "s", count=240, learning_rates=[1e30])
    gain.measure(described, storage)
    made = [trials.Trial.from_json(storage.fetch(key).read_bytes()) for key in trials.finished(storage)]
    assert {each.learning_rate for each in made} == {described.task.budget.learning_rate}


class Huge(PixelEncoder):
    """Features that no float16 holds for one picture."""

    def encode(self, pictures):
        features = super().encode(pictures)
        features[np.array([picture.mean() < 60 for picture in pictures])] = 1e5
        return features


def test_features_that_overflow_name_their_picture_and_are_not_kept(tmp_path):
    for name, shade in (("a.png", 200), ("dark.png", 20)):
        Image.new("RGB", (40, 40), (shade,) * 3).save(tmp_path / name)
    (tmp_path / "list.csv").write_text("image,caption\na.png,a dog\ndark.png,a cat\n")
    learners = {"linear": {"head": "linear", "encoder": {"kind": "pixels"}}}
    task = Task(classes={"dog": ["dog"], "cat": ["cat"]}, learners=learners)
    test = HeldOut.read(Held(location=tmp_path / "list.csv", folder=tmp_path, agree=1), task)
    storage = Storage(tmp_path / "store")
    extractor = Extractor(storage, Pixels(kind="pixels", side=16), "pillow", None)
    extractor._loaded = Huge(16)
    with pytest.raises(ModelError, match=r"dark\.png.*not finite.*float16"):
        extractor.heldout(test)
    assert not list(storage.root.rglob("*.npz"))


@pytest.mark.parametrize("values", [[0.1] * 30, [7.0] * 30, [1e308, -1e308] * 15])
def test_numbers_that_do_not_vary_are_refused(values):
    with pytest.raises(CompareError, match="the pool are"):
        labels.check_varies("the pool", np.array(values))


def test_numbers_that_vary_a_little_have_an_r2():
    truth = np.linspace(4e-7, 7e-7, 20)
    assert Regression(truth).scores(truth)["r2"] == pytest.approx(1)
    assert Regression(truth).scores(np.full(20, truth.mean()))["r2"] == pytest.approx(0)


NUMBER = '[task]\nkind = "number"\ncolumn = "told"\n[task.split]\nshare = 0.3\n'


def test_a_task_whose_number_is_constant_is_refused(tmp_path):
    constant = dict.fromkeys(range(40), 0.1)
    described, storage = training_sources.task(tmp_path / "s", count=40, column=constant, measured=NUMBER)
    with pytest.raises(CompareError, match="numbers of the pairs are all 0.1.*another column"):
        gain.measure(described, storage)
    assert not list(storage.root.glob("features*"))
    varied = {number: float(number) for number in range(40)}
    described, storage = training_sources.task(tmp_path / "t", count=40, column=varied, measured=NUMBER)
    described = described.model_copy(
        update={"task": described.task.model_copy(update={"split": None, "test": constant_test(tmp_path)})}
    )
    with pytest.raises(CompareError, match="numbers of the held-out pictures are all 3"):
        gain.measure(described, storage)


def constant_test(folder):
    rows = [f"{number}.jpg,3\n" for number in range(10)]
    (folder / "constant.csv").write_text("image,told\n" + "".join(rows))
    return Held(location=folder / "constant.csv", folder=folder / "t" / "test")
