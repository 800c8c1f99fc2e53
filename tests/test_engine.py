"""Workers: one for each device, which sees no other; what they leave is what one would have left."""

import os
from functools import partial

import pytest

from pipeline.engine import local
from pipeline.errors import ShardError, StorageError
from pipeline.ledger.ledger import Shard
from pipeline.models import device

SHARDS = [Shard(number, f"pairs/{number}.parquet", 1) for number in range(5)]


class Noted:
    """Leaves a file a shard, with the device that its worker sees. Two numbers fail, each in its own way."""

    def __init__(self, folder, bad=None, fatal=None):
        self.folder, self.bad, self.fatal = folder, bad, fatal
        (folder / f"began-{os.getpid()}").touch()

    def __call__(self, shard):
        if shard.number == self.bad:
            raise ShardError("test", shard.number, "it is bad")
        if shard.number == self.fatal:
            raise StorageError("the disk is full")
        (self.folder / f"{shard.number}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])


def test_each_device_has_a_worker_of_its_own(tmp_path):
    outcomes = dict(local.run_on_devices(partial(Noted, tmp_path, bad=3), SHARDS, ["4", "7"]))
    assert {shard.number: str(error) for shard, error in outcomes.items() if error} == {
        3: "test, shard 00003: it is bad"
    }
    assert outcomes.keys() == set(SHARDS)
    assert {path.name: path.read_text() for path in tmp_path.glob("[0-9]")} == {"0": "4", "1": "7", "2": "4", "4": "4"}
    assert len(list(tmp_path.glob("began-*"))) == 2
    assert not (tmp_path / f"began-{os.getpid()}").exists()


@pytest.mark.slow
def test_what_would_fail_every_shard_is_raised_here(tmp_path):
    with pytest.raises(StorageError, match="the disk is full"):
        list(local.run_on_devices(partial(Noted, tmp_path, fatal=0), SHARDS, ["0", "1"]))


@pytest.mark.parametrize("devices", [[], ["0"]])
def test_one_device_needs_no_process(tmp_path, monkeypatch, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [error for _, error in local.run_on_devices(partial(Noted, tmp_path), SHARDS, devices)] == [None] * 5
    assert (tmp_path / f"began-{os.getpid()}").exists()


@pytest.mark.parametrize(("named", "found"), [("2, GPU-5f", ["2", "GPU-5f"]), ("", []), ("0", ["0"])])
def test_the_devices_are_those_that_this_process_may_use(monkeypatch, named, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert device.visible_gpus() == found
