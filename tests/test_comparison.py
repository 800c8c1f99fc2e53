"""Encoders side by side: what they cost, who is on the front, and the command from a published source to its plot."""

import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import training_sources
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from flows import cli
from flows.console import encoders as shown
from pipeline.engine.prefetch import Prefetched
from pipeline.errors import CompareError, StorageError
from pipeline.models import device
from pipeline.settings import encoder
from pipeline.sources import loading
from pipeline.store.storage import Storage
from training.data import features
from training.encoders import encoders
from training.measures import intervals
from training.studies import comparison, cost

JPEGS = [training_sources.picture("disc", number) for number in range(24)]


def test_the_next_thing_is_made_while_this_one_is_worked_on():
    made = [threading.Event() for _ in range(3)]

    def things():
        for number, event in enumerate(made):
            event.set()
            yield number

    with ThreadPoolExecutor(1) as thread:
        ahead = Prefetched(things(), thread)
        assert made[0].wait(5)
        seen = []
        for number in ahead:
            seen.append(number)
            if number < 2:
                assert made[number + 1].wait(5)
            assert not any(event.is_set() for event in made[number + 2 :])
    assert seen == [0, 1, 2]


def test_windows_know_where_they_belong_and_keep_their_order():
    asked = {"a": lambda: [("a", b"")] * 100, "b": lambda: [("b", b"")] * 3}
    with features.decode(asked.items(), lambda picture: picture[0], workers=3) as windows:
        assert [(key, set(window), len(window)) for key, window in windows] == [
            ("a", {"a"}, 64),
            ("a", {"a"}, 36),
            ("b", {"b"}, 3),
        ]


def test_a_picture_that_cannot_be_decoded_is_named():
    loaded = encoders.load(encoder.parse_encoder("hog"))
    asked = {"": lambda: [("test/7.jpg", b"no picture")]}
    with features.decode(asked.items(), partial(features.prepare, loaded, Image.fromarray, "", 0)) as windows:
        with pytest.raises(StorageError, match=r"test/7.jpg cannot be decoded: Unidentified"):
            list(windows)


def test_what_an_encoder_costs():
    found = cost.measure(encoder.parse_encoder("timm:test_resnet@random"), JPEGS)
    assert (found.dim, found.batch, found.halved) == (96, encoders.PIXELS // 160**2, False)
    assert found.parameters == 372_688  # without the classifier
    assert found.flops > 2 * found.parameters  # every weight of a convolution is used more than once
    assert found.streamed[0].workers == 1
    assert found.best.images_per_second == max(loop.images_per_second for loop in found.streamed)
    for loop in (found.one_by_one, *found.streamed):
        assert 0 < loop.busy < 1
    assert found.one_by_one.workers == 0
    pixels = cost.measure(encoder.parse_encoder("pixels"), JPEGS)
    assert (pixels.dim, pixels.parameters, pixels.flops, pixels.batch) == (3 * 32 * 32, 0, None, None)


def test_workers_are_tried_up_to_the_cores():
    assert [cost.workers_to_try(most) for most in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def row(name, f1, rate, weights="file"):
    return {"encoder": name, "score": f1, "encoder_images_per_second": rate, "weights": {"from": weights}}


def test_the_front_has_what_is_better_or_cheaper_and_nothing_random():
    rows = [row("dear", 0.9, 10), row("cheap", 0.8, 100), row("worse", 0.7, 50), row("chance", 0.95, 200, "RANDOM")]
    means = [intervals.Mean(each["score"], np.full(9, each["score"])) for each in rows]
    assert comparison.rank([*rows, {"error": "gone"}], [*means, None]) == "dear"
    assert [each["front"] for each in rows] == [True, True, False, False]
    assert rows[1]["behind"]["difference"] == pytest.approx(-0.1)
    assert "behind" not in rows[0]
    assert comparison.rank(rows[3:], means[3:]) is None


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A source whose learner sees a network's features, as TOML and root."""
    folder = tmp_path_factory.mktemp("compared")
    training_sources.task(folder / "taught", count=90, lies=range(0, 90, 5), seeds=5)
    (folder / "taught/store").rename(folder / "taught/taught")
    return folder / "taught/taught.toml", folder / "taught"


def run(*words):
    done = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="winnow")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_no_encoder_at_all_is_an_error(published, monkeypatch):
    toml, root = published
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    status, out, err = run("encoders", toml, "--root", root, "--encoder", "timm:resnet50")
    assert (status, out) == (1, "")
    assert "no encoder works: the weights of resnet50.a1_in1k cannot be fetched" in err
    status, _, err = run("encoders", toml, "--root", root, "--encoder", "resnet50")
    assert (status, err.count("\n")) == (1, 1)
    assert "no encoder is called 'resnet50'" in err


def test_a_task_that_no_probe_can_be_trained_on_is_refused(published, tmp_path):
    described = loading.load(published[0])
    asked = described.task.model_copy(update={"kind": "retrieval"})
    with pytest.raises(CompareError, match="on tasks of kind classes, label, number, not retrieval"):
        comparison.compare(
            described.model_copy(update={"task": asked}), Storage(tmp_path), [encoder.parse_encoder("hog")]
        )


@pytest.mark.slow
def test_numbers_on_a_test_set_that_is_split_off(tmp_path):
    """How light a picture is, which a network that is trained end to end soon learns."""
    told = {
        number: training_sources.light(training_sources.picture(training_sources.truth(number), number))
        for number in range(90)
    }
    light = '[task]\nkind = "number"\ncolumn = "told"\n[task.split]\nshare = 0.3\n'
    described, storage = training_sources.task(tmp_path / "t", 90, column=told, measured=light, learning_rate=0.01)
    network = described.task.learners["linear"].encoder
    with device.one_thread():
        found = comparison.compare(described, storage, [network], comparison.Scope(pictures=16, finetuned=True))
    assert (found["kind"], found["metrics"][0]) == ("number", ["r2", "R2"])
    assert 10 < found["test_pictures"] < 45
    (row,) = found["encoders"]
    for each in (row, row["finetuned"]):
        assert each["score"] == pytest.approx(each["scores"]["r2"])
        assert each["score"] > 0.3 > found["baseline"]["r2"]
        assert each["scores"]["mae"] < found["baseline"]["mae"]
    printed = Console(width=200, file=io.StringIO())
    printed.print(shown.table(found))
    assert re.search(r"R2 .*mean absolute error", printed.file.getvalue())


@pytest.mark.slow
def test_the_command_from_a_source_to_a_plot(published, monkeypatch):
    """Two encoders work, one of them untrained, and one has a hub that does not answer."""
    toml, root = published
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COLUMNS", "100")
    names = ("linear", "timm:test_resnet@random", "timm:resnet50")
    words = [word for name in names for word in ("--encoder", name)]
    status, out, err = run("encoders", toml, "--root", root, *words, "--json")
    assert status == 0, err
    found = json.loads(out)
    own, untrained, gone = found["encoders"]
    assert found["best"] == own["encoder"] == "timm:test_resnet@encoder.safetensors"
    assert found["baseline"]["f1_macro"] < own["low"] < own["score"] < own["high"] < 1
    assert own["weights"]["from"] == "file"
    assert own["front"]
    assert not untrained["front"]
    assert untrained["weights"]["from"] == "RANDOM"
    assert gone.keys() == {"encoder", "toml", "error"}
    assert json.loads((root / "taught/encoders.json").read_text()) == found
    assert run("report", toml, "--root", root)[0] == 0
    assert '<section id="encoders">' in (root / "taught/report.html").read_text()
    assert "RANDOM WEIGHTS timm:test_resnet@random" in (root / "taught/encoders.svg").read_text()
    assert "RANDOM WEIGHTS" in err
    assert re.search(r"images/s by decoding workers 1: [\d.]+", " ".join(err.split()))
    assert max(map(len, err.splitlines())) <= 100 + len(own["toml"])

    before = {path: path.stat().st_mtime_ns for path in (root / "taught/features").rglob("*.npz")}
    (line,) = re.findall(r"^encoder = .*$", err, re.MULTILINE)
    learners = f'[task.learners.best]\nhead = "linear"\n{line}\n[task.budget]'
    (toml.parent / "next.toml").write_text(toml.read_text().replace("[task.budget]", learners))
    best = loading.load(toml.parent / "next.toml").task.learners["best"].encoder
    assert best == loading.load(toml).task.learners["linear"].encoder
    assert run("encoders", toml, "--root", root, "--encoder", "linear")[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}  # no features are made twice
