"""Training of dual encoders: the order of pairs, the loop, checkpoints, and `winnow fit`."""

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import training_sources
from rich.console import Console
from safetensors.torch import load_file
from typer.testing import CliRunner

from flows.cli import app
from flows.console import ranks
from flows.console.fit import summary
from pipeline.errors import SourceError, StorageError, TrainingError
from pipeline.sources import loading
from pipeline.store.storage import Storage
from training.data.features import Features
from training.data.order import Order
from training.data.pool import Pool
from training.learners import plateau
from training.studies.fit import Request, copy, draw, fit

SETTINGS = {
    "image": '"timm:test_resnet@random"',
    "image_size": 32,
    "text": '{ kind = "small", width = 32, layers = 1, heads = 2 }',
    "context": 12,
    "dim": 16,
    "batch": 16,
    "steps": 30,
}
THAWED = {
    "image_blocks": '"all"',
    "text_blocks": '"all"',
    "batch_norm": '"train"',
    "dropout": 0.1,
    "objective": '"sigmoid"',
    "schedule": '"plateau"',
    "steps": 12,
}


def table(**changes):
    return "[models.small]\n" + "".join(f"{name} = {value}\n" for name, value in (SETTINGS | changes).items())


def source(folder, count=90, **more):
    """A source whose captions say what is in each picture, with the model `small`."""
    return training_sources.task(folder, count=count, measured=training_sources.NAMED + table(), **more)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return source(tmp_path_factory.mktemp("fit"))


def changed(published, folder, **changes):
    """The same source with other settings of the model, and a copy of its results without models."""
    described, storage = published
    text = described.path.read_text()
    path = described.path.with_name(f"{folder.name.replace('[', '').replace(']', '')}.toml")
    path.write_text('name = "taught"\n' + text.replace(table(), table(**changes)))
    shutil.copytree(storage.root, folder / "store", ignore=shutil.ignore_patterns("models", "checkpoints"))
    return loading.load(path), Storage(folder / "store")


def weights(fitted):
    return load_file(fitted.folder / "open_clip_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_pair_is_seen_once_an_epoch_and_a_step_needs_no_other():
    order = Order(np.arange(100, 110), 3, seed=4)
    steps = list(order.steps(range(6)))
    for epoch in (steps[:3], steps[3:]):
        assert len(set(np.concatenate([each.rows for each in epoch]))) == 9
    assert not np.array_equal(steps[0].rows, steps[3].rows)
    assert [each.rows.tolist() for each in order.steps(range(4, 6))] == [each.rows.tolist() for each in steps[4:]]
    with pytest.raises(TrainingError, match="a batch of 11 pairs is larger than the pool of 10"):
        Order(np.arange(10), 11, seed=0)


def test_the_order_is_the_same_as_ever_where_rows_need_not_lie_apart():
    """Of a resample, too, in which rows repeat although the recipe keeps each pair once."""
    unique = [[110, 100, 109, 104], [107, 101, 105, 102], [106, 111, 103, 108], [103, 106, 104, 108]]
    for apart in (False, True):
        order = Order(np.arange(100, 112), 4, seed=4, apart=apart)
        assert [each.rows.tolist() for each in order.steps(range(4))] == unique
    resample = np.sort(np.random.default_rng(1).integers(0, 40, 60))
    steps = Order(resample, 16, seed=3, versions=2).steps(range(9))
    told = hashlib.sha256(b"".join(each.rows.tobytes() + each.versions.tobytes() for each in steps))
    assert told.hexdigest() == "f0e08f195385e7d69d2a7ec13e24f434c23dab24f806d3936358c821d4ecdf02"


def test_copies_lie_in_different_batches_of_an_epoch():
    rows = np.repeat(np.arange(30), np.arange(30) % 3 + 1)
    for seed in range(5):
        order = Order(rows, 10, seed=seed, apart=True)
        steps = list(order.steps(range(2 * order.epoch)))
        assert all(len(set(each.rows)) == 10 for each in steps)
        for epoch in (steps[: order.epoch], steps[order.epoch :]):
            assert np.array_equal(np.sort(np.concatenate([each.rows for each in epoch])), rows)
        assert [each.rows.tolist() for each in order.steps(range(4, 6))] == [each.rows.tolist() for each in steps[4:6]]


@pytest.mark.parametrize("repeats", [True, False])
def test_a_recipe_that_repeats_trains_copies_apart(repeats):
    table = pa.table({"kept": [True] * 40, "picture": range(40)})
    if repeats:
        table = table.append_column("copies", pa.array([1, 3] * 20))
    hashes = np.random.default_rng(0).integers(0, 2**63, 40).astype(np.uint64)
    known = Pool(table, None, [Features(None, hashes)], [], np.zeros(40, bool), {}, {})
    drawn = draw(known, Request("small"))
    assert drawn.apart == repeats
    assert len(drawn.rows) > 60 if repeats else len(drawn.rows) < 41
    assert not set(drawn.rows) & set(drawn.validation)


@pytest.mark.parametrize("losses", [[3, 2, 1], [3, 3, 3, 3, 3], [3, 2, 2.5, 2.4, 1.0, 1.1, 1.2, 1.3, 1.4]])
def test_the_plateau_is_torch_s(losses):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.8)
    for at, loss in enumerate(losses, start=1):
        scheduler.step(loss)
        assert plateau.share(losses[:at], 1, 0.8) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_a_model_is_fitted_once_and_scores_pairs(published, tmp_path):
    described, storage = published
    fitted = fit(described, storage, Request("small"))
    record = fitted.record
    assert fitted.new
    assert record["pairs"] + record["validation_pairs"] == 90
    assert record["epochs"][-1]["step"] == 30
    assert record["epochs"][-1]["train_loss"] < record["epochs"][0]["train_loss"]
    scores, cost = record["scores"], record["cost"]
    assert scores["gallery"] == {"pictures": 45, "captions": 90, "captions_cut": 0}
    assert [each["name"] for each in scores["directions"]] == ["t2i", "i2t"]
    for k, each in zip((1, 5, 10), scores["directions"][0]["recalls"], strict=True):
        assert each["low"] <= scores[f"t2i_r{k}"] == each["value"] <= each["high"]
    assert {name: each["queries"] for name, each in scores["people"].items()} == {"people": 0, "others": 90}
    assert cost["trained"] < cost["parameters"] == cost["image"] + cost["text"] + cost["heads"]
    assert record["inexact"] is None
    again = fit(described, storage, Request("small"))
    assert not again.new
    assert again.record == record
    assert not storage.keys("checkpoints")
    moved = copy(fitted, tmp_path / "copy")
    assert same(load_file(moved / "open_clip_model.safetensors"), weights(fitted))


def test_a_frozen_tower_does_not_move_and_its_head_learns_what_the_model_computes(published):
    from training.dual import build, folder

    described, storage = published
    before = build.build(described.models["small"], 0)
    after = folder.load(fit(described, storage, Request("small")).folder)
    for name, tensor in before.state_dict().items():
        moved = not torch.equal(tensor, after.state_dict()[name])
        assert moved == name.startswith(("visual.head", "text.head", "logit_scale")), name


class Stopped(Exception):
    pass


def stop_at(step):
    """A progress callback that ends the training after so many steps."""

    def progress(name, done, total):
        if name == "training" and done == step:
            raise Stopped

    return progress


@pytest.mark.parametrize(
    "changes", [pytest.param({}, id="heads"), pytest.param(THAWED, id="towers", marks=pytest.mark.slow)]
)
def test_a_stopped_training_ends_like_one_that_was_not(published, tmp_path, changes):
    described, storage = changed(published, tmp_path, **changes)
    whole = fit(described, storage, Request("small", seed=3))
    expected, losses = weights(whole), whole.record["epochs"]
    shutil.rmtree(whole.folder)
    for step in (2, 9):
        with pytest.raises(Stopped):
            fit(described, storage, Request("small", seed=3), stop_at(step), checkpoint_seconds=0)
        assert len(storage.keys("checkpoints")) == 1
    resumed = fit(described, storage, Request("small", seed=3))
    assert same(weights(resumed), expected)
    assert resumed.record["epochs"] == losses
    assert not storage.keys("checkpoints")
    assert not [*(storage.root / "models").rglob(".*")]


def test_the_command_prints_a_scorer_that_loads(published, tmp_path):
    described, storage = published
    shutil.copytree(storage.root, tmp_path / "taught", ignore=shutil.ignore_patterns("models", "checkpoints"))
    command = ["fit", str(described.path), "small", "--root", str(tmp_path), "--to", str(tmp_path / "copy")]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    said = " ".join(ran.output.split())
    assert "Ranked on 45 test pictures with 90 captions, 0 of them cut" in said
    assert "Text to image: 90 queries, a gallery of 45" in said
    lines = ran.output[ran.output.index("[scorers.small]") :]
    assert tomllib.loads(lines)["scorers"]["small"] == {"kind": "clip", "model": f"local-dir:{tmp_path / 'copy'}"}
    again = json.loads(CliRunner().invoke(app, [*command[:5], "--json"]).stdout)
    assert not again["new"]
    assert again["source"] == "taught"


def test_another_seed_gives_another_model(published):
    described, storage = published
    one, other = (fit(described, storage, Request("small", seed=seed)) for seed in (0, 1))
    assert one.folder != other.folder
    assert not same(weights(one), weights(other))


KILLED = """
import sys
from pathlib import Path
from pipeline.sources import loading
from pipeline.store.storage import Storage
from training.studies.fit import Request, fit
fit(loading.load(sys.argv[1]), Storage(Path(sys.argv[2])), Request("small"), checkpoint_seconds=0)
"""


@pytest.mark.slow
def test_a_killed_training_resumes_and_ends_bit_equal(published, tmp_path):
    described, storage = changed(published, tmp_path, **THAWED | {"steps": 60})
    command = [sys.executable, "-c", KILLED, str(described.path), str(storage.root)]
    expected = fit(described, storage, Request("small"))
    digest, losses = weights(expected), expected.record["epochs"]
    shutil.rmtree(expected.folder)
    for delay in (0.0, 0.6):
        before = newest(storage)
        running = subprocess.Popen(command, cwd=Path(__file__).parent.parent)
        while newest(storage) == before and running.poll() is None:
            time.sleep(0.02)
        time.sleep(delay)
        assert running.poll() is None, "it ended before it was killed"
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert subprocess.run(command, check=False).returncode == 0
    resumed = fit(described, storage, Request("small"))
    assert not resumed.new
    assert same(weights(resumed), digest)
    assert resumed.record["epochs"] == losses


KILLED_AT_WRITE = """
import os, signal, sys
left = int(sys.argv[3])
def watch(event, arguments):
    global left
    if event in ("os.rename", "os.link", "os.remove") and str(arguments[0]).startswith(sys.argv[2]):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
sys.addaudithook(watch)
"""


@pytest.mark.slow
def test_killed_before_any_write_it_ends_bit_equal(published, tmp_path):
    """From the first feature to the folder of the model: every run is killed one write later than the one before."""
    described, storage = changed(published, tmp_path, **THAWED | {"steps": 3})
    whole = fit(described, storage, Request("small"))
    expected, losses = weights(whole), whole.record["epochs"]
    for made in ("models", "checkpoints", "features"):
        shutil.rmtree(storage.root / made, ignore_errors=True)
    command = [sys.executable, "-c", KILLED_AT_WRITE + KILLED, str(described.path), str(storage.root)]
    ended = []
    while 0 not in ended:
        ran = subprocess.run([*command, str(len(ended))], cwd=Path(__file__).parent.parent, check=False)
        ended.append(ran.returncode)
        assert ran.returncode in (0, -signal.SIGKILL)
    assert len(ended) > 3
    resumed = fit(described, storage, Request("small"))
    assert not resumed.new
    assert same(weights(resumed), expected)
    assert resumed.record["epochs"] == losses
    assert not storage.keys("checkpoints")
    assert not [*(storage.root / "models").rglob(".*")]


def newest(storage):
    """When the checkpoint was written."""
    return [storage.fetch(key).stat().st_mtime_ns for key in storage.keys("checkpoints")]


def test_a_full_disk_keeps_the_last_checkpoint(published, tmp_path):
    described, storage = changed(published, tmp_path)
    with pytest.raises(Stopped):
        fit(described, storage, Request("small"), stop_at(4), checkpoint_seconds=0)
    (kept,) = (storage.fetch(key).read_bytes() for key in storage.keys("checkpoints"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(StorageError, match="no space left in .*: free some and run the same command again"):
            fit(described, storage, Request("small"), checkpoint_seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [storage.fetch(key).read_bytes() for key in storage.keys("checkpoints")] == [kept]
    assert fit(described, storage, Request("small")).new


def test_a_full_disk_at_the_end_resumes_near_the_end(published, tmp_path):
    described, storage = changed(published, tmp_path)
    with pytest.raises(Stopped):
        fit(described, storage, Request("small"), stop_at(20), checkpoint_seconds=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16384, hard))
    try:
        with pytest.raises(StorageError, match=r"no space left in .*: free some and run the same command again"):
            fit(described, storage, Request("small"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((storage.root / "models").glob("*/*"))
    steps = []
    resumed = fit(described, storage, Request("small"), lambda name, done, total: steps.append((name, done)))
    assert min(done for name, done in steps if name == "training") >= 19
    assert same(weights(resumed), weights(fit(*published, Request("small"))))


def test_a_loss_that_is_nan_names_the_step_and_pairs(published, tmp_path):
    described, storage = changed(published, tmp_path, head_rate="1e30", warmup=0.0)
    with pytest.raises(
        TrainingError,
        match=r"model 'small': the loss is nan for the pairs \w{32}, .* and 13 more at step \d+ of 30; lower",
    ):
        fit(described, storage, Request("small"))


def test_weights_that_are_not_finite_keep_the_last_checkpoint(published, tmp_path):
    described, storage = changed(published, tmp_path, head_rate="1e30", warmup=0.0)
    with pytest.raises(
        TrainingError, match=r"the weights .* are not finite at step 2 of 30; the last checkpoint is kept"
    ):
        fit(described, storage, Request("small"), checkpoint_seconds=0)
    (kept,) = storage.keys("checkpoints")
    saved = load_file(storage.fetch(kept))
    assert saved["moment:step:logit_scale"] == 1
    assert all(each.isfinite().all() for name, each in saved.items() if not name.startswith("buffer:"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch": 500}, r"a batch of 500 pairs is larger than the pool of \d+: lower batch"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_line(published, tmp_path, changes, says):
    described, storage = changed(published, tmp_path, **changes)
    with pytest.raises(TrainingError, match=says):
        fit(described, storage, Request("small"))


def test_a_gallery_of_one_picture_and_captions_that_are_cut(tmp_path):
    described, storage = source(tmp_path / "one", test=1)
    path = described.path
    path.write_text(path.read_text().replace(table(), table(context=5, steps=2)))
    rows = [{"image": "0.jpg", "caption": caption} for caption in ("a man in front of a disc", "a disc")]
    pq.write_table(pa.Table.from_pylist(rows), path.with_name("test.parquet"))
    record = fit(loading.load(path), storage, Request("small")).record
    assert record["captions_cut"] == 90
    assert record["scores"]["gallery"] == {"pictures": 1, "captions": 2, "captions_cut": 1}
    assert {name: each["queries"] for name, each in record["scores"]["people"].items()} == {"people": 1, "others": 1}
    assert [each["recalls"][0]["times_chance"] for each in record["scores"]["directions"]] == [1, 1]
    titles = [each.title for each in ranks.tables([("small", record["scores"]["directions"])], "model")]
    assert [title.endswith("a gallery of 1, where every rank is 1") for title in titles] == [True, False]


def test_a_gallery_without_captions_is_one_clear_line(tmp_path):
    described, storage = source(tmp_path / "none", test=1)
    rows = pa.table({"image": ["0.jpg"], "caption": pa.nulls(1, pa.string())})
    pq.write_table(rows, described.path.with_name("test.parquet"))
    with pytest.raises(SourceError, match=r"test\.parquet: no picture has a caption"):
        fit(described, storage, Request("small"))


def test_a_gradient_that_is_not_exact_is_said(published, tmp_path):
    described, storage = changed(published, tmp_path, **THAWED | {"steps": 1, "cached_batch": 8})
    record = fit(described, storage, Request("small")).record
    assert record["inexact"].startswith("gradient caching is not exact: batch norm trains")
    assert f"warning: {record['inexact'][:30]}" in printed(record)


def printed(record):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(summary(record))
    return capture.get()


def test_an_unknown_model_is_named(published):
    with pytest.raises(SourceError, match=r"there is no model 'smal' in \[models\]; did you mean 'small'"):
        fit(*published, Request("smal"))


def test_pictures_of_the_test_set_never_train(tmp_path):
    shown = {number: training_sources.picture(training_sources.truth(number), 10_000 + number) for number in (0, 1, 2)}
    described, storage = source(tmp_path / "leaks", pictures=shown)
    record = fit(described, storage, Request("small")).record
    assert record["counts"]["leaked_exact"] == 3
    assert record["pairs"] + record["validation_pairs"] == 87
