"""The scorers without a model: pixels and captions; and weights that are fetched."""

import hashlib
import io
import json
import os
from pathlib import Path

import downloaded_sources
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageFilter

from pipeline.demo import pool
from pipeline.errors import ModelError
from pipeline.images.limits import Limits
from pipeline.images.sandbox import Decoders
from pipeline.models.pinned import fetch
from pipeline.scenes import rendering
from pipeline.scorers.captions import MARKS, CaptionsSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.scorers.spec import Batch
from pipeline.scorers.words import WordsSpec

DATA = Path(os.environ.get("WINNOW_DATA", "/nowhere"))


def pixels(*pictures, uploaded=None):
    """The columns of the pictures, which were uploaded with this size, by default their own."""
    scorer = PixelsSpec(kind="pixels").load()
    sizes = [uploaded or each.size for each in pictures]
    extra = pa.table({"width": [width for width, _ in sizes], "height": [height for _, height in sizes]})
    return scorer.score(Batch([""] * len(pictures), [scorer.prepare(each) for each in pictures], (), extra))


def captions(*texts):
    return CaptionsSpec(kind="captions").load().score(Batch([""] * len(texts), (), texts, None))


def bears(caption):
    """The names of the marks of a caption."""
    found = captions(caption)
    return [name for name in MARKS if found[name][0]]


def encoded(picture, quality):
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return data.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


def jpeg(picture, quality):
    return opened(encoded(picture, quality))


def checkers(size, square):
    grid = np.indices((size[1], size[0])).sum(axis=0) // square % 2 * 255
    return Image.fromarray(grid.astype(np.uint8)).convert("RGB")


def test_every_scorer_returns_what_it_promised(tmp_path):
    rows = [(f"http://host/{n}.jpg", f"a caption {n}", downloaded_sources.picture(n)) for n in range(5)]
    specs = {"pixels": PixelsSpec(kind="pixels"), "captions": CaptionsSpec(kind="captions")}
    found = downloaded_sources.scored(tmp_path, rows, specs)
    for name, spec in specs.items():
        assert set(found[name]) == {"uid", *spec.columns()}
        assert all(value is not None for column in found[name].values() for value in column)
        assert json.loads(json.dumps(spec.identity())) == spec.identity()


def test_brightness_is_the_mean_luma():
    found = pixels(*(Image.new("RGB", (50, 40), colour) for colour in ("black", "white", (255, 0, 0), (0, 255, 0))))
    assert found["brightness"] == pytest.approx([0, 255, 76, 150], abs=1)


def test_contrast_and_entropy_are_those_of_the_grey_levels():
    halves = Image.fromarray(np.repeat([[100], [200]], 30, axis=0).repeat(40, axis=1).astype(np.uint8)).convert("RGB")
    levels = Image.fromarray(np.arange(256, dtype=np.uint8).repeat(16).reshape(64, 64)).convert("RGB")
    found = pixels(halves, levels, Image.new("RGB", (30, 30), "red"))
    assert found["contrast"] == pytest.approx([50, np.std(np.arange(256)), 0])
    assert found["entropy"] == pytest.approx([1, 8, 0])


def test_colourfulness_is_that_of_hasler_and_suesstrunk():
    stripes = np.zeros((20, 20, 3), np.uint8)
    stripes[::2], stripes[1::2] = (200, 50, 30), (20, 90, 240)
    found = pixels(Image.fromarray(stripes), Image.new("RGB", (9, 9), "grey"), Image.new("RGB", (9, 9), "yellow"))
    opponents = np.array([[200 - 50, 20 - 90], [(200 + 50) / 2 - 30, (20 + 90) / 2 - 240]])
    expected = np.linalg.norm(opponents.std(axis=1)) + 0.3 * np.linalg.norm(opponents.mean(axis=1))
    assert found["colourfulness"] == pytest.approx([expected, 0, 0.3 * 255])


def test_border_is_the_share_of_plain_bands():
    noise = np.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    whole = Image.fromarray(noise)
    letterbox, frame = Image.new("RGB", (80, 108)), Image.new("RGB", (100, 120), (250, 251, 250))
    letterbox.paste(whole, (0, 24))
    frame.paste(whole, (10, 50))
    halves = Image.fromarray(np.repeat([[100], [200]], 30, axis=0).repeat(40, axis=1).astype(np.uint8)).convert("RGB")
    found = pixels(whole, letterbox, jpeg(letterbox, 60), frame, Image.new("RGB", (50, 40), "white"), halves)["border"]
    assert found == pytest.approx([0, 48 / 108, 48 / 108, 1 - 60 * 80 / (100 * 120), 1, 1], abs=0.05)  # colour bleeds


def test_sharpness_falls_with_blur_and_does_not_depend_on_the_stored_size():
    sharp = checkers((448, 336), 16)
    blurred = [sharp.filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 2, 6)]
    found = pixels(*blurred, Image.new("RGB", (300, 300), "grey"))["sharpness"]
    assert found[0] > 4 * found[1] > 16 * found[2] > 0
    assert found[3] == 0
    doubled = pixels(sharp.resize((896, 672), Image.Resampling.BICUBIC))["sharpness"][0]
    assert doubled == pytest.approx(found[0], rel=0.3)  # measured as they are, the two differ fourfold


@pytest.mark.parametrize(("side", "least"), [(rendering.SIZE, 0.999), (rendering.SIZE * 3 // 4, 0.97)])
def test_blockiness_tells_compressed_uploads_although_they_are_stored_anew(side, least):
    random = np.random.default_rng(5)
    photographs = [Image.fromarray(pool.photograph(11, pool.CALIBRATION, number)) for number in range(24)]
    found = []
    with Decoders(Limits(side, 95, 10**6)) as decoder:
        for lowest, highest in ((3, 12), (82, 96)):
            uploads = [encoded(each, int(random.integers(lowest, highest + 1))) for each in photographs]
            stored = [opened(decoder.decode(upload).jpeg) for upload in uploads]
            found.append(pixels(*stored, uploaded=photographs[0].size)["blockiness"])
    bad, good = found
    assert (bad[:, None] > good).mean() >= least  # the area under the ROC curve
    assert (good < 1.6).all()
    if side == rendering.SIZE:
        assert (bad > 1.6).all()


def test_blockiness_knows_where_the_blocks_of_the_upload_are():
    random = np.random.default_rng(4)
    blocks = random.integers(0, 256, (20, 30), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    mosaic = Image.fromarray(blocks).convert("RGB")
    noise = Image.fromarray(random.integers(0, 256, (160, 240), dtype=np.uint8)).convert("RGB")
    half = mosaic.resize((120, 80), Image.Resampling.BOX)
    found = pixels(mosaic, noise, mosaic.crop((4, 4, 240, 160)), half, Image.new("RGB", (64, 64)))["blockiness"]
    assert found[0] > 50
    assert found[1] == pytest.approx(1, abs=0.02)
    assert found[2] < 1  # all steps are off the grid
    assert found[4] == 1
    assert pixels(half, uploaded=mosaic.size)["blockiness"][0] > 50
    assert pixels(half, uploaded=(1920, 1280))["blockiness"][0] == 1  # blocks of half a pixel


def test_strips_and_single_pixels_are_measured_too():
    found = pixels(Image.new("RGB", (1, 5000), "white"), Image.new("RGB", (5000, 1)), Image.new("RGB", (1, 1), "red"))
    assert len(set(found.pop("digest").to_pylist())) == 3
    for name, values in found.items():
        assert np.isfinite(values).all(), name
    assert found["border"].tolist() == found["blockiness"].tolist() == [1, 1, 1]


def test_phash_finds_copies():
    one, other = (downloaded_sources.picture(n, (200, 150)) for n in (1, 2))
    copy = one.resize((130, 100)).filter(ImageFilter.GaussianBlur(0.5))
    hashes = [int(value) for value in pixels(one, copy, other)["phash"]]
    assert (hashes[0] ^ hashes[1]).bit_count() <= 6
    assert (hashes[0] ^ hashes[2]).bit_count() >= 16


def test_length_words_and_how_often_they_come():
    found = captions("Two dogs, two cats", "", "dog dog dog dog", "雪の中", "a man in a hat and a man in a cap", "- !")
    assert found["length"].tolist() == [18, 0, 15, 3, 33, 3]
    assert found["words"].tolist() == [4, 0, 4, 1, 11, 2]
    assert found["type_token_ratio"].to_pylist() == [pytest.approx(3 / 4), None, 1 / 4, 1, pytest.approx(6 / 11), None]
    assert found["repetition"].to_pylist() == [0, None, pytest.approx(2 / 3), 0, pytest.approx(3 / 10), None]


def test_separators_are_counted_per_word():
    found = captions("toy, sale | shop; cheap", "a dog, a cat and a bird", "two dogs", "| - |")
    assert found["separators"].to_pylist() == [3 / 4, pytest.approx(1 / 7), 0, None]


def test_digits_are_a_share_of_what_is_printed():
    found = captions("0.5", "4 dogs", "a dog", "12 345", " ")
    assert found["digits"].to_pylist() == [pytest.approx(2 / 3), pytest.approx(1 / 5), 0, 1, None]


@pytest.mark.parametrize(
    ("caption", "mark"),
    [
        ("IMG_2041.JPG", "file_name"),
        ("DSC00321", "file_name"),
        ("photo 12", "file_name"),
        ("blue-sofa-large.png", "file_name"),
        ("Thumbnail", "boilerplate"),
        ("No image available", "boilerplate"),
        ("more at https://example.org/x", "url"),
        ("www.example.org", "url"),
        ("seen on CuteDogs.com", "url"),
        ("Red dress $19.99", "price"),
        ("Rotes Kleid 19,99 €", "price"),
        ("red dress, USD 20", "price"),
        ("Buy now: red dress", "boilerplate"),
        ("red dress - free shipping", "boilerplate"),
        ("red dress 50% off", "boilerplate"),
        ("Click to enlarge", "boilerplate"),
        ("image 12 of 20", "boilerplate"),
        ("Red dress - photo 3 of 9", "boilerplate"),
        ("Slide 5 / 18", "boilerplate"),
        ("red dress, stock photo", "boilerplate"),
        ("You may also like", "boilerplate"),
        ("Please enable JavaScript to view this picture", "boilerplate"),
        ("Royalty-free vector", "boilerplate"),
        ("no description available", "boilerplate"),
        ("Picture not found", "boilerplate"),
        ("<b>red</b> dress", "markup"),
        ("salt &amp; pepper", "markup"),
        ("{{product.title}}", "markup"),
    ],
)
def test_captions_that_describe_nothing_are_marked(caption, mark):
    assert bears(caption) == [mark]


@pytest.mark.parametrize(
    "caption",
    [
        "A black dog is running after a white dog in the snow .",
        "2 dogs play with 3 balls",
        "a photo of a 1967 Ford Mustang",
        "person at the premiere of film at cinema , 2014 .",
        "a man reads the image of a saint",
        "Salt & pepper shakers on a table",
        "Dr. Smith stands at the P4 sign",
        "A logo on a red wall",
        "雪の中で黒い犬が白い犬を追いかけている。",
        "a stock of 20 bottles",
        "a euro coin beside 5 apples",
        "a photo of 2 of 3 dogs",
        "no picture hangs on the wall",
        "a couple share a milkshake",
    ],
)
def test_descriptions_are_not_marked(caption):
    assert bears(caption) == []


def test_language_of_one_line_and_of_none():
    found = captions(
        "A dog runs\nover the wide green field", "Ein Hund läuft\r\nüber die grüne Wiese", " \n ", "A BIG DOG RUNS"
    )
    assert found["language"].to_pylist() == ["en", "de", None, "en"]
    confidence = found["language_confidence"].to_pylist()
    assert min(confidence[:2]) > 0.8
    assert confidence[2] is None


def test_words_of_a_list(tmp_path):
    (tmp_path / "words.txt").write_text("Dog\n\nfox terrier\nball\nh\u00e9ron\n")
    spec = WordsSpec.model_validate({"kind": "words", "file": "words.txt"}, context={"folder": tmp_path})
    texts = ["A DOG, a dog!", "the dog's ball", "ball and dog", "fox terrier", "un H\u00c9RON", "", "doghouse"]
    found = spec.load().score(Batch([""] * len(texts), (), texts, None))
    assert found["count"].tolist() == [1, 1, 2, 0, 1, 0, 0]
    before = spec.identity()
    spec.file.write_text("fox terrier\n")
    assert spec.identity() != before
    folder = WordsSpec.model_validate({"kind": "words", "file": ""}, context={"folder": tmp_path})
    with pytest.raises(ModelError, match="cannot be read: Is a directory; name a file of words"):
        folder.identity()
    with pytest.raises(ModelError, match="has no words"):
        spec.load()


def test_language_does_not_depend_on_other_captions():
    texts = ["Un chien court dans la neige", "A dog runs through the snow", "Черная собака бежит"]
    together = captions(*texts)["language_confidence"]
    assert [captions(text)["language_confidence"][0] for text in texts] == list(together)


@pytest.mark.skipif(not DATA.is_dir(), reason="WINNOW_DATA names no folder of real data")
def test_language_equals_the_golden_values():
    cases = json.loads((DATA / "text" / "golden.json").read_text())["cases"]
    found = captions(*(case["text"] for case in cases))
    for n, case in enumerate(cases):
        if case["text"].isupper():  # capitals are lower-cased first, since fastText takes them for Japanese
            continue
        assert f"__label__{found['language'][n]}" == case["label"]
        assert found["language_confidence"][n].as_py() == pytest.approx(case["probability"], abs=0.01)


def test_weights_are_fetched_once_and_checked_each_time(httpserver_folder, tmp_path, monkeypatch):
    folder, address = httpserver_folder
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = b"weights" * 1000
    (folder / "head.safetensors").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    url = f"{address}/head.safetensors?download=true"
    path = fetch(url, digest)
    assert path.name == "head.safetensors"
    assert path.read_bytes() == content
    (folder / "head.safetensors").unlink()
    assert fetch(url, digest) == path
    path.write_bytes(b"changed")
    with pytest.raises(ModelError, match="404.*or name a local file"):
        fetch(url, digest)
    (folder / "head.safetensors").write_bytes(b"something else")
    with pytest.raises(ModelError, match="has sha256 .*: it was changed"):
        fetch(url, digest)
    assert path.read_bytes() == b"changed"
    (folder / "head.safetensors").write_bytes(content)
    assert fetch(url, digest).read_bytes() == content
    assert [each.name for each in path.parent.iterdir()] == ["head.safetensors"]
