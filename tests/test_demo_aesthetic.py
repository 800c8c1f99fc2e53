"""The demo's aesthetic head, on scenes that nothing was trained on."""

import numpy as np
import pytest

from pipeline.demo import pool
from pipeline.demo.faults import DEGRADING
from pipeline.sources import loading
from training.demo import aesthetic, clip


@pytest.fixture(scope="module")
def seen():
    """Embeddings of 40 unseen scenes, clean and with each fault: [1 + faults, 40, 128]."""
    return aesthetic.photographed(clip.FOLDER, 3, pool.CALIBRATION, 40)


def test_the_head_of_the_demos_source_prefers_clean_pictures_to_degraded_ones(seen):
    head = loading.load("demo").scorers["aesthetic"].load()
    scores = [head.score(each.numpy())["score"].tolist() for each in seen]
    found = aesthetic.aucs(scores)
    assert list(found) == ["all", *DEGRADING]
    assert found["all"] > 0.65, found
    assert found["washed_out"] > 0.95, found
    assert np.median(scores[0]) > np.median(np.concatenate(scores[1:]))


def test_a_head_learns_what_can_be_told_by_a_line_and_the_same_twice(seen):
    marked = seen.clone()
    marked[1:, :, 0] += 2
    weight, bias = aesthetic.fit(marked)
    assert weight.shape == (1, 128)
    scores = (marked @ weight[0] + bias).tolist()
    assert min(aesthetic.aucs(scores).values()) == 1
    assert aesthetic.fit(marked)[0].equal(weight)
