"""Models as learners of a task: `winnow train` measures them like every other learner."""

import pytest
import training_sources

from pipeline.errors import SourceError
from pipeline.trials.trials import Trial, finished
from training.studies import gain

HELD = '[task.test]\nlocation = "test.parquet"\nfolder = "test"\n'
CLASSES = training_sources.NAMED.removesuffix(HELD)
MODEL = (
    '[models.small]\nimage = "timm:test_resnet@random"\nimage_size = 32\ncontext = 12\ndim = 16\n'
    'text = { kind = "small", width = 32, layers = 1, heads = 2 }\n'
)


def measured(folder, kind, classes="", model="", **more):
    """The gain of a task whose only learner is the model `small`, and its trials."""
    task = f'[task]\nkind = "{kind}"\n{classes}{HELD}{MODEL}{model}[task.learners.small]\nmodel = "small"\n'
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


def test_augmented_captions_are_not_for_models(tmp_path):
    with pytest.raises(SourceError, match="a model sees augmented pictures, not augmented captions"):
        measured(tmp_path, "retrieval", augmentations='["text"]')
