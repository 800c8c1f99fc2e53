"""Text in pictures: found, read, masked, and the picture scored again without it."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

import winnow
from pipeline.demo import pool
from pipeline.errors import ModelError, SourceError
from pipeline.extras import EXTRAS, Extra, missing
from pipeline.images.text_detector import Found, TextDetector, covered, masked
from pipeline.scorers.spec import Batch
from pipeline.scorers.text import TextSpec, share_read
from pipeline.scoring.plan import Plan
from pipeline.sources import loading

needs_text = pytest.mark.skipif(bool(missing("text")), reason="the extra text is not installed")

CLIP = Path(pool.__file__).parent / "clip"
CAPTION = "a red ball on grass"


def card(*lines, colour="ivory"):
    """Lines of text on a plain ground, 128 x 128."""
    picture = Image.new("RGB", (128, 128), colour)
    pen = ImageDraw.Draw(picture)
    for row, line in enumerate(lines):
        pen.text((8, 8 + 36 * row), line, "black", ImageFont.load_default(20))
    return picture


def toy():
    """A rendered toy in which no text is found."""
    return Image.fromarray(pool.photograph(7, pool.POOL, 2))


@pytest.fixture(scope="module")
def reader():
    return TextDetector(128, recognition=True)


@needs_text
def test_each_line_is_a_box_and_is_read(reader):
    found = reader.find(np.asarray(card("a red ball", "on grass")))
    assert [line.lower() for line in found.lines] == ["a red ball", "on grass"]
    assert found.boxes.shape == (2, 4, 2)
    assert found.boxes[0, :, 1].mean() < 40 < found.boxes[1, :, 1].mean() < 80


@needs_text
def test_a_plain_picture_has_no_text(reader):
    assert not len(reader.find(np.full((90, 200, 3), 200, np.uint8)).boxes)


@needs_text
def test_many_threads_find_the_same(reader):
    from concurrent.futures import ThreadPoolExecutor

    pictures = [np.asarray(card("word " + "xyz"[number % 3])) for number in range(6)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(reader.find, pictures))
    for picture, result in zip(pictures, found, strict=True):
        assert result.lines == reader.find(picture).lines
        assert (result.boxes == reader.find(picture).boxes).all()


def test_area_counts_a_pixel_once_and_a_mask_has_the_mean_colour():
    picture = np.zeros((10, 20, 3), np.uint8)
    picture[:, 4:8] = (200, 100, 0)
    whole = [[0, 0], [7, 0], [7, 9], [0, 9]]
    found = Found(np.array([whole, [[0, 0], [3, 0], [3, 9], [0, 9]]], np.int32))
    assert covered(picture.shape, found) == pytest.approx(80 / 200)
    plain = masked(picture, Found(found.boxes[:1]))
    assert (plain[:, :8] == (100, 50, 0)).all()
    assert not plain[:, 8:].any()
    assert picture[0, 4, 0] == 200


@pytest.mark.parametrize(
    ("words", "share"), [(("a", "red", "ball", "on", "grass", "x"), 1), (("red", "ball"), 0.4), ((), 0)]
)
def test_the_share_of_caption_words_that_are_read(words, share):
    assert share_read("A red, red ball on grass!", frozenset(words)) == share
    assert share_read("?", frozenset(words)) is None


@needs_text
def test_columns_are_those_that_were_asked_for():
    plain = TextSpec(kind="text", side=128)
    assert set(plain.columns()) == {"area", "boxes"}
    full = TextSpec(kind="text", side=128, recognition=True, of="clip")
    assert set(full.columns()) == {"area", "boxes", "words_read", "masked_similarity"}
    scorer = TextSpec(kind="text", side=128, recognition=True).load()
    batch = Batch(
        ["0"] * 3, [scorer.prepare(each) for each in (card("a red ball"), card(), toy())], [CAPTION] * 3, None
    )
    columns = scorer.score(batch)
    assert columns["boxes"].tolist() == [1, 0, 0]
    assert 0.05 < columns["area"][0] < 0.4
    assert columns["area"][1:].tolist() == [0, 0]
    assert columns["words_read"].to_pylist() == pytest.approx([0.6, 0, 0])
    assert TextSpec(kind="text").identity() != TextSpec(kind="text", side=256).identity()
    assert "recogniser" in full.identity()["models"]
    assert "recogniser" not in plain.identity()["models"]


def source(folder, scorers):
    (folder / "photos").mkdir(exist_ok=True)
    file = folder / "texts.toml"
    file.write_text(f'[pairs]\nfolder = "photos"\n[scorers.clip]\nkind = "clip"\nmodel = "local-dir:{CLIP}"\n{scorers}')
    return file


@pytest.mark.parametrize(
    ("scorers", "error"),
    [
        (
            '[scorers.captions]\nkind = "captions"\n[scorers.text]\nkind = "text"\nof = "captions"\n',
            "scorers.text.of: 'captions' is of kind captions; name a clip scorer, which scores again",
        ),
        (
            '[scorers.text]\nkind = "text"\nof = "clop"\n',
            "scorers.text: there is no scorer 'clop'",
        ),
    ],
)
@needs_text
def test_a_model_that_cannot_score_again_is_refused(tmp_path, scorers, error):
    with pytest.raises(SourceError) as caught:
        Plan.of(loading.load(source(tmp_path, scorers)))
    assert error in str(caught.value)


@needs_text
def test_the_key_has_the_model_that_scores_again(tmp_path):
    text = '[scorers.text]\nkind = "text"\nof = "clip"\n'
    plans = [
        Plan.of(loading.load(source(tmp_path, scorers)))
        for scorers in (text, "sigmoid = false\nbatch = 8\n" + text, text.replace('of = "clip"\n', ""))
    ]
    assert len({plan.scores["text"].key for plan in plans}) == 3
    assert plans[0].scores["clip"].key == plans[2].scores["clip"].key


def test_without_the_extra_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRAS, "text", Extra("text", ("no_such_module",)))
    file = source(tmp_path, '[scorers.text]\nkind = "text"\n')
    card("words").save(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "a.txt").write_text("words")
    with pytest.raises(ModelError) as caught:
        winnow.curate(file, tmp_path / "root")
    text = 'the scorer text needs the extra text (no_such_module not installed): uv pip install -e ".[text]"'
    assert str(caught.value).endswith(text)
    assert not [path for path in Path(tmp_path / "root").rglob("*") if path.suffix in (".tar", ".parquet")]


@needs_text
@pytest.mark.slow
def test_the_filter_of_the_demo_finds_written_captions_and_watermarks_and_few_others():
    planned = pool.plan(7, 600, pool.POOL)
    detector = TextDetector(128, recognition=False)
    dropped = {}
    for label in ("written", "watermarked", "clean"):
        numbers = sorted({line.picture for line in planned.lines if line.label == label})[:18]
        pictures = [
            Image.open(BytesIO(pool.file(7, number, planned.shots[number]))).convert("RGB") for number in numbers
        ]
        dropped[label] = np.mean([len(detector.find(np.asarray(picture)).boxes) > 1 for picture in pictures])
    assert dropped["written"] > 0.7
    assert dropped["watermarked"] > 0.6
    assert dropped["clean"] < 0.1


@needs_text
@pytest.mark.slow
def test_the_whole_job_scores_again_and_t_mars_keeps_the_better_half(tmp_path):
    scorers = '[scorers.text]\nkind = "text"\nside = 128\nrecognition = true\nof = "clip"\n'
    file = source(tmp_path, scorers)
    captions = pool.captions(7, pool.POOL, 2, 2)
    written = {"card": (card("a red ball", "on grass"), CAPTION), "toy": (toy(), captions[0])}
    for name, (picture, caption) in written.items():
        picture.save(tmp_path / "photos" / f"{name}.jpg", quality=95)
        (tmp_path / "photos" / f"{name}.txt").write_text(caption)
    manifest = winnow.curate(file, tmp_path / "root")
    rows = {row["url"].rpartition("/")[2]: row for row in manifest.sql("SELECT * FROM rows").to_pylist()}
    lettered, plain = rows["card.jpg"], rows["toy.jpg"]
    assert (lettered["text_boxes"], plain["text_boxes"]) == (2, 0)
    assert lettered["text_words_read"] == 1
    assert plain["text_masked_similarity"] == pytest.approx(plain["clip_similarity"], abs=1e-5)
    assert abs(lettered["text_masked_similarity"] - lettered["clip_similarity"]) > 1e-3
    kept = manifest.select("t-mars-like", ["uid"])["uid"].to_pylist()
    assert kept == [plain["uid"]]
