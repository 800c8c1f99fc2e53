"""Workers: one for each device, which sees no other; what they leave is what one would have left."""

import os
import threading
import time
from collections import Counter
from functools import partial

import pytest

from pipeline.engine import choosing, local
from pipeline.engine.arrivals import Arrivals
from pipeline.errors import ShardError, SourceError, StorageError
from pipeline.ledger.ledger import Shard
from pipeline.models import device

SHARDS = [Shard(number, f"pairs/{number}.parquet", 1) for number in range(5)]


class Noted:
    """Leaves a file a shard, with the device that its worker sees. Two numbers fail, each in its own way.

    Work begins when so many `workers` have.
    """

    def __init__(self, folder, bad=None, fatal=None, workers=1):
        self.folder, self.bad, self.fatal, self.workers = folder, bad, fatal, workers
        (folder / f"began-{os.getpid()}").touch()

    def __call__(self, shard):
        while len(list(self.folder.glob("began-*"))) < self.workers:
            time.sleep(0.01)
        time.sleep(0.2 if self.workers > 1 else 0)  # so that the first has not done all before the second asks
        if shard.number == self.bad:
            raise ShardError("test", shard.number, "it is bad")
        if shard.number == self.fatal:
            raise StorageError("the disk is full")
        (self.folder / f"{shard.number}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])


def test_each_device_has_a_worker_of_its_own(tmp_path):
    outcomes = dict(local.run_on_devices(partial(Noted, tmp_path, bad=3, workers=2), SHARDS, ["4", "7"]))
    assert {shard.number: str(error) for shard, error in outcomes.items() if error} == {
        3: "test, shard 00003: it is bad"
    }
    assert outcomes.keys() == set(SHARDS)
    devices = {path.name: path.read_text() for path in tmp_path.glob("[0-9]")}
    assert (devices.keys(), set(devices.values())) == ({"0", "1", "2", "4"}, {"4", "7"})
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


class Wide:
    """Three shards at once, or nothing happens. Two numbers fail, each in its own way; one waits until it is closed."""

    at_once = 3

    def __init__(self, bad=None, fatal=None, waits=None):
        self.bad, self.fatal, self.waits = bad, fatal, waits
        self.together, self.closed = threading.Barrier(3), threading.Event()
        self.calls = Counter()

    def __call__(self, shard):
        self.calls[shard.number] += 1
        if shard.number < 3 and self.calls[shard.number] == 1:
            self.together.wait(20)
        if shard.number == self.bad:
            raise ShardError("test", shard.number, "it is bad")
        if shard.number == self.fatal:
            raise StorageError("the disk is full")
        if shard.number == self.waits:
            assert self.closed.wait(20)
            raise ShardError("test", shard.number, "it was ended")

    def close(self):
        self.closed.set()


def test_a_wide_stage_works_on_several_shards_at_once():
    stage = Wide(bad=3)
    outcomes = {shard.number: str(error or "") for shard, error in local.run_wide(stage, SHARDS)}
    assert outcomes == {0: "", 1: "", 2: "", 3: "test, shard 00003: it is bad", 4: ""}
    assert stage.calls == {0: 1, 1: 1, 2: 1, 3: 2, 4: 1}
    assert not stage.closed.is_set()


def test_what_would_fail_every_shard_ends_a_wide_stage():
    stage = Wide(fatal=1, waits=0)
    with pytest.raises(StorageError, match="the disk is full"):
        list(local.run_wide(stage, SHARDS))
    assert stage.closed.is_set()
    assert stage.calls[0] == 1  # what was ended is not tried again


def test_a_caller_that_leaves_ends_a_wide_stage():
    stage = Wide(waits=0)
    outcomes = local.run_wide(stage, SHARDS)
    next(outcomes)
    outcomes.close()
    assert stage.closed.is_set()


def test_shards_are_worked_on_as_they_arrive():
    arrivals, scored = Arrivals(), []

    def download():
        for shard in SHARDS:
            arrivals.add(shard)
            while shard not in scored:  # the next one only comes when this one is done
                time.sleep(0.001)
        arrivals.end()

    thread = threading.Thread(target=download)
    thread.start()
    outcomes = list(local.run(lambda: scored.append, arrivals))
    thread.join()
    assert outcomes == [(shard, None) for shard in SHARDS]
    assert scored == SHARDS
    assert [shard for shard, _ in local.run(lambda: lambda shard: None, arrivals)] == SHARDS  # a second try has all


class Ahead:
    """What is announced before a shard is at work."""

    def __init__(self):
        self.seen = []

    def prefetch(self, shard):
        self.seen.append(("ahead", shard.number))

    def __call__(self, shard):
        self.seen.append(("work", shard.number))


def test_the_next_shard_is_announced_if_it_is_there():
    stage = Ahead()
    list(local.run(lambda: stage, SHARDS[:3]))
    assert stage.seen == [("ahead", 1), ("work", 0), ("ahead", 2), ("work", 1), ("work", 2)]


@pytest.mark.parametrize(("named", "found"), [("2, GPU-5f", ["2", "GPU-5f"]), ("", []), ("0", ["0"])])
def test_the_devices_are_those_that_this_process_may_use(monkeypatch, named, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert device.visible_gpus() == found


def test_an_unknown_engine_is_one_line():
    with pytest.raises(SourceError, match=r"^there is no engine 'dask': take local or ray$"):
        choosing.choose(None, None, "dask")
