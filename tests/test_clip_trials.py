"""Models as learners of a task: `winnow train` measures them like every other learner."""

import io
import re

import numpy as np
import pytest
import training_sources
from rich.console import Console

from flows.console.gain import table
from pipeline.errors import SourceError
from pipeline.trials.trials import Trial, finished
from training.studies import gain

HELD = '[task.test]\nlocation = "test.parquet"\nfolder = "test"\n'
CLASSES = training_sources.NAMED.removesuffix(HELD)
MODEL = (
    '[models.small]\nimage = "timm:test_resnet@random"\nimage_size = 32\ncontext = {}\ndim = 16\n'
    'text = {{ kind = "small", width = 32, layers = 1, heads = 2 }}\n'
)


def measured(folder, kind, classes="", model="", context=12, **more):
    """The gain of a task whose only learner is the model `small`, and its trials."""
    model = MODEL.format(context) + model
    task = f'[task]\nkind = "{kind}"\n{classes}{HELD}{model}[task.learners.small]\nmodel = "small"\n'
    described, storage = training_sources.task(
        folder, count=90, lies=range(0, 90, 6), measured=task, learners={}, **{"steps": 4, "batch": 16} | more
    )
    found = gain.measure(described, storage)
    return found, [Trial.from_json(storage.fetch(key).read_bytes()) for key in finished(storage)]


@pytest.mark.slow
def test_a_model_is_a_learner_of_retrieval(tmp_path):
    found, trials = measured(tmp_path, "retrieval")
    (learner,) = found["learners"]
    assert (learner["name"], learner["head"]) == ("small", "model")
    assert learner["encoder"]["kind"] == "timm:test_resnet@random with small, 1 layers of 32"
    assert {(row["arm"], row["augmented"]) for row in learner["rows"]} >= {("raw", False), ("filtered", True)}
    assert all([point.images for point in trial.curve] == [16, 32, 48, 64] for trial in trials)
    assert all(trial.learning_rate is None for trial in trials)
    one, other = (next(each for each in trials if each.setting.seed == seed) for seed in (0, 1))
    assert one.predictions != other.predictions
    assert one.setting.encoder["image"]["weights"] == "random"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zero-shot", "match", "classes"])
def test_a_model_is_a_learner_of_captions(tmp_path, kind):
    found, trials = measured(tmp_path, kind, "" if kind == "match" else CLASSES)
    assert found["learners"][0]["name"] == "small"
    assert all(0 <= trial.scores[next(iter(trial.scores))] <= 1 for trial in trials)


@pytest.mark.slow
def test_towers_that_train_are_evaluated_once(tmp_path):
    thaw = 'image_blocks = "all"\ntext_blocks = 1\nschedule = "plateau"\n'
    _, trials = measured(tmp_path, "retrieval", model=thaw, steps=2)
    assert all([point.images for point in trial.curve] == [32] for trial in trials)


@pytest.mark.slow
def test_losses_cut_captions_and_an_inexact_gradient_are_shown(tmp_path):
    """Captions of "a red square" have more than 4 tokens. A batch norm that trains is inexact in parts of a batch."""
    thaw = 'image_blocks = "all"\nbatch_norm = "train"\ncached_batch = 8\n'
    found, trials = measured(tmp_path, "retrieval", model=thaw, context=4, steps=8)
    for trial in trials:
        assert trial.losses[-1].steps == 8
        assert all(each.train > 0 and each.validation > 0 for each in trial.losses)
    (plain,) = (each for each in found["losses"] if (each["arm"], each["augmented"]) == ("filtered", False))
    own = [each for each in trials if each.setting.cell == ("filtered", False)]
    assert plain["epochs"][0]["train"] == pytest.approx(np.mean([each.losses[0].train for each in own]))
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(table(found))
    shown = console.export_text()
    assert f"small, filtered plain: train loss {plain['epochs'][0]['train']:.3f} in epoch 1" in shown
    cut, inexact = (line for line in shown.splitlines() if line.startswith("warning: small: "))
    assert re.search(r"small: [1-9]\d* captions of the pool or the test set are cut to 4 tokens", cut)
    assert "batch_norm" in inexact


def test_augmented_captions_are_not_for_models(tmp_path):
    with pytest.raises(SourceError, match="a model sees augmented pictures, not augmented captions"):
        measured(tmp_path, "retrieval", augmentations='["text"]')
