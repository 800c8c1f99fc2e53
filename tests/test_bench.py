"""The benchmark: its figures belong together, its pairs are always the same, its command answers."""

import json
import subprocess
import sys
import tarfile
from dataclasses import replace

import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.bench import choosing, downloading, scoring, synthetic, synthetic_manifest
from pipeline.bench.scoring import Repeat
from pipeline.download import download
from pipeline.errors import ModelError
from pipeline.process import machine
from pipeline.store.storage import Storage


def test_ratios_are_those_inside_a_repeat():
    """The machine was half as fast in the second repeat; the ratios are the same."""
    first = Repeat(0.1, 0.01, 0.07, 0.04, 0.02, 0.002, 0.3, 0.001, 1e9)
    second = Repeat(*(2 * value for value in (0.1, 0.01, 0.07, 0.04, 0.02, 0.002, 0.3)), 0.001, 5e8)
    found = scoring.figures([first, second, first], flops=3e7)
    assert found["pairs_per_second"] == pytest.approx(10)
    assert found["ratio_to_reference"] == pytest.approx(3)
    assert found["share_of_ceiling"] == pytest.approx(0.6)
    assert found["share_of_matmul"] == pytest.approx(0.5)
    assert sum(found["seconds_per_pair"].values()) == pytest.approx(1 / found["pairs_per_second"])


def test_parts_of_a_download_are_those_of_all_cores():
    """Two cores, 100 pictures in one second: 20 ms of a picture, of which 5 are idle."""
    processor = {"server": 0.1, "downloads": 0.4, "hosts": 0.1, "decoders": 0.9}
    ours = downloading.Side(100, 1.0, processor, 8)
    theirs, alone = downloading.Side(100, 0.8, {"server": 0.1}, 100), downloading.Side(50, 0.9, processor, 4)
    repeat = downloading.Repeat(ours, theirs, alone)
    found = downloading.figures([repeat], 2, {"decode": 0.004, "resize": 0.003, "encode": 0.001})
    assert (found["pictures_per_second"], found["img2dataset_per_second"]) == (100, 125)
    assert (found["ratio_to_img2dataset"], found["scaling"]) == (0.8, pytest.approx(1.8))
    assert found["seconds_per_picture"] == pytest.approx(
        {
            "server": 0.001,
            "requests, files": 0.004,
            "hosts": 0.001,
            "decode": 0.004,
            "resize": 0.003,
            "encode": 0.001,
            "to and from decoders": 0.001,
            "idle": 0.005,
        }
    )
    assert "scaling" not in downloading.figures([replace(repeat, alone=None)], 2, {"decode": 0.02})


@pytest.mark.slow
def test_downloads_are_measured_beside_img2dataset():
    done = CliRunner().invoke(
        app, ["bench", "--download", "--pictures", "320", "--delay", "1", "--repeats", "1", "--json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["img2dataset_connections"] >= 320  # one for each picture
    assert found["connections"] <= 9 * 32
    assert all(found[name] > 0 for name in ("pictures_per_second", "img2dataset_per_second", "alone_per_second"))
    assert found["phases"].keys() == {"decode", "resize", "encode"}
    both = CliRunner().invoke(app, ["bench", "--download", "--choose"])
    assert both.exit_code == 2


def test_the_peak_of_memory_is_that_of_the_process_alone():
    """Not what the one that started it held."""
    held = b"1" * (400 << 20)
    told = "from pipeline.process import machine; taken = b'1' * (100 << 20); print(machine.peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert 100 < int(done.stdout) < 400 < machine.peak_memory_mb()
    assert held


def test_pairs_are_the_same_each_time_and_lie_in_tars(tmp_path):
    contents = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        described, storage, shards = synthetic.source(tmp_path / run, 10, 64, 5)
        stage = download.stage(described)
        contents.append([storage.fetch(stage.item(shard.number, ".tar")).read_bytes() for shard in shards])
        with tarfile.open(storage.fetch(stage.item(1, ".tar"))) as tar:
            assert len(tar.getnames()) == 5
    assert contents[0] == contents[1]
    assert len(set(synthetic.captions(500))) == 500


def test_a_model_that_is_none_is_told():
    with pytest.raises(ModelError, match="did you mean 'ViT-B-32'"):
        scoring.run(scoring.Workload(model="ViT-B-23"))


def test_winnow_and_pandas_choose_the_same_rows(tmp_path):
    store = Storage(tmp_path)
    manifest = synthetic_manifest.publish_rows(store, 5_000, choosing.RECIPE)
    ours, theirs = choosing.winnow(store), choosing.pandas(store)
    found = choosing.figures([ours], [theirs])
    assert found["kept"] == manifest.counts.kept > 100
    assert found["ratio_to_pandas"] == pytest.approx(theirs.seconds / ours.seconds, rel=1e-3)
    assert all(each > 0 for step in ours.funnel for each in step)
    with pytest.raises(ValueError, match="do not agree"):
        choosing.figures([ours], [replace(theirs, uids="other")])


def test_rows_of_a_manifest_that_is_made_up():
    whole = synthetic_manifest.table(7, 2_000)
    assert whole.equals(synthetic_manifest.table(7, 2_000))
    assert len(whole.column_names) == 20
    assert len(set(whole["uid"].to_pylist())) == 2_000
    assert {len(each) for each in whole["uid"].to_pylist()} == {32}
    failed = pc.equal(whole["status"], "failed")
    assert whole["clip_similarity"].is_null().equals(failed)
    assert 0.25 < pc.mean(failed).as_py() < 0.35


@pytest.mark.slow
def test_the_command_measures_choosing():
    done = CliRunner().invoke(app, ["bench", "--choose", "--rows", "150000", "--repeats", "1", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["rows"] == 150_000
    assert found["ratio_to_pandas"] > 0.2
    assert 0 < found["peak_memory_mb"] < 2_000
    assert "times as fast" in done.stderr


@pytest.mark.slow
def test_the_command_measures_a_small_model():
    arguments = [
        "bench",
        "--model",
        "ViT-S-32-alt",
        "--precision",
        "float32",
        "--pairs",
        "64",
        "--repeats",
        "1",
        "--json",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["largest_difference"] < 1e-4
    assert found["share_of_ceiling"] > 0
    assert found["pairs_per_second"] > 0
    assert "Where the" in done.stderr
