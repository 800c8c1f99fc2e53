"""The map of `winnow explore`: the plane, similar pairs, and a region that becomes a filter."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import published_sources
import pytest
from headless_browser import CHROMIUM, browser
from starlette.testclient import TestClient
from test_explore import served

from pipeline.errors import ModelError
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours import plane
from pipeline.pages.explore import map_job, regions
from pipeline.pages.explore.app import app
from pipeline.pages.explore.explorer import Explorer, choices
from pipeline.pages.explore.rows import Rows
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.store.storage import Storage
from pipeline.takedown import purge
from pipeline.takedown.result import Takedown
from pipeline.upkeep.backfill import add_scorer
from pipeline.upkeep.needed import Needs

TOKEN = "a-token"
FEW = 8
"""Of sixty pictures, how many show something else: the first ones."""


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def crowds(seed=0):
    """Sixty pictures, [60, 2, 8] with their captions: the first eight about one direction, the others about another."""
    random = np.random.default_rng(seed)
    about = np.where(np.arange(60)[:, None] < FEW, np.eye(8)[0], np.eye(8)[1])
    pictures = unit(about + random.normal(0, 0.1, (60, 8)))
    return np.stack([pictures, unit(random.normal(size=(60, 8)))], axis=1).astype(np.float16)


def test_the_first_two_principal_components_are_those_of_the_svd():
    vectors = np.random.default_rng(0).normal(size=(70, 6)) * [5, 4, 1, 1, 1, 1] + 3
    told = []
    found = plane.plane(vectors.astype(np.float32), "PCA", lambda *each: told.append(each))
    left, sizes, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    theirs = left[:, :2] * sizes[:2]
    np.testing.assert_allclose(np.abs(found), np.abs(theirs), atol=1e-4)
    assert told[-1] == (1, 1)


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (4, 1)])
def test_a_plane_of_hardly_anything(shape):
    assert plane.plane(np.ones(shape, np.float16), "t-SNE", lambda *_: None).shape == (shape[0], 2)


@pytest.mark.skipif(importlib.util.find_spec("openTSNE") is None, reason="the extra map is not installed")
@pytest.mark.slow
def test_t_sne_keeps_neighbours_together_and_gives_the_same_twice():
    vectors = crowds()[:, 0]
    told = []
    found = plane.plane(vectors, "t-SNE", lambda *each: told.append(each))
    far = np.linalg.norm(found[:, None] - found, axis=2) + 1e9 * np.eye(60)
    assert ((far.argmin(axis=1) < FEW) == (np.arange(60) < FEW)).mean() > 0.95
    assert told[0] == (10, 750)
    assert told[-1] == (750, 750)
    np.testing.assert_array_equal(found, plane.plane(vectors, "t-SNE", lambda *_: None))


def test_a_region_is_centres_and_a_threshold():
    vectors = crowds()[:, 0]
    region = regions.fit(vectors, np.arange(60) < FEW)
    assert (region.recall, region.precision, len(region.centres)) == (1, 1, 1)
    similar = (vectors.astype(np.float32) @ region.centres.T).max(axis=1)
    assert ((similar >= region.threshold) == (np.arange(60) < FEW)).all()
    np.testing.assert_allclose(np.linalg.norm(region.centres, axis=1), 1, atol=1e-5)


def test_a_region_of_two_crowds_has_a_centre_for_each():
    """What is outside lies between them, so that one centre finds that first."""
    about = np.repeat(unit(np.eye(8)[[0, 0, 1]] + np.eye(8)[[0, 1, 1]]), 20, axis=0)
    vectors = unit(about + np.random.default_rng(2).normal(0, 0.03, about.shape)).astype(np.float16)
    region = regions.fit(vectors, np.arange(60) // 20 != 1)
    assert region.agreement > 0.99
    assert len(region.centres) >= 2


def listed(folder, more=""):
    return published_sources.listed(
        folder, range(60), filters=(published_sources.SHARP,), more=published_sources.recorded(folder) + more
    )


def curated(described, storage, **failed):
    ledger = published_sources.embedded(described, storage, crowds(), **failed)
    pool.run(Plan.of(described), storage, ledger, {})
    publish.publish(Plan.of(described), storage, ledger, {})
    return Manifest.open(storage)


def client_of(described, manifest, scratch):
    explorer = Explorer(Rows(manifest, scratch), choices(manifest, described.own_recipe), folder=described.path.parent)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return TestClient(app(explorer, TOKEN), base_url="http://127.0.0.1:1234", headers=headers)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    return listed(tmp_path_factory.mktemp("map"))


@pytest.fixture(scope="module")
def manifest(described):
    """Pair 59 failed. The map is stored."""
    found = curated(described, Storage(described.path.parent / "store"), failed={59})
    map_job.compute(found.storage, found.id, "recorded", plane.method(), described.path.parent / "told")
    return found


@pytest.fixture(scope="module")
def client(described, manifest):
    """No test changes its page but the one that adds a filter."""
    with manifest.storage.scratch() as scratch:
        yield client_of(described, manifest, scratch)


def post(client, what, status=200, **body):
    answer = client.post(f"/api/{what}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


DRAFT = {"filters": [published_sources.SHARP], "scorer": "recorded"}


def test_points_and_their_colours(client):
    assert client.get("/api/start").json()["maps"] == ["recorded"]
    assert post(client, "region", 400, places=[1], **DRAFT)["detail"] == "the map is not ready yet"
    shown = post(client, "map", scorer="recorded")
    assert sorted(shown["places"]) == list(range(59))
    assert shown["sampled"] is None
    assert max(*shown["x"], *shown["y"]) == 65_535
    assert min(*shown["x"], *shown["y"]) == 0
    kept = post(client, "colours", by="kept", **DRAFT)
    assert kept["names"] == ["dropped", "kept"]
    assert kept["values"] == [int(place >= 50) for place in shown["places"]]
    sharp = post(client, "colours", by="pixels_sharpness", **DRAFT)
    assert np.corrcoef(sharp["values"], shown["places"])[0, 1] > 0.99
    assert (min(sharp["values"]), max(sharp["values"])) == (0, 255)
    cluster = post(client, "colours", by="cluster", **DRAFT)
    assert set(cluster["values"]) == set(range(len(cluster["names"])))
    language = post(client, "colours", by="captions_language", **DRAFT)
    assert (language["names"], set(language["values"])) == (["en"], {0})
    assert post(client, "colours", 400, by="nothing", **DRAFT)["detail"] == "there is no score 'nothing' to colour by"


def test_pairs_like_one_by_picture_and_by_text(client):
    post(client, "map", scorer="recorded")
    found = post(client, "similar", place=3, **DRAFT)
    vectors = crowds()[:59].astype(np.float64)
    for side, name in enumerate(("picture", "text")):
        order = np.argsort(-(vectors[:, side] @ vectors[3, side]), kind="stable")
        assert [each["place"] for each in found[name]] == [place for place in order if place != 3][:12]
        assert found[name][0]["note"] == f"cosine {vectors[order[1], side] @ vectors[3, side]:.3f}"
    assert found["pair"]["caption"] == "picture number 3"
    assert "there is no pair 59: 59 pairs" in post(client, "similar", 400, place=59, **DRAFT)["detail"]


def test_a_region_becomes_a_filter_that_any_run_can_compute(client, described, manifest):
    post(client, "map", scorer="recorded")
    found = post(client, "region", places=list(range(FEW)), **DRAFT)
    assert (found["count"], found["kept"], found["recall"], found["precision"]) == (FEW, 0, 1, 1)
    made = post(client, "near", places=list(range(FEW)), name="odd", **DRAFT)
    assert made["name"] == "not-near-odd"
    assert [axis["column"] for axis in made["axes"]][-1] == "near_odd_inf"
    draft = [{key: made[key] for key in ("name", "sql", "why")}]
    answer = post(client, "funnel", filters=draft)
    assert answer["kept"] == 59 - FEW
    assert [line["column"] for line in answer["lines"]] == ["near_odd_inf"]
    edge = post(client, "pairs", filters=draft, show="edge", edge="not-near-odd")
    assert edge["count"] == 59
    refused = post(client, "publish", 400, name="mine", filters=draft)["detail"]
    assert "run `winnow score tiny --scorer near_odd`" in refused
    again = post(client, "near", 400, places=list(range(FEW)), name="odd", **DRAFT)["detail"]
    assert again == "there is a region 'odd' already: choose another name"
    text = post(client, "toml", name="mine", filters=draft)["toml"]
    own = described.path.read_text().partition("[[filters]]")[0]
    described.path.write_text(own + text)
    changed = loading.load(described.path)
    added = add_scorer(changed, manifest, "near_odd")
    for shard in added.shards:
        Scoring(added.plan, manifest.storage)(shard)
    publish.publish(added.plan, manifest.storage, added.ledger, added.quarantined)
    newest = Manifest.open(manifest.storage)
    (step,) = newest.funnel(changed.own_recipe)
    assert (step.sql, step.alone, step.unscored) == (made["sql"], 59 - FEW, 0)
    assert (
        map_job.stage(newest, "recorded", plane.method()).key == map_job.stage(manifest, "recorded", plane.method()).key
    )


def test_bad_regions(client, tmp_path):
    post(client, "map", scorer="recorded")
    nobody = "no pair is inside: draw around some points"
    assert post(client, "region", 400, places=[], **DRAFT)["detail"] == nobody
    every = "all pairs are inside: draw around fewer points, or zoom in"
    assert post(client, "region", 400, places=list(range(59)), **DRAFT)["detail"] == every
    assert post(client, "near", 422, places=[1], name="Not A Name", **DRAFT)
    unknown = "no scorer 'pixels' has stored embeddings: a map needs a clip or recorded scorer"
    assert post(client, "map", 400, scorer="pixels")["detail"] == unknown


def test_a_region_is_never_written_over_another_file(client, described):
    post(client, "map", scorer="recorded")
    (described.path.parent / "near_taken.npy").write_bytes(b"mine")
    said = post(client, "near", 400, places=[1, 2], name="taken", **DRAFT)["detail"]
    assert said.endswith("near_taken.npy exists already: choose another name")
    assert (described.path.parent / "near_taken.npy").read_bytes() == b"mine"


def test_too_few_pictures(tmp_path):
    described = listed(tmp_path)
    found = curated(described, Storage(tmp_path / "store"), failed=set(range(2, 60)))
    with pytest.raises(ModelError, match="2 pictures have an embedding of 'recorded', and a map needs 3"):
        map_job.compute(found.storage, found.id, "recorded", "PCA", tmp_path / "told")


@pytest.mark.slow
def test_a_large_pool_is_a_sample_that_its_order_does_not_change(tmp_path, monkeypatch):
    monkeypatch.setattr(map_job, "SAMPLE", 20)
    shown = []
    for name, numbers in (("one", range(60)), ("two", range(59, -1, -1))):
        (tmp_path / name).mkdir()
        described = published_sources.listed(
            tmp_path / name, numbers, filters=(), more=published_sources.recorded(tmp_path / name)
        )
        found = curated(described, Storage(tmp_path / name / "store"))
        map_job.compute(found.storage, found.id, "recorded", plane.method(), tmp_path / "told")
        with found.storage.scratch() as scratch:
            client = client_of(described, found, scratch)
            answer = post(client, "map", scorer="recorded")
        assert answer["sampled"] == len(answer["places"]) == 20
        shown.append(sorted(zip([numbers[place] for place in answer["places"]], answer["x"], answer["y"], strict=True)))
    assert shown[0] == shown[1]


@pytest.mark.slow
def test_a_source_without_embeddings_has_no_map(tmp_path):
    described = published_sources.listed(tmp_path, range(5))
    storage = Storage(tmp_path / "store")
    published_sources.published(described, storage)
    with storage.scratch() as scratch:
        client = client_of(described, Manifest.open(storage), scratch)
        assert client.get("/api/start").json()["maps"] == []


@pytest.mark.slow
def test_what_removes_a_map(tmp_path):
    described = listed(tmp_path)
    found = curated(described, Storage(tmp_path / "store"))
    map_job.compute(found.storage, found.id, "recorded", "PCA", tmp_path / "told")
    needs = Needs(found.storage, [Plan.of(described)], [found])
    assert not [each for each in needs.unneeded() if each.what.startswith("maps/")]
    (going,) = [each for each in Needs(found.storage, [], []).unneeded() if each.what.startswith("maps/")]
    assert {Path(key).name for key in going.keys} == {"map.parquet", "key.json"}
    with found.connection() as con:
        (uid,) = con.execute("SELECT uid FROM rows LIMIT 1").fetchone()
    purge.purge(found.storage, frozenset({uid}), Takedown())
    assert not found.storage.find("maps/*/map.parquet")


@pytest.mark.slow
def test_a_map_is_computed_in_the_background_once(tmp_path):
    described = listed(tmp_path)
    found = curated(described, Storage(tmp_path / "store"))
    with found.storage.scratch() as scratch:
        client = client_of(described, found, scratch)
        answer = post(client, "map", scorer="recorded")
        assert "places" not in answer
        while "places" not in answer:
            assert answer["done"] <= answer["total"]
            time.sleep(0.1)
            answer = post(client, "map", scorer="recorded")
    with found.storage.scratch() as scratch:
        assert post(client_of(described, found, scratch), "map", scorer="recorded") == answer


@pytest.mark.slow
def test_a_map_that_is_not_finished_ends_with_the_page(tmp_path):
    described = listed(tmp_path)
    found = curated(described, Storage(tmp_path / "store"))
    with found.storage.scratch() as scratch:
        job = map_job.MapJob(found, "recorded", scratch)
        assert job.table() is None
        job.close()
        with pytest.raises(ModelError, match="there is no map: a process ended with status -9"):
            job.table()
    assert not found.storage.find("maps/*/map.parquet")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_draw_a_region_and_click_a_pair(tmp_path):
    """A lasso around the points of the first eight pictures, its filter, and the pairs like one of them."""
    described = listed(tmp_path)
    found = curated(described, Storage(tmp_path / "store"))
    map_job.compute(found.storage, found.id, "recorded", plane.method(), tmp_path / "told")
    with browser(tmp_path) as tab, served(described, found.storage) as address:
        tab.open(address)
        tab.until("document.querySelectorAll('#pairs img').length")
        tab.click("#map-show")
        tab.until("!document.getElementById('map-body').hidden && document.getElementById('map-key').innerText")
        tab.run("document.getElementById('map-canvas').scrollIntoView({ block: 'center' })")
        left, top, width, height = tab.run(
            "(() => { const box = document.getElementById('map-canvas').getBoundingClientRect();"
            " return [box.left, box.top, box.width, box.height]; })()"
        )
        with found.storage.scratch() as scratch:
            shown = post(client_of(described, found, scratch), "map", scorer="recorded")
        x, y = np.array(shown["x"]), np.array(shown["y"])
        scale = min((width - 24) / x.max(), (height - 24) / y.max())
        at = np.stack(
            [left + (width - x.max() * scale) / 2 + x * scale, top + (height - y.max() * scale) / 2 + y * scale]
        )
        few = at[:, np.array(shown["places"]) < FEW]
        (x1, y1), (x2, y2) = few.min(axis=1) - 5, few.max(axis=1) + 5
        tab.mouse("mousePressed", x1, y1)
        for corner in ((x2, y1), (x2, y2), (x1, y2), (x1, y1)):
            tab.mouse("mouseMoved", *corner)
        tab.mouse("mouseReleased", x1, y1)
        tab.until("document.querySelectorAll('#lasso-pairs img').length")
        assert tab.text("#lasso-says").startswith(f"{FEW} pictures are inside, 0 kept.")
        tab.write("#near-name", "odd")
        tab.press("Enter")
        tab.until("document.getElementById('near-says').innerText.startsWith('Added the filter not-near-odd.')")
        tab.until(f"document.querySelector('#steps tr:last-child .n').innerText === '{60 - FEW}'")
        tab.until("!!document.querySelector('input[aria-label=\"near_odd_inf at most\"]')")
        tab.run("document.getElementById('map-canvas').scrollIntoView({ block: 'center' })")
        top_now = tab.run("document.getElementById('map-canvas').getBoundingClientRect().top")
        x, y = few[0, 0], few[1, 0] + top_now - top
        tab.mouse("mousePressed", x, y)
        tab.mouse("mouseReleased", x, y)
        tab.until("!document.getElementById('similar').hidden && document.querySelectorAll('#similar-text img').length")
        near = tab.run(
            "[...document.querySelectorAll('#similar-picture bdi:first-of-type')].map(each => each.innerText)"
        )
        assert sum(int(caption.split()[-1]) < FEW for caption in near if "number" in caption) == FEW - 1
        assert tab.faults == []
        tab.click("#map-select")
        tab.until("document.getElementById('error').innerText.startsWith('all pairs are inside')")
        assert tab.run("document.getElementById('lasso').hidden")
        middle = np.array([[left + width / 2], [top + height / 2]])
        strides = np.round((few.mean(axis=1, keepdims=True) - middle) * 1.5**4 / 60).ravel().astype(int)
        tab.run("document.getElementById('map-canvas').focus()")
        for key in ["+"] * 4:
            tab.press(key)
        for stride, (less, more) in zip(strides, (("ArrowLeft", "ArrowRight"), ("ArrowUp", "ArrowDown")), strict=True):
            for _ in range(abs(stride)):
                tab.press(more if stride > 0 else less)
        tab.click("#map-select")
        tab.until("/^[1-9][0-9]* pictures are inside, 0 kept/.test(document.getElementById('lasso-says').innerText)")
    centres = np.load(tmp_path / "near_odd.npy", allow_pickle=False)
    assert centres.shape[1] == 8
