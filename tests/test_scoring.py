"""The machinery: one pass, alignment, checks, errors, and nothing done twice."""

import os
import threading
import weakref
from collections import Counter
from typing import ClassVar

import downloaded_sources
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.download import download
from pipeline.engine import local
from pipeline.errors import ModelError, ShardError, SourceError
from pipeline.scorers.spec import WINDOW, HeadSpec, Spec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring

LOADS = Counter()


class FirstSpec(Spec):
    """Five lines: the red of the first pixel, whatever else it returns besides."""

    looks_at_pictures: ClassVar[bool] = True
    kind: str = "first"
    promised: str = "red"

    def columns(self):
        return {self.promised: pa.float32()}

    def identity(self):
        return {"version": 1}

    def load(self):
        LOADS["first"] += 1
        return First()


class First:
    embedding_dim = None

    def score(self, batch):
        LOADS["windows"] += 1
        return {"red": np.array([image.getpixel((0, 0))[0] for image in batch.images], np.float32)}


class GivenSpec(FirstSpec):
    """Returns what it is told to, without looking at a picture."""

    looks_at_pictures: ClassVar[bool] = False
    given: tuple

    def load(self):
        return Given(self.given)


class Given:
    embedding_dim = None

    def __init__(self, given):
        self.given = given

    def score(self, batch):
        if isinstance(self.given[0], Exception):
            raise self.given[0]
        return {"red": np.array(self.given[: len(batch)], type(self.given[0]))}


class CornerSpec(FirstSpec):
    """Embeds: the first two picture corners' direction, and the caption's length as the text's."""

    encoder: ClassVar[str] = "corner/1"
    stretch: float = 1

    def load(self):
        LOADS["corner"] += 1
        return Corner(self.stretch)


class Corner:
    embedding_dim = 2

    def __init__(self, stretch):
        self.stretch = stretch

    def prepare(self, image):
        return np.float32(image.getpixel((0, 0))[0] / 255)

    def score(self, batch):
        angle = np.array(batch.images, np.float32)
        image = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.float32(self.stretch)
        text = np.full_like(image, np.nan)
        return {"red": angle, "embeddings": np.stack([image, text], axis=1)}


class AngleSpec(HeadSpec):
    kind: str = "angle"

    def columns(self):
        return {"angle": pa.float32()}

    def identity(self):
        return {"version": 1}

    def check(self, of):
        if of.encoder != "corner/1":
            raise ModelError(f"made for corner/1, not {of.encoder}")

    def load(self, of):
        LOADS["angle"] += 1
        return Angle()


class Angle:
    def score(self, embeddings):
        return {"angle": np.arctan2(embeddings[:, 1], embeddings[:, 0])}


@pytest.fixture(autouse=True)
def fresh():
    LOADS.clear()


def rows(count, failed=()):
    return [
        (f"http://host/{n}.jpg", f"caption {n}", None if n in failed else downloaded_sources.picture(n))
        for n in range(count)
    ]


def red(number):
    return downloaded_sources.picture(number).getpixel((0, 0))[0]


def test_scores_are_aligned_and_failed_pairs_have_none(tmp_path):
    described, storage, (shard,) = downloaded_sources.downloaded(
        tmp_path, rows(9, failed={0, 4, 8}), {"first": FirstSpec()}
    )
    Scoring(Plan.of(described), storage)(shard)
    table = pq.read_table(storage.fetch(shard.key))
    found = downloaded_sources.scores(described, storage, shard, "first")
    assert found["uid"] == table["uid"].to_pylist()
    for url, value in zip(table["url"].to_pylist(), found["red"], strict=True):
        number = int(url.removeprefix("http://host/").removesuffix(".jpg"))
        assert value is None if number in {0, 4, 8} else value == pytest.approx(red(number), abs=8)


def test_a_shard_without_any_picture_is_all_null(tmp_path):
    described, storage, (shard,) = downloaded_sources.downloaded(
        tmp_path, rows(3, failed={0, 1, 2}), {"corner": CornerSpec(), "angle": AngleSpec(of="corner")}
    )
    Scoring(Plan.of(described), storage)(shard)
    assert downloaded_sources.scores(described, storage, shard, "corner")["red"] == [None] * 3
    assert downloaded_sources.scores(described, storage, shard, "angle")["angle"] == [None] * 3
    assert np.isnan(downloaded_sources.embeddings(described, storage, shard, "corner")).all()


def test_pairs_of_one_url_share_the_very_same_picture_across_windows(tmp_path):
    many = [("http://host/1.jpg", f"caption {n}", downloaded_sources.picture(1)) for n in range(WINDOW + 5)]
    many += [("http://host/2.jpg", "another", downloaded_sources.picture(2))]
    seen = []

    class Watching:
        embedding_dim = None

        def score(self, batch):
            seen.append(batch.images)
            return {"red": np.zeros(len(batch), np.float32)}

    class WatchingSpec(FirstSpec):
        def load(self):
            return Watching()

    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, many, {"watching": WatchingSpec()}, 5000)
    Scoring(Plan.of(described), storage)(shard)
    assert [len(images) for images in seen] == [WINDOW, 6]
    assert len({id(image) for images in seen for image in images}) == 2


def test_a_second_run_loads_nothing_and_writes_nothing(tmp_path):
    scorers = {"first": FirstSpec(), "corner": CornerSpec(), "angle": AngleSpec(of="corner")}
    described, storage, shards = downloaded_sources.downloaded(tmp_path, rows(30), scorers, shard_size=10)
    assert [error for _, error in local.run(lambda: Scoring(Plan.of(described), storage), shards)] == [None] * 3
    assert LOADS == {"first": 1, "windows": 3, "corner": 1, "angle": 1}
    before = {path: path.stat().st_mtime_ns for path in storage.root.rglob("*") if path.is_file()}
    list(local.run(lambda: Scoring(Plan.of(described), storage), shards))
    assert LOADS == {"first": 1, "windows": 3, "corner": 1, "angle": 1}
    assert before == {path: path.stat().st_mtime_ns for path in storage.root.rglob("*") if path.is_file()}


def test_a_new_head_decodes_no_picture(tmp_path):
    described, storage, (shard,) = downloaded_sources.downloaded(
        tmp_path, rows(5, failed={2}), {"corner": CornerSpec()}
    )
    Scoring(Plan.of(described), storage)(shard)
    storage.fetch(download.stage(described).item(0, ".tar")).unlink()
    wider = described.model_copy(update={"scorers": {**described.scorers, "angle": AngleSpec(of="corner")}})
    Scoring(Plan.of(wider), storage)(shard)
    assert LOADS == {"corner": 1, "angle": 1}
    angles = downloaded_sources.scores(wider, storage, shard, "angle")["angle"]
    reds = downloaded_sources.scores(wider, storage, shard, "corner")["red"]
    assert [angle is None for angle in angles] == [red is None for red in reds]
    assert [a for a in angles if a is not None] == pytest.approx([r for r in reds if r is not None], abs=2e-3)


def test_a_scorer_of_captions_does_not_touch_the_tar(tmp_path):
    described, storage, (shard,) = downloaded_sources.downloaded(
        tmp_path, rows(4), {"given": GivenSpec(given=(1.0,) * 4)}
    )
    spec = GivenSpec(given=tuple(np.float32(n) for n in range(4)))
    described = described.model_copy(update={"scorers": {"given": spec}})
    storage.fetch(download.stage(described).item(0, ".tar")).unlink()
    Scoring(Plan.of(described), storage)(shard)
    assert downloaded_sources.scores(described, storage, shard, "given")["red"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (GivenSpec(given=(np.float32(1), np.float32("inf"), np.float32(1))), "'red' is inf at row 1"),
        (GivenSpec(given=(np.float32(1), np.float32(1))), "has 2 values for 3 pairs"),
        (GivenSpec(given=(np.float64(1),) * 3), "'red' is double, and float was promised"),
        (GivenSpec(given=("one", "two", "three")), "'red' is string, and float was promised"),
        (GivenSpec(given=(KeyError("gone"),)), "KeyError: 'gone'"),
        (GivenSpec(given=(1,), promised="green"), "promised the columns ['green'] and returned ['red']"),
        (CornerSpec(stretch=1.5), "the embedding at row 0 has norm 1.5 instead of 1"),
    ],
)
def test_what_was_not_promised_is_an_error_that_names_the_scorer(tmp_path, spec, said):
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, rows(3), {"strange": spec})
    with pytest.raises(ShardError) as error:
        Scoring(Plan.of(described), storage)(shard)
    assert str(error.value).startswith("score, shard 00000: scorer 'strange', rows 0 to 2: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not storage.done(Plan.of(described).scores["strange"].item(0, ".parquet"))


def test_the_row_of_an_error_is_the_row_of_the_shard(tmp_path):
    given = (np.float32(1), np.float32("-inf"), np.float32(1))
    described, storage, (shard,) = downloaded_sources.downloaded(
        tmp_path, rows(5, failed={0, 1}), {"strange": GivenSpec(given=given)}
    )
    with pytest.raises(ShardError, match="rows 2 to 4: .*is -inf at row 3"):
        Scoring(Plan.of(described), storage)(shard)


def test_null_is_no_score_and_nan_is_an_error(tmp_path):
    class NullSpec(FirstSpec):
        def load(self):
            return Null()

    class Null:
        embedding_dim = None

        def score(self, batch):
            return {"red": pa.array([1, None, 3], pa.float32())}

    assert downloaded_sources.scored(tmp_path / "null", rows(3), {"null": NullSpec()})["null"]["red"] == [1, None, 3]
    given = GivenSpec(given=(np.float32(1), np.float32("nan"), np.float32(3)))
    with pytest.raises(ShardError, match="scorer 'given', rows 0 to 2: .*'red' is nan at row 1"):
        downloaded_sources.scored(tmp_path / "nan", rows(3), {"given": given})


def test_damaged_tars_and_shards_that_were_not_downloaded_are_errors_of_the_shard(tmp_path):
    described, storage, shards = downloaded_sources.downloaded(
        tmp_path, rows(40), {"first": FirstSpec()}, shard_size=10
    )
    stage = download.stage(described)
    tar = storage.fetch(stage.item(0, ".tar"))
    os.truncate(tar, tar.stat().st_size // 2)
    broken = storage.fetch(stage.item(1, ".tar"))
    content = broken.read_bytes()
    start = content.index(b"\xff\xd8")
    broken.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    storage.fetch(stage.item(2, ".parquet")).unlink()
    errors = [error for _, error in local.run(lambda: Scoring(Plan.of(described), storage), shards)]
    assert "is damaged" in str(errors[0])
    assert "00000.jpg" in str(errors[1])
    assert "cannot be decoded" in str(errors[1])
    assert "was not downloaded" in str(errors[2])
    assert errors[3] is None


def test_a_picture_that_a_scorer_cannot_prepare_and_damaged_embeddings_are_errors_of_the_shard(tmp_path):
    class Refusing(Corner):
        def prepare(self, image):
            raise ZeroDivisionError("no such picture")

    class RefusingSpec(CornerSpec):
        def load(self):
            return Refusing(1)

    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, rows(3), {"refusing": RefusingSpec()})
    with pytest.raises(ShardError, match=r"scorer 'refusing' fails on 0000\d.jpg .*no such picture"):
        Scoring(Plan.of(described), storage)(shard)
    described = described.model_copy(update={"scorers": {"corner": CornerSpec()}})
    Scoring(Plan.of(described), storage)(shard)
    described = described.model_copy(update={"scorers": {"corner": CornerSpec(), "angle": AngleSpec(of="corner")}})
    stage = Plan.of(described).embeddings["corner"]
    os.truncate(storage.fetch(stage.item(0, ".npy")), 150)
    with pytest.raises(ShardError, match=r"npy cannot be read"):
        Scoring(Plan.of(described), storage)(shard)
    storage.fetch(stage.item(0, ".npy")).unlink()
    Scoring(Plan.of(described), storage)(shard)
    assert None not in downloaded_sources.scores(described, storage, shard, "angle")["angle"]


def test_the_next_shard_is_decoded_while_this_one_is_scored(tmp_path):
    prepared, waited = Counter(), []
    more = threading.Event()

    class Waiting(Corner):
        def prepare(self, image):
            prepared["pictures"] += 1
            if prepared["pictures"] > 10:
                more.set()
            return super().prepare(image)

        def score(self, batch):
            if not waited:
                waited.append(more.wait(20))
            return super().score(batch)

    class WaitingSpec(CornerSpec):
        def load(self):
            return Waiting(1)

    described, storage, shards = downloaded_sources.downloaded(
        tmp_path, rows(20), {"waiting": WaitingSpec()}, shard_size=10
    )
    assert [error for _, error in local.run(lambda: Scoring(Plan.of(described), storage), shards)] == [None, None]
    assert waited == [True]
    assert prepared["pictures"] == 20


@pytest.mark.slow
def test_only_a_few_windows_of_pictures_are_in_memory(tmp_path):
    class Prepared:
        pass

    alive, most = weakref.WeakSet(), []

    class Counting(Corner):
        def prepare(self, image):
            alive.add(made := Prepared())
            return made

        def score(self, batch):
            most.append(len(alive))
            return {
                "red": np.zeros(len(batch), np.float32),
                "embeddings": np.full((len(batch), 2, 2), np.nan, np.float32),
            }

    class CountingSpec(CornerSpec):
        def load(self):
            return Counting(1)

    tiny = [(f"http://host/{n}.jpg", str(n), downloaded_sources.picture(n, (8, 8))) for n in range(5 * WINDOW)]
    described, storage, shards = downloaded_sources.downloaded(tmp_path, tiny, {"counting": CountingSpec()}, 3 * WINDOW)
    list(local.run(lambda: Scoring(Plan.of(described), storage), shards))
    assert len(most) == 5
    assert max(most) <= 3 * WINDOW


def test_keys_name_all_that_made_a_result(tmp_path):
    scorers = {"corner": CornerSpec(), "angle": AngleSpec(of="corner")}
    described, _, _ = downloaded_sources.downloaded(tmp_path, rows(1), scorers)
    before = Plan.of(described).scores
    assert before == Plan.of(described).scores
    smaller = described.model_copy(update={"download": described.download.model_copy(update={"image_size": 64})})
    after = Plan.of(smaller).scores
    assert {name: stage.name for name, stage in after.items()} == {"corner": "scores/corner", "angle": "scores/angle"}
    assert all(after[name].key != before[name].key for name in scorers)


def test_heads_that_cannot_work_are_refused_before_anything_runs(tmp_path):
    described, _, _ = downloaded_sources.downloaded(tmp_path, rows(1), {})
    for scorers, said in [
        ({"first": FirstSpec(), "angle": AngleSpec(of="first")}, "'first' stores no embeddings"),
        ({"corner": CornerSpec(), "angle": AngleSpec(of="corner"), "more": AngleSpec(of="angle")}, "'angle' stores no"),
    ]:
        with pytest.raises(SourceError, match=said):
            Plan.of(described.model_copy(update={"scorers": scorers}))


def test_bytes_are_the_same_each_time(tmp_path):
    scorers = {"corner": CornerSpec()}
    contents = []
    for run in ("a", "b"):
        described, storage, (shard,) = downloaded_sources.downloaded(tmp_path / run, rows(20, failed={3}), scorers)
        Scoring(Plan.of(described), storage)(shard)
        stage = Plan.of(described).scores["corner"]
        found = [
            stage.item(0, ".parquet"),
            Plan.of(described).embeddings["corner"].item(0, ".npy"),
            f"{stage.folder}/key.json",
        ]
        contents.append([storage.fetch(key).read_bytes() for key in found])
    assert contents[0] == contents[1]
