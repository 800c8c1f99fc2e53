"""Pictures that processes decode: the same values as in threads, the same errors, and none lost with a process."""

import os
import signal

import downloaded_sources
import numpy as np
import pytest
import random_clip
from PIL import Image

from pipeline.errors import ShardError
from pipeline.process.machine import cores
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.pixels import Pixels, PixelsSpec
from pipeline.scoring import decode_pool
from pipeline.scoring.decode_pool import DecodePool, PictureError
from pipeline.scoring.pictures import Pictures

NAMED = [(f"{number}.jpg", downloaded_sources.jpeg(downloaded_sources.picture(number))) for number in range(40)]


class Mean:
    """Without `preparation`: stays in this process."""

    def prepare(self, image):
        assert os.getpid() == HERE
        return float(np.asarray(image).mean())


class Whole:
    """Without `prepare`: gets the picture."""


HERE = os.getpid()
SCORERS = {"pixels": Pixels(), "mean": Mean(), "whole": Whole()}


def fail(image):
    if image.width == 13:
        raise ValueError("no such picture")


def fall(image):
    os.kill(os.getpid(), signal.SIGKILL)


class Away:
    def __init__(self, preparation):
        self.preparation = self.prepare = preparation


@pytest.fixture(scope="module")
def apart():
    return DecodePool("pillow", processes=2)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(decode_pool, "MANY", len(NAMED))


def values(pool, scorers, pictures=NAMED):
    return list(pool.map(pictures, scorers))


@pytest.mark.parametrize("decoder", ["pillow", "torchvision"])
@pytest.mark.slow
def test_processes_prepare_what_threads_do(decoder):
    here, there = values(DecodePool(decoder, processes=0), SCORERS), values(DecodePool(decoder, processes=2), SCORERS)
    for one, other in zip(here, there, strict=True):
        assert one["pixels"][:-1] == other["pixels"][:-1]
        assert all(map(np.array_equal, one["pixels"].steps, other["pixels"].steps))
        assert one["mean"] == other["mean"]
        assert np.array_equal(one["whole"].resize((9, 9)), other["whole"].resize((9, 9)))


def test_few_pictures_and_scorers_that_stay_need_no_processes():
    apart = DecodePool("pillow", processes=2)
    assert len(values(apart, {"mean": SCORERS["mean"]})) == len(NAMED)
    assert len(values(apart, SCORERS, NAMED[1:])) == len(NAMED) - 1
    assert apart._started is None


@pytest.mark.slow
def test_errors_name_the_picture_and_the_scorer(apart, tmp_path):
    with pytest.raises(PictureError, match=r"^39.jpg cannot be decoded: cannot identify"):
        list(apart.map([*NAMED[:39], ("39.jpg", b"no picture")], {"pixels": SCORERS["pixels"]}))
    odd = downloaded_sources.jpeg(Image.new("RGB", (13, 10)))
    with pytest.raises(PictureError, match=r"^scorer 'away' fails on odd.jpg: ValueError\('no such picture'\)"):
        list(apart.map([*NAMED, ("odd.jpg", odd)], {"away": Away(fail)}))


@pytest.mark.slow
def test_a_killed_process_is_one_shard_s_error_and_another_takes_its_place(apart, tmp_path):
    (tmp_path / "tar").write_bytes(b"")
    with pytest.raises(PictureError, match="a process that decodes was killed"):
        values(apart, {"away": Away(fall)})
    assert len(values(apart, {"pixels": SCORERS["pixels"]})) == len(NAMED)
    pictures = Pictures(3, tmp_path / "tar", {"away": Away(fall)}, apart)
    pictures._members = iter(NAMED)
    with pytest.raises(ShardError, match="a process that decodes was killed"):
        pictures.take([name for name, _ in NAMED])


@pytest.mark.slow
def test_a_shard_has_the_same_scores(tmp_path, monkeypatch):
    clip = random_clip.save(random_clip.reference("quick_gelu"), tmp_path / "clip", quick_gelu=True)
    scorers = {"clip": ClipSpec(kind="clip", model=f"local-dir:{clip}"), "pixels": PixelsSpec(kind="pixels")}
    rows = [(f"http://host/{n}.jpg", f"number {n}", downloaded_sources.picture(n, (90, 60))) for n in range(45)]
    found = []
    for few, name in ((cores(), "threads"), (0, "processes")):
        monkeypatch.setattr(decode_pool, "FEW", few)
        found.append(downloaded_sources.scored(tmp_path / name, rows, scorers))
    assert found[0] == found[1]
    assert len(set(found[0]["clip"]["similarity"])) == len(rows)
