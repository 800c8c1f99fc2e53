"""A run that has nothing to do: found without Prefect, without torch, and without another process."""

import json
import os
import subprocess
import sys

import pytest
from published_sources import SHARP, WORDED, listed, published

from flows.settled import settled
from pipeline.models import device
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage


@pytest.fixture
def store(tmp_path):
    """A published source of 25 pairs in three shards."""
    storage = Storage(tmp_path / "root" / "tiny")
    first = published(listed(tmp_path, range(40, 65), (SHARP, WORDED)), storage)
    return storage, first


def again(tmp_path, storage, numbers=range(40, 65), filters=(SHARP, WORDED)):
    return settled(listed(tmp_path, numbers, filters), storage)


def test_the_same_input_is_settled(tmp_path, store):
    storage, first = store
    found = again(tmp_path, storage)
    assert (found.id, found.new, found.counts) == (first.id, False, first.counts)


def test_a_new_pair_is_work(tmp_path, store):
    assert again(tmp_path, store[0], range(40, 66)) is None


def test_fewer_pairs_are_work(tmp_path, store):
    assert again(tmp_path, store[0], range(40, 64)) is None


def test_another_filter_is_work(tmp_path, store):
    assert again(tmp_path, store[0], filters=(SHARP,)) is None


def test_another_reason_for_a_filter_is_none(tmp_path, store):
    reworded = {**SHARP, "why": "blurred pictures show too little"}
    assert again(tmp_path, store[0], filters=(reworded, WORDED)).id == store[1].id


@pytest.mark.parametrize("suffix", [".tar", ".parquet"])
def test_a_missing_picture_is_work(tmp_path, store, suffix):
    storage, _ = store
    stage = Plan.of(listed(tmp_path, range(40, 65), (SHARP, WORDED))).shards
    storage.fetch(stage.item(1, suffix)).unlink()
    assert again(tmp_path, storage) is None


def test_a_missing_score_is_work(tmp_path, store):
    storage, _ = store
    stage = Plan.of(listed(tmp_path, range(40, 65), (SHARP, WORDED))).scores["captions"]
    storage.fetch(stage.item(2, ".parquet")).unlink()
    assert again(tmp_path, storage) is None


def test_a_damaged_verdict_is_work(tmp_path, store):
    storage, _ = store
    (verdicts,) = storage.keys("verdicts")
    path = storage.fetch(verdicts)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    assert again(tmp_path, storage) is None


def test_quarantined_pairs_are_work(tmp_path):
    storage = Storage(tmp_path / "root" / "tiny")
    published(listed(tmp_path, range(40, 65)), storage, {1: "it took too long"})
    assert again(tmp_path, storage, filters=(SHARP,)) is None


def test_nothing_is_published_yet(tmp_path):
    assert again(tmp_path, Storage(tmp_path / "root" / "tiny")) is None


def run(statement, *words):
    """A command in a fresh interpreter: its output, and what of `statement` is true of it at the end."""
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('\\n', {statement}, sep='', file=sys.stderr))\n"
        "from flows.cli import main\nmain()"
    )
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"})
    return done.stdout, done.stderr.splitlines()[-1]


HEAVY = "[name for name in ('prefect', 'torch', 'open_clip', 'img2dataset', 'matplotlib') if name in sys.modules]"


def test_a_second_run_imports_neither_prefect_nor_torch(tmp_path, store):
    out, heavy = run(HEAVY, "curate", tmp_path / "tiny.toml", "--root", tmp_path / "root")
    assert "as before: nothing changed" in out
    assert heavy == "[]"


def test_sql_imports_duckdb_in_its_process_alone(store):
    names = "[name for name in ('duckdb', 'PIL', 'pandas', 'torch', 'prefect') if name in sys.modules]"
    words = ["sql", "SELECT count(*) AS n FROM rows", "--root", store[0].root.parent, "--json"]
    out, heavy = run(names, *words)
    assert json.loads(out)["rows"] == [{"n": 25}]
    assert heavy == "[]"


def test_the_device_is_the_one_that_torch_finds():
    import torch

    assert device.kind() == ("cuda" if torch.cuda.is_available() else "cpu")
    if device.kind() == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        assert device.best_precision() == ("bfloat16" if native else "float32")
