"""Differences over pools: an interval that holds the chance of the pool."""

import numpy as np
import pytest

from flows import pools as flow
from pipeline.errors import SourceError
from pipeline.settings.pairs import Demo
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from training.studies import pools


def gain(**differences):
    told = [{"name": name, "difference": value} for name, value in differences.items()]
    learners = [{"name": "linear", "differences": told}]
    return {"manifest": "m", "metrics": [["f1_macro", "macro-F1"]], "budget": {"seeds": 5}, "learners": learners}


def test_the_interval_is_student_s_over_pools():
    found = pools.summarize([gain(kept=value, noise=value - 2) for value in (1.0, 2.0, 3.0)])
    (learner,) = found["learners"]
    kept, noise = learner["differences"]
    assert kept["difference"] == 2
    assert kept["high"] - 2 == pytest.approx(2 - kept["low"]) == pytest.approx(4.303 / 3**0.5, abs=1e-3)  # of a table
    assert kept["pools"] == [1, 2, 3]
    assert not kept["clear"]
    assert noise["difference"] == 0
    (clear,) = pools.summarize([gain(kept=value) for value in (1.0, 1.1, 0.9)])["learners"][0]["differences"]
    assert clear["clear"]


def test_it_holds_the_mean_of_all_pools_as_often_as_it_says():
    generator = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        drawn = [gain(kept=float(value)) for value in generator.normal(0.3, 1, size=4)]
        (each,) = pools.summarize(drawn)["learners"][0]["differences"]
        held.append(each["low"] <= 0.3 <= each["high"])
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_two_pools_are_too_few():
    with pytest.raises(ValueError, match="needs 3 or more, not 2"):
        pools.summarize([gain(kept=1.0)] * 2)


def test_only_a_source_that_draws_has_other_pools(tmp_path):
    demo, storage = Source(name="demo", demo=Demo(pairs=50, test_images=50)), Storage(tmp_path)
    first, *others = [flow.draw(demo, storage, number) for number in range(4)]
    assert first == (demo, storage)
    assert len({drawn.demo.seed for drawn, _ in (first, *others)}) == 4
    assert len({own.root for _, own in (first, *others)}) == 4
    (tmp_path / "list.tsv").write_text("caption\turl\n")
    with pytest.raises(SourceError, match="a list is one pool"):
        flow.draw(Source(name="list", pairs={"location": str(tmp_path / "list.tsv")}), storage, 1)
