"""Texts of classes, and models with the projections of their checkpoint: what trains, on what, and what is measured."""

import numpy as np
import pytest
import torch
import training_sources
from pydantic import ValidationError
from tiny_towers import tiny, write_clip
from typer.testing import CliRunner

from flows import cli
from pipeline.errors import CompareError, SourceError
from pipeline.settings.model import Model
from pipeline.sources import loading
from training.dual import folder as folders
from training.dual.build import build, identity
from training.dual.freezing import parameter_groups
from training.learners.inputs import Inputs
from training.studies import roster, sweep
from training.studies.fit import Request, draw
from training.studies.ground import Grounds
from training.studies.sweep_files import write

SMALL = (
    '[models.small]\nimage = "timm:test_resnet@random"\nimage_size = 32\n'
    'text = { kind = "small", width = 32, layers = 1, heads = 2 }\ncontext = 12\ndim = 16\nbatch = 16\nsteps = 6\n'
)


def own(folder, **keys):
    name = write_clip(folder)
    given = {"image": name, "head": "own", "image_size": None, "context": 20, "objective": "sigmoid"}
    return tiny(name, **(given | keys))


def published(folder, more):
    _, storage = training_sources.task(folder, count=60, test=15, measured=training_sources.NAMED)
    path = folder / "taught.toml"
    path.write_text(path.read_text() + more)
    return loading.load(path), storage


@pytest.mark.parametrize("blocks", ["all", 0])
def test_own_projections_are_those_of_the_checkpoint_and_rest_with_their_tower(tmp_path, blocks):
    import open_clip

    settings = own(tmp_path / "clip", image_blocks=blocks, text_blocks="all")
    model = build(settings, 0)
    theirs = open_clip.create_model(settings.image.model).eval()
    pixels, tokens = torch.randn(2, 3, 32, 32), torch.randint(1, 400, (2, 20))
    with torch.inference_mode():
        assert torch.allclose(model.encode_image(pixels), theirs.encode_image(pixels), atol=1e-6)
        assert torch.allclose(model.encode_text(tokens), theirs.encode_text(tokens), atol=1e-6)
    assert model.logit_scale.item() == theirs.logit_scale.item()
    assert model.settings.dim == 16
    trains = {id(each) for group in parameter_groups(model) for each in group["params"]}
    assert all((id(each) in trains) is (blocks == "all") for each in model.visual.parameters())
    assert all(id(each) in trains for each in model.text.head.parameters())
    assert folders.save(model, tmp_path / "saved", {}) is None
    again = folders.load(tmp_path / "saved")
    with torch.inference_mode():
        assert torch.equal(again.encode_image(pixels), model.encode_image(pixels))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"head": "own"}, "for the two towers of one open_clip model"),
        ({"texts": "template", "template": "a photo"}, "needs {name} once"),
    ],
)
def test_settings_that_do_not_go_together(keys, says):
    with pytest.raises(ValidationError, match=says):
        tiny("small", **keys)


def test_presets_differ_in_the_image_tower_alone():
    both, frozen = (Model.model_validate({"preset": name}) for name in ("siglip", "siglit"))
    assert (both.image_blocks, frozen.image_blocks) == ("all", 0)
    left, right = (each.model_dump(exclude={"preset", "image_blocks"}) for each in (both, frozen))
    assert left == right
    assert Model.model_validate({"preset": "siglip", "tiny": True}).context == 64


def test_templates_and_captions_train_on_the_same_pictures_in_the_same_order(tmp_path):
    described, storage = published(tmp_path, SMALL)
    grounds, seen = Grounds.open(described, storage, None, lambda *_: None), []
    for texts in ("captions", "template"):
        settings = described.models["small"].model_copy(update={"texts": texts, "train_classes": 2})
        inputs = Inputs(build(settings, 0), identity(settings), storage)
        ground = grounds.of(inputs)
        rows, validation, *_ = draw(ground.known, Request("", seed=0), ground.trains(settings))
        assert set(ground.classes.labels[rows]) == {0, 1}
        distinct = len(np.unique(ground.pairs.texts.place[rows]))
        assert distinct == (2 if texts == "template" else len(rows))
        seen.append((rows.tolist(), validation.tolist()))
    assert seen[0] == seen[1]


def test_winnow_fit_warns_of_false_negatives(tmp_path, caplog):
    published(tmp_path, SMALL + 'objective = "sigmoid"\ntexts = "template"\ntrain_classes = 1\n')
    words = ["fit", str(tmp_path / "taught.toml"), "small", "--root", str(tmp_path / "root")]
    (tmp_path / "root").mkdir()
    (tmp_path / "store").rename(tmp_path / "root" / "taught")
    ran = CliRunner().invoke(cli.app, words)
    assert ran.exit_code == 0, ran.output
    told = ran.output + caplog.text  # Prefect, once it is imported, has log handlers of its own
    assert "all pairs have the same text" in " ".join(told.split())


@pytest.mark.slow
def test_a_sweep_tells_trained_classes_from_others(tmp_path):
    more = '[sweeps.some]\nmodel = "small"\nseeds = 2\nexamples = 64\nsteps = 3\n[sweeps.some.grid]\n'
    described, storage = published(tmp_path, SMALL + 'texts = "template"\n' + more + "train_classes = [2, 3]\n")
    found = sweep.run(described, storage, "some")
    cells = found["cells"]
    assert [each["values"]["equal"] for each in cells] == ["examples"] * 2 + ["steps"] * 2
    assert [each["steps"] for each in cells] == [4, 4, 3, 3]
    for two, three in (cells[:2], cells[2:]):
        parts = two["classes"]
        assert (parts["trained"]["pictures"], parts["untrained"]["pictures"]) == (10, 5)
        assert parts["trained"]["low"] <= parts["trained"]["value"] <= parts["trained"]["high"]
        assert three["classes"]["untrained"] is None
    plot = write(found, storage)[-1]
    assert plot.name == "some-classes.svg"
    assert "zero-shot accuracy on classes that trained" in plot.read_text()


def test_classes_that_are_not_there_are_one_line(tmp_path):
    _, storage = published(tmp_path, SMALL + "train_classes = 9\n")
    with pytest.raises(CompareError, match="the task has 3 classes"):
        sweep.run(
            loading.load(_with(tmp_path, '[sweeps.a]\nmodel = "small"\n[sweeps.a.grid]\nbatch = [16]\n')), storage, "a"
        )
    learner = '[task.learners.small]\nmodel = "small"\n'
    with pytest.raises(SourceError, match="for winnow fit and winnow sweep"):
        roster.plan(loading.load(_with(tmp_path, learner)), storage)


def _with(folder, more):
    path = folder / "taught.toml"
    path.write_text(path.read_text() + more)
    return path
