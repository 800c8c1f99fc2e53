"""Sweeps: the cells of a grid, the trainings, what is stored, and `winnow sweep`."""

import typing

import numpy as np
import pytest
import training_sources
from typer.testing import CliRunner

from flows import cli
from pipeline.errors import SourceError, TrainingError
from pipeline.settings.model import Model
from pipeline.settings.sweep import Sweep, Treatment
from pipeline.sources import loading
from training.augment import noise
from training.data.order import Drawn
from training.studies import noisy, sweep, sweep_cell, sweep_plot
from training.studies.ground import Grounds
from training.studies.sweep_summary import Trained, chosen

MODEL = (
    '[models.small]\nimage = "timm:test_resnet@random"\nimage_size = 32\n'
    'text = { kind = "small", width = 32, layers = 1, heads = 2 }\ncontext = 12\ndim = 16\nbatch = 16\nsteps = 12\n'
)
BATCHES = '[sweeps.batches]\nmodel = "small"\nseeds = 2\n[sweeps.batches.grid]\nobjective = ["softmax", "sigmoid"]\n'


def model(**changes):
    return Model.model_validate(
        {"image": "timm:test_resnet@random", "text": "small", "batch": 16, "steps": 96} | changes
    )


def grid(values, **more):
    return Sweep.model_validate({"model": "small", "grid": values} | more)


def test_every_training_sees_as_many_examples(tmp_path):
    cells = grid({"batch": [16, 64, 256], "objective": ["softmax", "sigmoid"]}).cells(model(), tmp_path)
    assert [(each.model.batch, each.model.steps) for each in cells[::2]] == [(16, 96), (64, 24), (256, 6)]
    assert [each.values["objective"] for each in cells] == ["softmax", "sigmoid"] * 3
    (first, *_) = grid({"batch": [32]}, examples=3200).cells(model(), tmp_path)
    assert first.model.steps == 100
    (first, *_) = grid({"batch": [32]}, steps=7).cells(model(), tmp_path)
    assert first.model.steps == 7


def test_cells_that_are_the_same_are_one(tmp_path):
    cells = grid({"pruning": ["none", "hard", "easy"], "masking": [0.0, 0.5]}).cells(model(), tmp_path)
    assert [(each.treatment.pruning, each.treatment.masking) for each in cells] == [
        ("none", 0.0),
        ("hard", 0.5),
        ("easy", 0.5),
    ]
    assert cells[0].values == {"pruning": "none", "masking": 0.0}


def test_presets_are_compared_under_the_keys_that_the_model_sets_itself(tmp_path):
    both = grid({"preset": ["small-clip-study", "small-clip"], "batch": [16, 32]})
    for named in (model(pooling=None), model(pooling=None, preset="small-clip")):
        cells = both.cells(named, tmp_path)
        assert [(each.values["preset"], each.model.batch) for each in cells] == [
            ("small-clip-study", 16),
            ("small-clip-study", 32),
            ("small-clip", 16),
            ("small-clip", 32),
        ]
        study, known = cells[0].model, cells[2].model
        assert (study.head, study.objective, study.schedule) == ("residual", "soft-targets", "plateau")
        assert (known.head, known.objective, known.schedule) == ("linear", "softmax", "cosine")
        assert study.image == known.image == named.image
        assert study.batch * study.steps == known.batch * known.steps == 16 * 96
    apart = grid({"preset": ["small-clip-study", "small-clip"]}).cells(
        Model.model_validate({"image": "timm:test_resnet@random", "text": "small", "pooling": None}), tmp_path
    )
    assert [(each.model.batch, each.model.steps) for each in apart] == [(16, 256 * 1500 / 16), (256, 1500)]
    (alone,) = grid({"batch": [16]}).cells(model(**known.model_dump(exclude={"image", "text", "preset"})), tmp_path)
    assert alone.model == known.model_copy(update={"steps": alone.model.steps})
    tiny = grid({"preset": ["small-clip-study", "small-clip"]}, tiny=True).cells(model(pooling=None), tmp_path)
    assert [(each.model.image_size, each.model.steps) for each in tiny] == [(64, 20)] * 2


def test_a_tiny_sweep_has_the_ends_of_each_key(tmp_path):
    tiny = grid({"batch": [16, 64, 256], "dim": [8]}, tiny=True, seeds=5)
    cells = tiny.cells(model(), tmp_path)
    assert [(each.model.batch, each.model.steps <= 20) for each in cells] == [(16, True), (32, True)]
    assert len(tiny.seed_numbers) == 2


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('grid = { objectiv = ["softmax"] }', "no key 'objectiv' can be varied; did you mean 'objective'?"),
        ('grid = { batch = ["many"] }', "sweeps.batches: batch: Input should be a valid integer"),
        ('grid = { pruning = ["hard"] }', 'sweeps.batches: pruning = "hard" needs masking'),
        ('grid = { noise = ["texts"] }', 'sweeps.batches: noise = "texts" needs noise_share'),
        ("grid = { batch = [16] }\ntune = { dim = [8] }", "dim cannot be tuned, only "),
        ('grid = { image = ["timm:a@none.safetensors"] }', "sweeps.batches: image"),
    ],
)
def test_a_grid_that_cannot_be_trained_is_one_line(tmp_path, table, says):
    path = tmp_path / "mine.toml"
    pairs = '[pairs]\nlocation = "list.tsv"\n'
    path.write_text(f'{pairs}{MODEL}[sweeps.batches]\nmodel = "small"\n{table}\n')
    (tmp_path / "list.tsv").touch()
    with pytest.raises(SourceError) as fault:
        loading.load(path)
    assert says in str(fault.value)
    assert "\n" not in str(fault.value)


def test_noise_has_the_kinds_that_are_made():
    kinds = typing.get_args(Treatment.model_fields["noise"].annotation)
    assert kinds == ("none", *noise.KINDS)


def test_tuned_values_are_chosen_by_the_validation_loss(tmp_path):
    cells = grid({"batch": [16, 32]}, tune={"head_rate": [1e-3, 1e-2]}).cells(model(), tmp_path)
    losses = ((3.0, 2.0), (1.0, 3.9), (1.0, 1.0), (1.0, 1.1))
    trained = [
        Trained(cell, [{"validation_loss": loss} for loss in own]) for cell, own in zip(cells, losses, strict=True)
    ]
    found = chosen(trained)
    assert [(each.cell.values["batch"], each.cell.tuned["head_rate"]) for each in found] == [(16, 1e-2), (32, 1e-3)]
    trained[1] = trained[1]._replace(results=[{"validation_loss": 1.0}, {"failed": "the loss is nan"}])
    assert chosen(trained)[0].cell.tuned["head_rate"] == 1e-3
    with pytest.raises(TrainingError, match="the loss is nan"):
        chosen(trained[1:])


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    measured = training_sources.NAMED + MODEL + BATCHES
    return training_sources.task(folder, count=90, measured=measured)


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_a_sweep_that_was_stopped_resumes_and_a_second_run_trains_nothing(published):
    described, storage = published

    def stop(step, done, total):
        if step == "cells" and done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        sweep.run(described, storage, "batches", stop)
    assert len(storage.keys("sweeps/cells")) == 3
    trained = []
    found = sweep.run(described, storage, "batches", lambda step, *_: trained.append(step))
    assert len(storage.keys("sweeps/cells")) == 4
    assert [each["name"] for each in found["cells"]] == ["objective softmax", "objective sigmoid"]
    assert found["gallery"] == {"pictures": 45, "captions": 90}
    for each in found["cells"]:
        assert each["low"] <= each["score"] <= each["high"]
        assert each["steps"] == 12
    again = sweep.run(described, storage, "batches", lambda step, *_: pytest.fail(step))
    assert again == found
    plots = [storage.root / f"{name}.svg" for name in "ab"]
    for plot in plots:
        sweep_plot.scores(found, plot)
    assert plots[0].read_bytes() == plots[1].read_bytes()


def test_an_unknown_sweep_is_named(published):
    with pytest.raises(SourceError, match=r"there is no sweep 'batch' in \[sweeps\]; did you mean 'batches'"):
        sweep.run(*published, "batch")


def ground_of(described, storage):
    from training.dual import build
    from training.learners.inputs import Inputs

    grounds = Grounds.open(described, storage, None, lambda *_: None)
    settings = described.models["small"]
    inputs = Inputs(build.build(settings, 0), build.identity(settings), storage)
    return grounds, inputs, grounds.of(inputs)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_noise_changes_drawn_rows_alone(published, kind):
    _, inputs, ground = ground_of(*published)
    rows = np.arange(10, 80)
    drawn = noise.draw(kind, 0.4, len(rows), 3)
    made = noisy.corrupt(ground, inputs, rows, kind, 0.4, 3)
    moved = drawn.order != np.arange(len(rows))

    def read(pairs):
        step = Drawn(0, np.arange(90), np.zeros(90, np.int64))
        return [next(side.read([step])).numpy() for side in (pairs.images, pairs.texts)]

    (images, texts), (new_images, new_texts) = read(ground.pairs), read(made)
    changed = np.flatnonzero((images != new_images).any(axis=1))
    assert changed.tolist() == rows[drawn.images].tolist()
    expected = set(rows[drawn.texts].tolist()) | set(rows[moved].tolist())
    assert set(np.flatnonzero((texts != new_texts).any(axis=1)).tolist()) <= expected
    only = moved & ~drawn.texts
    assert np.array_equal(new_texts[rows[only]], texts[rows[drawn.order[only]]])
    assert len(set(made.pictures[changed])) == len(changed)
    assert not set(made.pictures[changed]) & set(ground.pairs.pictures)


def test_a_cell_has_a_key_of_all_that_decides_it(published):
    described, storage = published
    grounds: Grounds = ground_of(described, storage)[0]
    values = {"noise": ["none", "texts"], "noise_share": [0.0, 0.5], "head_rate": [1e-3, 1e-2]}
    cells = grid(values).cells(described.models["small"], described.path.parent)
    keys = {sweep_cell.key_of(grounds, cell, seed) for cell in cells for seed in (0, 1)}
    assert len(keys) == 2 * len(cells) == 8


@pytest.mark.slow
def test_winnow_sweep_from_the_file_to_the_plot(tmp_path):
    more = (
        '[sweeps.study]\nmodel = "small"\nseeds = 3\nsteps = 8\n[sweeps.study.grid]\nbatch = [8, 16, 32]\n'
        'objective = ["softmax", "sigmoid"]\npruning = ["none", "hard-matched"]\nmasking = [0.5]\n'
        "[sweeps.study.tune]\nhead_rate = [1e-3, 1e-2]\n"
        '[sweeps.towers]\nmodel = "small"\ntiny = true\ngrid = { image = ["timm:test_resnet@random", '
        '"timm:test_vit@random"], image_size = [64] }\n'
    )
    described, storage = training_sources.task(tmp_path, count=120, measured=training_sources.NAMED + MODEL + more)
    root = tmp_path / "data"
    root.mkdir()
    storage.root.rename(root / described.name)
    for name, says in (("study", "sigmoid and softmax differ mainly at small"), ("towers", "The most efficient")):
        done = CliRunner().invoke(cli.app, ["sweep", str(described.path), name, "--root", str(root)])
        assert done.exit_code == 0, done.output
        assert says in done.output
        assert (root / described.name / "sweeps" / f"{name}.svg").is_file()
    assert (root / described.name / "sweeps" / "towers-encoders.svg").is_file()
