"""Processes that help with trials: the same results in any process, and none is left behind."""

import dataclasses
import json
import os
import time
from contextlib import closing
from functools import partial

import pytest
import training_sources

from pipeline.store.storage import Storage
from pipeline.trials import trials
from training.studies import gain, helpers


@pytest.fixture
def at_once(monkeypatch):
    """One helper, after the first trial, on any machine."""
    monkeypatch.setattr(helpers, "DELAY", 0.0)
    monkeypatch.setattr(helpers, "cores", lambda: 2)


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def of(storage):
    """The stored trials, without seconds and memory, and the processes that trained them."""
    found = [trials.Trial.from_json(storage.fetch(key).read_bytes()) for key in trials.finished(storage)]
    claims = [json.loads(storage.fetch(key).read_bytes()) for key in storage.keys("trials") if ".claim-" in key]
    return [dataclasses.replace(each, seconds=0, memory_mb=None) for each in found], [each["pid"] for each in claims]


@pytest.mark.slow
def test_a_helper_s_trials_have_the_same_bits(tmp_path, at_once, monkeypatch):
    learners = {"linear": ("linear", training_sources.RESNET), "mlp": ("mlp", training_sources.RESNET)}
    found = []
    for name, most in (("alone", 1), ("helped", 2)):
        described, storage = training_sources.task(tmp_path / name, count=60, lies=range(9), learners=learners)

        def wait(step, done, total, storage=storage, most=most):
            if (step, done) == ("trials", 3) and most > 1:  # all that are left are the helper's
                until(lambda: len(trials.finished(storage)) == total)

        monkeypatch.setattr(helpers, "cores", partial(int, most))
        gain.measure(described, storage, progress=wait)
        found.append(of(storage))
    (alone, own), (helped, shared) = found
    assert helped == alone
    assert len(alone) == len(shared) == 70
    assert set(own) == {os.getpid()}
    assert 1 <= shared.count(os.getpid()) <= 3


def test_helpers_end_with_an_interrupted_run(tmp_path, at_once):
    storage, here = Storage(tmp_path / "store"), tmp_path / "process"
    job = partial(exec, f"import os, time; open({str(here)!r}, 'w').write(f'{{os.getpid()}}.'); time.sleep(600)")

    def interrupted():
        with closing(helpers.assisted(range(3), job, 0, storage, lambda done, total: None)) as planned:
            for each in planned:
                if each:
                    until(lambda: here.exists() and here.read_text().endswith("."))
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ProcessLookupError):
        os.kill(int(here.read_text()[:-1]), 0)
    assert not list((tmp_path / "store" / ".tmp").glob("*/*"))


def test_no_helper_is_started_without_memory_for_it_or_for_little_work(tmp_path):
    assert helpers.most(1 << 60) == 0

    def job():  # cannot be pickled
        raise AssertionError

    seen = []
    with closing(helpers.assisted("abc", job, 0, Storage(tmp_path), lambda *done: seen.append(done))) as planned:
        assert list(planned) == ["a", "b", "c"]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
