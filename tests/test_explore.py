"""`winnow explore`: what its server answers, whom, and what a person does with the page in a real browser."""

import io
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import contextmanager

import numpy as np
import published_sources
import pyarrow as pa
import pytest
from headless_browser import CHROMIUM, browser
from PIL import Image
from starlette.testclient import TestClient

from filters.core import Distinct, Filter, Recipe
from pipeline.errors import QueryError, StorageError
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.pages.explore import publishing
from pipeline.pages.explore.app import app, listening
from pipeline.pages.explore.decisions import Decisions
from pipeline.pages.explore.explorer import Explorer, choices
from pipeline.pages.explore.histograms import Histograms
from pipeline.pages.explore.recipe_text import handle, toml
from pipeline.pages.explore.rows import Rows
from pipeline.review.calibrate import Labelled
from pipeline.review.labels import GOOD, KEY, Labels
from pipeline.sources import loading
from pipeline.store.storage import Storage

TOKEN = "a-token"
DUPLICATES = '[scorers.duplicates]\nkind = "duplicates"\nradius = 2\n'
OWNED = 'document.title = "owned"'
HOSTILE = [
    f"<script>{OWNED}</script>",
    f"<img src=x onerror='{OWNED}'>",
    f"\"><svg onload='{OWNED}'>",
    "a \u202egnp.exe turned around \x00",
    "long " * 300,
]


def sent(*filters):
    return [{"name": name, "sql": sql} for name, sql in filters]


SHARP, WORDED = (tuple(each.values()) for each in (published_sources.SHARP, published_sources.WORDED))


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    rows = [(caption, f"javascript:{OWNED}//{90 + number}.jpg") for number, caption in enumerate(HOSTILE)]
    folder = tmp_path_factory.mktemp("explore")
    return published_sources.listed(
        folder, range(30, 80), (published_sources.SHARP, published_sources.WORDED), rows=rows, more=DUPLICATES
    )


@pytest.fixture(scope="module")
def manifest(described):
    store = Storage(described.path.parent / "root" / "tiny")
    published_sources.published(described, store, {2: "gone"}, failed={45}, unscored={63, 64})
    return Manifest.open(store)


@pytest.fixture(scope="module")
def rows(manifest):
    with manifest.storage.scratch() as scratch:
        held = Rows(manifest, scratch)
        yield held
        held.close()


@pytest.fixture(scope="module")
def client(rows, described):
    explorer = Explorer(rows, choices(rows.manifest, described.own_recipe))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return TestClient(app(explorer, TOKEN), base_url="http://127.0.0.1:1234", headers=headers)


def post(client, what, status=200, **body):
    answer = client.post(f"/api/{what}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


RECIPES = [
    [],
    [SHARP, WORDED],
    [("a", "pixels_sharpness >= 46.3"), ("b", "pixels_sharpness <= 70"), ("c", "width > 333.25")],
    [("a", "pixels_sharpness >= (SELECT quantile_cont(pixels_sharpness, 0.3) FROM rows)"), WORDED],
    [SHARP, ("b", "width >= (SELECT quantile_cont(width, 0.5) FROM rows WHERE {rest})")],
    [("a", "caption LIKE '%7'"), ("b", "NOT captions_url"), ("c", "status = 'ok'"), ("d", "captions_language = 'en'")],
]


@pytest.mark.parametrize("last", [None, Distinct(1, "pixels_sharpness"), Distinct(2, "-length(caption)")])
@pytest.mark.parametrize("filters", RECIPES)
def test_counts_are_those_of_publishing_it(rows, filters, last):
    recipe = Recipe("any", tuple(Filter(*each) for each in filters), last)
    decisions = Decisions(rows)
    assert decisions.funnel(recipe) == rows.manifest.funnel(recipe)
    assert np.count_nonzero(decisions.kept(recipe)) == len(rows.manifest.select(recipe))


def test_what_the_end_of_a_recipe_drops_says_so(client):
    last = {"radius": 0, "best_by": "width"}
    every = post(client, "funnel", filters=[], distinct=last)
    assert [step["filter"] for step in every["steps"]] == ["distinct"]
    told = look(client, show="dropped", distinct=last | {"radius": 2}, filters=[])
    assert told["count"] > 10
    pair = post(client, "pair", filters=sent(WORDED), distinct=last | {"radius": 2}, place=told["pairs"][0]["place"])
    assert pair["filters"][-1]["name"] == "distinct"
    assert pair["filters"][-1]["says"] == "drops"
    too_far = post(client, "funnel", 400, filters=[], distinct=last | {"radius": 3})["detail"]
    assert "neighbours were looked for up to 2" in too_far
    assert "0 to 64" in post(client, "funnel", 400, filters=[], distinct=last | {"radius": 65})["detail"]
    bad = post(client, "funnel", 400, filters=[], distinct=last | {"best_by": "no_such"})["detail"]
    assert "there is no column 'no_such'" in bad


def test_counts_at_random_thresholds_are_those_of_duckdb(tmp_path):
    """A float32 column whose values are the very numbers that are compared with: nothing is rounded to another side."""
    store = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path, range(300), filters=(), shard_size=300), store)
    found = Manifest.open(store)
    with store.scratch() as scratch, found.connection() as con:
        held = Rows(found, scratch)
        decisions = Decisions(held)
        for number in np.random.default_rng(1).choice(300, 6, replace=False):
            sql = f"pixels_sharpness / 1000 >= {number / 1000}"
            ((counted,),) = con.execute(f"SELECT count(*) FILTER ({sql}) FROM rows").fetchall()
            assert decisions.funnel(Recipe("a", (Filter("a", sql),)))[0].alone == counted
            plain = Filter("b", f"pixels_sharpness >= {number}")
            assert decisions.funnel(Recipe("b", (plain,)))[0].alone == 300 - number
        held.close()


def test_histograms_hold_the_kept_pairs_wherever_the_slider_was_before(rows, manifest):
    decisions, histograms = Decisions(rows), Histograms(rows)
    totals = histograms.totals()
    for least in (50, 51, 30, 90, 40, 41, 42, 0):
        recipe = Recipe("a", (Filter("a", f"pixels_sharpness >= {least}"),))
        told = histograms.of(decisions.kept(recipe))
        with manifest.connection() as con:
            for axis in rows.axes:
                counted = con.execute(
                    f"SELECT {axis.bin} AS bin, count(*) FILTER (pixels_sharpness >= {least}), count(*) FROM rows "
                    "WHERE status = 'ok' AND bin IS NOT NULL GROUP BY bin"
                ).fetchall()
                assert {bin_: (told[axis.column][bin_], totals[axis.column][bin_]) for bin_, _, _ in counted} == {
                    bin_: (kept, every) for bin_, kept, every in counted
                }
                assert sum(totals[axis.column]) == axis.count


def test_a_bad_filter_is_one_line_with_its_name(client):
    told = post(client, "funnel", 400, filters=sent(SHARP, ("mine", "pixels_sharpnes > 3")))["detail"]
    assert told == "filter 'mine': there is no column 'pixels_sharpnes'; did you mean 'pixels_sharpness'?"
    assert "differs each time" in post(client, "funnel", 400, filters=sent(("r", "random() < 0.5")))["detail"]
    assert "fails on a row" in post(client, "funnel", 400, filters=sent(("c", "caption::INTEGER > 3")))["detail"]
    assert "two filters called 'sharp'" in post(client, "funnel", 400, filters=sent(SHARP, SHARP))["detail"]
    assert "use lower-case letters" in post(client, "funnel", 400, filters=sent(("A b", "true")))["detail"]
    post(client, "funnel", 422, filters=[], more=1)
    post(client, "funnel", 422, filters=sent(("long", "x" * 10_001)))
    outside = sent(("o", "EXISTS (FROM read_csv('/etc/passwd'))"))
    assert "a filter reads rows and nothing else" in post(client, "funnel", 400, filters=outside)["detail"]


def test_sql_that_never_ends_is_stopped(manifest):
    with manifest.storage.scratch() as scratch:
        held = Rows(manifest, scratch, deadline=0.3)
        decisions = Decisions(held)
        many = ", ".join(f"rows r{number}" for number in range(8))
        with pytest.raises(QueryError, match="stopped after 0.3 s"):
            decisions.funnel(Recipe("long", (Filter("long", f"(SELECT count(*) FROM {many}) > 3"),)))
        assert decisions.funnel(Recipe("short", (Filter(*SHARP),)))[0].alone > 0
        held.close()


ROUTES = ["start", "picture?shard=0&member=00000.jpg", "funnel", "pairs", "pair", "label", "toml", "publish"]


@pytest.mark.parametrize("route", ROUTES)
def test_nobody_without_the_token(client, route):
    for headers in ({"Authorization": ""}, {"Authorization": "Bearer a-toke"}, {"Authorization": "Bearer ü"}):
        encoded = {name: value.encode() for name, value in headers.items()}
        answer = client.request("GET" if route in ROUTES[:2] else "POST", f"/api/{route}", headers=encoded, json={})
        assert answer.status_code == 401
        assert "pairs" not in answer.text
    assert client.get(f"/api/{route}", params={"token": TOKEN}, headers={"Authorization": ""}).status_code != 200


def test_no_other_name_and_no_other_origin(client):
    for host in ("evil.example", "evil.example:1234", "127.0.0.1.evil.example", "169.254.169.254"):
        assert client.get("/api/start", headers={"Host": host}).status_code == 400
        assert client.get("/", headers={"Host": host}).status_code == 400
    for host in ("localhost:8000", "127.0.0.1"):
        assert client.get("/api/start", headers={"Host": host}).status_code == 200
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (client.options("/api/publish", headers=asked), client.get("/api/start", headers=asked)):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/api/publish", headers=asked).status_code == 405


def test_the_page_is_its_own_files_under_a_strict_policy(client):
    for path in ("/", "/page.js", "/page.css", "/api/start", "/api/none", "/none"):
        headers = client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert (headers["referrer-policy"], headers["x-content-type-options"]) == ("no-referrer", "nosniff")
        assert "set-cookie" not in headers
    page = client.get("/").text
    assert not re.search(r"https?://|<script>|<style|\son\w+=|\sstyle=|<a\b", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", client.get("/page.js").text)
    assert client.get("/../app.py").status_code == 404
    assert client.get("/docs").status_code == client.get("/openapi.json").status_code == 404


def look(client, **asked):
    body = {"filters": sent(SHARP, WORDED), "show": "kept"} | asked
    return post(client, "pairs", **body)


def test_pairs_kept_dropped_and_of_one_of_two_recipes(client, manifest):
    with manifest.connection() as con:
        found = con.execute("SELECT kept, list(caption) FROM rows WHERE status = 'ok' GROUP BY kept").fetchall()
    published = {kept: {" ".join(each.split())[:20] for each in captions} for kept, captions in found}
    for show, kept in (("kept", True), ("dropped", False)):
        told = look(client, show=show)
        assert told["count"] == len(published[kept])
        assert len(told["pairs"]) == min(24, told["count"])
        assert all(pair["kept"] is kept for pair in told["pairs"])
    other = {"filters": sent(("wide", "width >= 700"))}
    this, that = (look(client, show=show, other=other) for show in ("only_this", "only_other"))
    scored = set(range(60, 70)) - {63, 64}
    assert {pair["caption"] for pair in this["pairs"]} == {f"picture number {number}" for number in scored}
    assert all(pair["kept"] for pair in this["pairs"])
    assert not any(pair["kept"] for pair in that["pairs"])
    sides = post(client, "funnel", filters=sent(SHARP, WORDED), other=other)["sides"]
    assert (sides["this"], sides["other"]) == (this["count"], that["count"])
    assert sum(sides.values()) == manifest.counts.pool


def test_another_seed_shows_others_and_the_same_seed_the_same(client):
    first, again, other = (look(client, show="all", seed=seed)["pairs"] for seed in (0, 0, 1))
    assert first == again
    assert first != other
    rest = look(client, show="all", seed=0, start=24)["pairs"]
    assert not {pair["place"] for pair in first} & {pair["place"] for pair in rest}


def test_pairs_at_the_line_lie_on_both_sides_of_it(client):
    told = look(client, show="edge", edge="sharp", filters=sent(("sharp", "pixels_sharpness >= 47.5"), WORDED))["pairs"]
    values = [float(pair["note"]) for pair in told]
    assert values == sorted(values)
    assert {47.0, 48.0} <= set(values)
    assert [pair["kept"] for pair in told] == [value >= 47.5 for value in values]
    asked = {"filters": sent(("w", "captions_language = 'en'")), "show": "edge", "edge": "w"}
    assert "has no threshold" in post(client, "pairs", 400, **asked)["detail"]


def test_pairs_with_a_text_in_caption_or_url(client):
    assert look(client, show="all", text="NUMBER 7")["count"] == 10
    assert look(client, show="all", text="host/71.jpg")["count"] == 1
    assert look(client, show="all", text="100%_")["count"] == 0
    assert look(client, show="kept", text="number 31")["count"] == 0


def test_one_pair_with_all_its_scores_and_who_drops_it(client):
    (pair,) = look(client, show="all", text="host/63.jpg")["pairs"]
    told = post(client, "pair", filters=sent(SHARP, ("wide", "width < 100")), place=pair["place"])
    assert [each["says"] for each in told["filters"]] == ["no score", "drops"]
    (pair,) = look(client, show="all", text="host/71.jpg")["pairs"]
    told = post(client, "pair", filters=sent(SHARP, WORDED), place=pair["place"])
    assert {"pixels_sharpness": "71", "width": "710", "status": "ok"}.items() <= dict(told["columns"]).items()
    assert [each["says"] for each in told["filters"]] == ["passes", "passes"]
    assert "there is no pair 999" in post(client, "pair", 400, filters=[], place=999)["detail"]


def test_pictures_come_out_of_the_tars(client):
    pair = look(client, show="all", text="host/71.jpg")["pairs"][0]
    answer = client.get("/api/picture", params={"shard": pair["shard"], "member": pair["member"]})
    assert answer.headers["content-type"] == "image/jpeg"
    shown = Image.open(io.BytesIO(answer.content)).convert("RGB").getpixel((9, 9))
    stored = Image.open(io.BytesIO(published_sources.jpeg(71))).convert("RGB").getpixel((9, 9))
    assert max(abs(one - other) for one, other in zip(shown, stored, strict=True)) < 12
    for where in ({"member": "../../log/00000000.json"}, {"member": "99999.jpg"}, {"shard": 99}):
        assert client.get("/api/picture", params={"shard": 0, "member": "x"} | where).status_code == 404


def test_what_strangers_wrote_comes_as_plain_text(client):
    told = look(client, show="all", text="gnp.exe")["pairs"][0]
    assert told["caption"] == "a gnp.exe turned around"
    assert len(look(client, show="all", text="long long")["pairs"][0]["caption"]) == 240


def test_recipes_to_start_from_are_those_that_bind(client):
    told = post_start(client)
    names = {each["name"]: each["origin"] for each in told["recipes"]}
    assert names["tiny"] == "published"
    assert names["everything"] == "named"
    assert "clip-top30" not in names
    assert {"pixels_sharpness", "width", "captions_words"} <= {each["column"] for each in told["axes"]}


def post_start(client):
    return client.get("/api/start").json()


@pytest.mark.parametrize(
    ("sql", "parts"),
    [
        ("clip_similarity >= 0.28", ("clip_similarity", "0.28", "", False, True)),
        (' "Width"<1e3 ', ("Width", "1e3", "", False, False)),
        (
            "a >= (SELECT quantile_cont(a, 0.7) FROM rows)",
            ("a", "0.7", ") FROM rows)", True, True),
        ),
        ("a > (SELECT quantile_cont(a, .7) FROM rows WHERE {rest})", None),
        (
            "a > (SELECT quantile_cont(a, 0.7) FROM rows WHERE {rest})",
            ("a", "0.7", ") FROM rows WHERE {rest})", True, True),
        ),
        ("a >= (SELECT quantile_cont(b, 0.7) FROM rows)", None),
        ("a >= 3 AND b < 2", None),
    ],
)
def test_the_handle_of_a_filter_is_its_one_number(sql, parts):
    found = handle(sql)
    if parts is None:
        assert found is None
    else:
        assert parts == tuple(found[name] for name in ("column", "number", "after", "share", "keeps_high"))
        assert found["before"] + found["number"] + found["after"] == sql.strip()


def test_the_toml_is_what_a_source_file_takes(tmp_path, described):
    filters = (
        Filter("sharp", "pixels_sharpness >= 46.5", 'it\'s "sharp"\\'),
        Filter("odd", 'caption <> \'ü😀\x7f\x01\n\t"""\''),
    )
    recipe = Recipe("tiny", filters, Distinct(2, 'least(width, "height")'))
    before = described.path.read_text().partition("[[filters]]")[0]
    (tmp_path / "tiny.tsv").write_text("a\thttp://b\n")
    (tmp_path / "tiny.toml").write_text(before + toml(recipe))
    assert loading.load(tmp_path / "tiny.toml").own_recipe == recipe
    (tmp_path / "tiny.toml").write_text(toml(Recipe("none")) + before)
    assert loading.load(tmp_path / "tiny.toml").own_recipe.filters == ()


@pytest.fixture
def own(tmp_path):
    """A source of its own to publish and label in: its file and its storage."""
    described = published_sources.listed(tmp_path / "lists", range(40, 70))
    store = Storage(tmp_path / "root" / "tiny")
    published_sources.published(described, store)
    return described, store


@contextmanager
def explored(described, store, labeller="explore"):
    with store.scratch() as scratch:
        held = Rows(Manifest.open(store), scratch)
        yield TestClient(
            app(Explorer(held, choices(held.manifest, described.own_recipe), labeller), TOKEN),
            base_url="http://127.0.0.1",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        held.close()


@pytest.mark.slow
def test_an_explored_recipe_is_published_under_its_own_name(own):
    _, store = own
    with explored(*own) as client:
        filters = sent(("sharp", "pixels_sharpness >= 60"))
        kept = post(client, "funnel", filters=filters)["kept"]
        told = post(client, "publish", name="mine", filters=filters)
        assert (told["new"], told["counts"]["kept"]) == (True, kept)
        newest = Manifest.open(store)
        assert (newest.id, newest.recipe) == (told["id"], Recipe("mine", (Filter("sharp", "pixels_sharpness >= 60"),)))
        assert not post(client, "publish", name="mine", filters=filters)["new"]
        assert "use lower-case letters" in post(client, "publish", 400, name="My own", filters=filters)["detail"]
        with store.lock():
            assert "another run is writing" in post(client, "publish", 400, name="other", filters=filters)["detail"]
    assert len(commits(store)) == 2


@pytest.mark.slow
def test_publishing_ends_at_its_deadline_and_frees_the_source(own):
    """It ran in the server itself: no deadline, and a second Ctrl-C to end it."""
    _, store = own
    slow = (
        "(SELECT sum(hash(a.uid || b.uid || c.uid || d.uid || e.uid || f.uid || g.uid)) "
        "FROM rows a, rows b, rows c, rows d, rows e, rows f, rows g) > 0"
    )
    with pytest.raises(QueryError, match="stopped after 4 s, and nothing was published"):
        publishing.publish(store, Recipe("slow", (Filter("slow", slow),)), deadline=4)
    with store.lock():
        assert len(commits(store)) == 1


@pytest.mark.parametrize("what", ["funnel", "pairs", "publish", "toml"])
def test_half_a_character_is_refused_in_one_line(client, what):
    body = '{"name": "mine", "show": "all", "filters": [{"name": "mine", "sql": "caption = \'\\ud800\'"}]}'
    answer = client.post(f"/api/{what}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "lone surrogate" in answer.json()["detail"]


def test_the_token_is_in_a_file_of_its_owner_and_on_no_command_line(tmp_path):
    log = tmp_path / "arguments"
    fake = tmp_path / "browser"
    fake.write_text(f'#!/bin/sh\necho "$@" > {log}\n')
    fake.chmod(0o755)
    program = "from pathlib import Path; from pipeline.pages.explore import opening; import sys\n"
    program += "opening.open_privately('http://127.0.0.1:9/#a-token', Path(sys.argv[1]))"
    environment = os.environ | {"BROWSER": f"{fake} %s"}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=True)
    page = tmp_path / "explore.html"
    assert log.read_text().strip() == page.as_uri()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert 'url=http://127.0.0.1:9/#a-token"' in page.read_text()


@pytest.mark.slow
def test_labels_are_a_sample_that_calibrate_reads(own):
    _, store = own
    with explored(*own) as client:
        first = look(client, show="all", unlabelled=True, filters=[])["pairs"][:6]
        words = ["match", "no match", "bad picture", "good", "match", "match"]
        for pair, word in zip(first, words, strict=True):
            told = post(client, "label", place=pair["place"], label=word)
        assert told["counts"] == {"match": 3, "no match": 1, "good": 1, "bad picture": 1}
        post(client, "label", place=first[4]["place"], label="no match")
        told = post(client, "label", place=first[5]["place"], label=None)
        assert told["counts"] == {"match": 1, "no match": 2, "good": 1, "bad picture": 1}
        post(client, "label", 422, place=0, label="dog")
        rest = look(client, show="all", unlabelled=True, filters=[])
        assert rest["count"] == 25
    with explored(*own) as client:
        assert look(client, show="all", unlabelled=True, filters=[])["count"] == 25
    sample = Labelled.read(store.root / KEY, GOOD)
    assert (len(sample.table), sample.repeated) == (5, 0)
    uids = Manifest.open(store).select()["uid"].to_pylist()
    with Manifest.open(store).connection() as con:
        every = {uid for (uid,) in con.execute("SELECT uid FROM rows").fetchall()}
    assert set(sample.table["uid"].to_pylist()) <= every
    assert len(uids) == 20


@pytest.mark.slow
def test_two_labellers_do_not_see_each_other_s_labels(own):
    for who, word in (("anna", "match"), ("ben", "no match")):
        with explored(*own, who) as client:
            (first, *_) = look(client, show="all", unlabelled=True, filters=[])["pairs"]
            counts = post(client, "label", place=first["place"], label=word)["counts"]
            assert counts == {"match": 0, "no match": 0, "good": 0, "bad picture": 0} | {word: 1}
            assert look(client, show="all", unlabelled=True, filters=[])["count"] == 29
    assert [(row["labeller"], row["label"]) for row in Labels(own[1]).table.to_pylist()] == [
        ("anna", "match"),
        ("ben", "no match"),
    ]


def test_many_label_at_once_and_none_is_lost(tmp_path):
    store = Storage(tmp_path)

    def work(who):
        for number in range(10):
            Labels(store).put(f"http://host/{who}/{number}", "a\r\n\"'caption", "match")

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert Labels(store).counts()["match"] == 40
    assert set(Labels(store).table["caption"].to_pylist()) == {"a\r\n\"'caption"}


def test_a_list_of_labels_that_is_none_is_left_alone(tmp_path):
    store = Storage(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / KEY).write_bytes(b"what is this")
    with pytest.raises(StorageError, match="is no list of labels, and is left as it is: move it away"):
        Labels(store).put("http://a", "b", "match")
    assert (tmp_path / KEY).read_bytes() == b"what is this"


def test_sample_and_nearest_of_few(rows):
    none = np.zeros(rows.pool, bool)
    assert rows.sample(none, 0, 0, 24).tolist() == []
    assert rows.nearest(none, "pixels_sharpness", 3, 24).tolist() == []
    assert rows.read([]).num_rows == 0
    assert rows.find(pa.table({"url": ["http://nowhere"], "caption": ["x"]})).tolist() == []


def typed(*words):
    """A running `winnow explore`, and the lines that it prints. Ctrl-C reaches it as at a terminal."""
    command = [sys.executable, "-m", "flows", "explore", *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.slow
def test_the_command_prints_an_address_and_ends_at_ctrl_c(own):
    import httpx

    described, store = own
    program = typed(described.path, "--root", store.root.parent)
    address = program.stdout.readline().strip()
    port, token = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/#([\w-]{43})", address).groups()
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as web:
        assert web.get("/").status_code == 200
        assert web.get("/api/start").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert web.get("/api/start", headers=headers).json()["pool"] == 30
        second = typed(described.path, "--root", store.root.parent, "--port", port)
        assert second.wait(60) == 1
        assert f"port {port} is not free (Address already in use): choose another" in second.stderr.read()
        program.send_signal(signal.SIGINT)
        assert program.wait(30) == 0
    assert "Traceback" not in program.stderr.read()
    assert not list((store.root / ".tmp").glob("*/*"))


def test_nothing_is_published_yet(tmp_path, own):
    program = typed(own[0].path, "--root", tmp_path / "empty")
    assert program.wait(60) == 1
    assert re.fullmatch(r"winnow: nothing is published in .* run `winnow curate` first\n", program.stderr.read())


@contextmanager
def served(described, store):
    """The address of the page, answered by this process."""
    with store.scratch() as scratch:
        held = Rows(Manifest.open(store), scratch)
        explorer = Explorer(held, choices(held.manifest, described.own_recipe), folder=described.path.parent)
        with listening(explorer, 0) as (address, answer, end):
            run = threading.Thread(target=answer)
            run.start()
            try:
                yield address
            finally:
                end()
                run.join()
                held.close()


@pytest.fixture
def page(tmp_path, own):
    """A person in front of the page: a browser, and the storage behind it."""
    with browser(tmp_path) as tab, served(*own) as address:
        tab.open(address)
        tab.until("document.querySelectorAll('.score').length && document.querySelectorAll('#pairs img').length")
        yield tab, own[1]
        assert tab.faults == []
        origin = address.partition("#")[0]
        assert [each for each in tab.seen if not each.startswith((origin, f"blob:{origin}"))] == []


real = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
SLIDER = 'input[aria-label="pixels_sharpness at least"]'


def shown(store, sql):
    """How many pairs the page should say that this filter keeps."""
    return f"{Manifest.open(store).funnel(Recipe('any', (Filter('any', sql),)))[0].alone:,}"


def choose(tab, select, name):
    tab.run(
        f"(() => {{ const select = document.getElementById('{select}');"
        f" select.value = [...select.options].find(each => each.text.startsWith('{name}')).value;"
        " select.dispatchEvent(new Event('change')); })()"
    )


@pytest.mark.slow
@real
def test_drag_a_slider_and_the_counts_follow(page):
    tab, store = page
    assert tab.text("#kept") == shown(store, published_sources.SHARP["sql"])
    assert "#" not in tab.run("location.href")
    before = tab.run("document.querySelector('.score .kept').getAttribute('d')")
    tab.drag(SLIDER, 0.5, 0.8)
    dragged = float(tab.run(f"document.querySelector('{SLIDER}').value"))
    assert 55 < dragged < 68
    tab.until(f"document.querySelector('#steps code').innerText === 'pixels_sharpness >= {dragged:g}'")
    tab.until(f"document.getElementById('kept').innerText === '{shown(store, f'pixels_sharpness >= {dragged}')}'")
    tab.until(f"document.querySelector('#steps .n').innerText === '{shown(store, f'pixels_sharpness >= {dragged}')}'")
    tab.run(f"document.querySelector('{SLIDER}').focus()")
    for _ in range(3):
        tab.press("ArrowLeft")
    after = float(tab.run(f"document.querySelector('{SLIDER}').value"))
    assert after == pytest.approx(dragged - 0.3)
    tab.until(f"document.getElementById('kept').innerText === '{shown(store, f'pixels_sharpness >= {after}')}'")
    assert tab.run("document.querySelector('.score .kept').getAttribute('d')") != before
    tab.until("document.getElementById('said').innerText.endsWith('of 30 pairs kept')")


@pytest.mark.slow
@real
def test_a_new_line_another_recipe_and_publish(page):
    tab, store = page
    tab.click("#freeze")
    tab.until("document.getElementById('overlap-says').innerText.startsWith('tiny as it was (on this page) keeps 20.')")
    choose(tab, "other", "everything")
    tab.until(
        "document.getElementById('overlap-says').innerText.startsWith('everything (named) keeps 30. Both keep 20')"
    )
    tab.run("document.querySelector('input[aria-label=\"width at most\"]').focus()")
    tab.press("ArrowLeft")
    tab.until("document.getElementById('kept').innerText !== '20'")
    assert tab.text("#steps tr:last-child th").startswith("width-most")
    kept = int(tab.text("#kept"))
    tab.click("#copy")
    text = tab.until("document.getElementById('toml-text').innerText")
    filters = tomllib.loads(text)["filters"]
    assert [each["name"] for each in filters] == ["sharp", "width-most"]
    tab.press("Escape")
    tab.click("#publish")
    tab.write("#publish-name", "by-hand")
    tab.press("Enter")
    tab.until("document.getElementById('published').innerText.includes('pairs kept')")
    newest = Manifest.open(store)
    assert newest.recipe == Recipe("by-hand", tuple(Filter(each["name"], each["sql"]) for each in filters))
    assert newest.counts.kept == kept
    assert newest.id in tab.text("#published")


@pytest.mark.slow
@real
def test_look_at_a_pair_and_filter_by_text(page):
    tab, _ = page
    tab.click('#show input[value="dropped"]')
    tab.until("document.getElementById('found').innerText.startsWith('10 pairs')")
    tab.click('#show input[value="edge"]')
    tab.until("document.getElementById('found').innerText.includes('decided by sharp alone')")
    tab.write("#text", "host/44.jpg")
    tab.until("document.querySelectorAll('#pairs button').length === 1")
    tab.run("document.querySelector('#pairs button').focus()")
    tab.press("Enter")
    tab.until("document.getElementById('pair').open && !!document.querySelector('#pair img')")
    assert tab.text("#pair-title") == "picture number 44"
    assert "sharp drops it" in tab.text("#pair-filters")
    assert "44" in tab.text("#pair-columns")
    tab.press("Escape")
    assert not tab.run("document.getElementById('pair').open")


@pytest.mark.slow
@real
def test_label_with_the_keyboard(page):
    tab, store = page
    tab.click("#label")
    captions = []
    tab.until("!!document.querySelector('#labelling img')")
    for key in "mnsgb":
        captions.append(tab.until("document.getElementById('label-caption').innerText"))
        tab.press(key)
        tab.until(f"document.getElementById('label-caption').innerText !== {captions[-1]!r}")
    tab.press("u")
    tab.until(f"document.getElementById('label-caption').innerText === {captions[-1]!r}")
    tab.until("document.getElementById('label-says').innerText.startsWith('Undone.')")
    told = {row["caption"]: row["label"] for row in Labels(store).table.to_pylist()}
    assert told == {captions[0]: "match", captions[1]: "no match", captions[3]: "good"}


@pytest.mark.slow
@real
def test_captions_of_strangers_do_not_run(tmp_path, described, manifest):
    with browser(tmp_path) as tab, served(described, manifest.storage) as address:
        tab.open(address)
        tab.until("document.querySelectorAll('#pairs button').length")
        choose(tab, "recipe", "everything")
        tab.write("#text", "owned")
        tab.until("document.getElementById('found').innerText.startsWith('5 pairs')")
        captions = " ".join(tab.run("[...document.querySelectorAll('#pairs bdi')].map(each => each.innerText)"))
        assert f"<script>{OWNED}</script>" in captions
        tab.run("document.querySelector('#pairs button').click()")
        tab.until("document.getElementById('pair').open")
        assert tab.run("document.title") == "tiny: explore"
        assert tab.run("document.querySelectorAll('a, iframe, [onerror], [onload], #pairs script').length") == 0
        assert tab.faults == []
        tab.run(f"document.body.append(Object.assign(document.createElement('script'), {{textContent: {OWNED!r}}}))")
        time.sleep(0.1)
        assert tab.run("document.title") == "tiny: explore"  # not even a script that got in would run


@pytest.mark.slow
@real
def test_a_narrow_window_and_a_stranger_without_the_token(tmp_path, page):
    tab, _ = page
    address = tab.run("location.href")
    tab.open(address, width=400)
    tab.until("document.querySelectorAll('#pairs img').length")
    assert tab.run("document.documentElement.scrollWidth") == 400
    assert (
        tab.run(
            "[...document.querySelectorAll('input, select, button')].filter(each => !each.labels?.length "
            "&& !each.ariaLabel && !each.textContent.trim()).length"
        )
        == 0
    )
    tab.run("sessionStorage.clear()")
    tab.open(address)
    tab.until("document.getElementById('error')?.innerText === 'open the address that winnow explore printed'")
    tab.faults.clear()  # the browser says that the question was refused


@pytest.mark.slow
@real
def test_the_selection_of_a_recipe_is_a_step_that_can_be_turned_off(tmp_path):
    cap = (
        '[selection]\nkind = "soft_cap"\nby = "pixels_sharpness"\npenalty = 2\nbudget = 20\nunit = "samples"\n'
        "temperature = 2\n"
    )
    described = published_sources.listed(tmp_path / "lists", range(40, 70), more=cap)
    store = Storage(tmp_path / "store")
    kept = published_sources.published(described, store).counts.kept
    assert kept < 20
    with browser(tmp_path) as tab, served(described, store) as address:
        tab.open(address)
        tab.until("document.querySelectorAll('.score').length && document.querySelectorAll('#pairs img').length")
        tab.until(f"document.getElementById('kept').innerText === '{kept}'")
        assert tab.text("#steps tr:last-child th").startswith("selection")
        assert "soft cap by pixels_sharpness" in tab.text("#steps tr:last-child th")
        tab.click('input[aria-label="selection is on"]')
        tab.until("document.getElementById('kept').innerText === '20'")
        tab.click('input[aria-label="selection is on"]')
        tab.until(f"document.getElementById('kept').innerText === '{kept}'")
        tab.click("#copy")
        text = tab.until("document.getElementById('toml-text').innerText")
        assert tomllib.loads(text)["selection"] == tomllib.loads(cap)["selection"] | {"budget": 20}
        tab.press("Escape")
        tab.click("#publish")
        tab.write("#publish-name", "by-hand")
        tab.press("Enter")
        tab.until("document.getElementById('published').innerText.includes('pairs kept')")
        assert Manifest.open(store).recipe.selection == described.own_recipe.selection
        assert Manifest.open(store).counts.kept == kept
        assert tab.faults == []
