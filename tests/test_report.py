import html
import json
import re
import subprocess
from html.parser import HTMLParser

import published_sources
import pytest
from headless_browser import CHROMIUM, FLAGS

from filters import catalog
from filters.core import Filter, Recipe
from pipeline.filtering import thresholds
from pipeline.manifest.manifest import Manifest
from pipeline.pages import charts, failures, galleries, report
from pipeline.review.sample import Labelled
from pipeline.store.storage import Storage
from pipeline.trials.trials import COMPARED

OWNED = 'document.title = "owned"'
HOSTILE = [
    f"<script>{OWNED}</script>",
    f"<img src=x onerror='{OWNED}'>",
    f"\"><svg onload='{OWNED}'>",
    f"</style></title></code><script>{OWNED}</script>",
    f'<iframe srcdoc="<script>parent.{OWNED}</script>"></iframe>',
    "{{ 7 * 7 }} {% raw %} ${7*7}",
    f"<a href='javascript:{OWNED}'>a link</a>",
    "a \u202egnp.exe turned around \x00\x07",
    f"<meta http-equiv=refresh content='0;url=javascript:{OWNED}'>",
    "long " * 500,
]
WHY = {**published_sources.SHARP, "why": f"<b onclick='{OWNED}'>blur</b>"}
QUANTILE = {"name": "wide", "sql": "width >= (SELECT quantile_cont(width, 0.5) FROM rows)"}


METRICS = [["f1_macro", "macro-F1"], ["accuracy", "accuracy"]]


def gain():
    def row(arm, augmented, score):
        told = {f"{metric}_mean": score for metric, _ in METRICS}
        looks = [{"images": images, "score_mean": score * images / 640} for images in (20, 160, 640)]
        cost = {"images": 640, "seconds": 1.5, "points": 40.0, "seconds_per_point": 0.0375, "images_per_point": 16.0}
        told |= {"per_class_f1": {"dog": 0.654, "cat": 0.321}, "curve": looks, "cost": cost}
        return {"arm": arm, "augmented": augmented, "pairs_mean": 1200.0, "f1_macro_sd": 0.02, **told}

    def learner(name):
        told = [
            {"difference": 0.11, "low": 0.08, "high": 0.14, "clear": True, "sentence": f"{name}, filtering: +0.110"}
            | {"relative": 0.18, "relative_low": 0.13, "relative_high": 0.229},
            {
                "difference": 0.01,
                "low": -0.01,
                "high": 0.03,
                "clear": False,
                "sentence": f"{name}, augmentation: +0.010",
            }
            | {"relative": None, "relative_low": None, "relative_high": None},
        ]
        rows = [row("raw", False, 0.61), row("filtered", False, 0.72), row("filtered", True, 0.735)]
        return {"name": name, "head": "linear", "encoder": {"kind": "hog"}, "rows": rows, "differences": told}

    recalls = [{"k": k, "value": 0.25, "low": 0.125, "high": 0.5, "times_chance": 41.7} for k in (1, 5, 10)]
    median = {"value": 7.5, "low": 6.0, "high": 9.0, "chance": 155}
    ranked = {"says": "text to image", "candidates": 1310, "recalls": recalls, "median": median}
    return {
        "metrics": METRICS,
        "classes": {"dog": ["dog"], "cat": ["cat"]},
        "ranks": [{"learner": "first", "arm": "raw", "augmented": False, "directions": [ranked]}],
        "test": {"pictures": 310, "says": "310 held-out pictures"},
        "budget": {"seeds": 5},
        "interval": "95 % bootstrap interval",
        "baseline": {"says": "always dog", "f1_macro": 0.1, "accuracy": 0.3},
        "learners": [learner("first"), learner("second")],
        "filters": {
            "learner": "first",
            "interval": "97.5% each",
            "rows": [row("without-sharp", False, 0.7), row("random-without-sharp", False, 0.65)],
            "differences": [
                {"difference": 0.02, "low": -0.01, "high": 0.05, "clear": False, "all": 1200, "alone": 30}
                | {"sentence": "first, sharp adds nothing that shows", "relative": None}
            ],
            "same": [{"sentence": "worded drops no pair"}],
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def store(folder):
    store = Storage(folder / "store")
    rows = [(caption, f"javascript:{OWNED}//{100 + number}.jpg") for number, caption in enumerate(HOSTILE)]
    described = published_sources.listed(folder, range(40, 65), (WHY, published_sources.WORDED, QUANTILE), rows=rows)
    published_sources.published(described, store, {1: f"<script>{OWNED}</script>"}, failed={64}, unscored={63})
    return store


@pytest.fixture(scope="module")
def page(folder, store):
    report.write(store, Manifest.open(store), gain(), folder / "pages" / "report.html")
    return (folder / "pages" / "report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every element with its attributes, and all text that is shown."""

    def __init__(self, page):
        super().__init__()
        self.found, self.shown = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.shown.append(data.strip())


def test_nothing_on_the_page_is_a_stranger(page):
    found = Elements(page).found
    assert not {"script", "iframe", "a", "object", "embed", "form", "link", "base"} & {tag for tag, _ in found}
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    addresses = [attributes["src"] for _, attributes in found if "src" in attributes]
    assert addresses
    assert all(re.fullmatch(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", address) for address in addresses)
    assert not [attributes for _, attributes in found if "href" in attributes or "srcdoc" in attributes]
    assert re.findall(r"https?://[^\s<\"]+", re.sub(r"<bdi.*?</bdi>", "", page)) == []
    assert "\u202e" not in page
    assert "\x00" not in page


def test_what_strangers_wrote_is_shown_as_text(page):
    shown = " ".join(Elements(page).shown)
    assert f"<script>{OWNED}</script>" in shown
    assert "{{ 7 * 7 }}" in shown
    assert html.escape(WHY["why"], quote=False).replace("'", "&#39;").replace('"', "&#34;") in page
    assert "long long" in shown
    assert "long " * 100 not in shown


def test_every_number_is_on_the_page(page, store):
    counts = Manifest.open(store).counts
    shown = Elements(page).shown
    for name in ("kept", "dropped", "failed", "quarantined", "repeated"):
        assert str(getattr(counts, name)) in shown[shown.index(name) :][:3]
    for step in Manifest.open(store).funnel(Manifest.open(store).recipe):
        at = shown.index(step.filter)
        assert {str(step.alone), str(step.sequence), str(step.fails), str(step.unscored)} <= set(shown[at : at + 12])
    assert "http_404" in shown
    assert "HTTP Error 404: Not Found" in shown
    assert "quarantined" in shown


def test_galleries_say_why(page):
    shown = Elements(page).shown
    assert {"Kept", "Dropped", "Near the threshold of sharp", "Near the threshold of wide"} <= set(shown)
    assert any(text.startswith("dropped by sharp") for text in shown)
    assert "dropped by sharp, worded, wide (no score)" in shown or "dropped by sharp, worded (no score)" in shown


def test_the_gain_is_told_with_its_intervals(page):
    assert "What training gains" in page
    assert "second, filtering: +0.110" in page
    assert '<tr class="dim"><td class="why">first, augmentation: +0.010' in page
    assert (
        '<tr class="dim"><td class="why">first, sharp adds nothing that shows; drops 1,200 pairs; without it 30 more'
        in page
    )
    assert "worded drops no pair" in page
    assert '<td>text to image</td><td class="n">1,310</td>' in page
    assert "0.250 <small>[0.125, 0.500] ×41.7</small>" in page
    assert "7.5 <small>[6.0, 9.0]; chance 155</small>" in page
    assert '<tr class=""><td class="why">first, filtering: +0.110' in page


@pytest.mark.slow
def test_the_same_page_twice(folder, store, page):
    report.write(store, Manifest.open(store), gain(), folder / "pages" / "report.html")
    assert (folder / "pages" / "report.html").read_text(encoding="utf-8") == page
    assert [path.name for path in (folder / "pages").iterdir()] == ["report.html"]


@pytest.mark.parametrize("failed", [set(), set(range(4))])
def test_a_page_of_little(tmp_path, failed):
    """No filters, no gain, and nothing kept or nothing failed."""
    store = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path, range(4), filters=()), store, failed=failed)
    report.write(store, Manifest.open(store), None, tmp_path / "report.html")
    shown = Elements((tmp_path / "report.html").read_text()).shown
    assert "This recipe has no filters: every downloaded pair is kept." in shown
    assert ("Every pair was downloaded." in shown) == (not failed)
    assert "What training gains" not in shown


def test_a_tar_that_is_gone_leaves_its_pairs_without_pictures(tmp_path):
    store = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path, range(40, 60)), store)
    next(store.root.glob("shards-*/00000.tar")).unlink()
    report.write(store, Manifest.open(store), None, tmp_path / "report.html")
    shown = Elements((tmp_path / "report.html").read_text()).shown
    assert "picture not stored" in shown


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("pixels_sharpness >= 50", [50]),
        ("pixels_sharpness>=-1.5e1 AND width < 3", [-15]),
        ('"pixels_sharpness" <= 50.25', [50.25]),
        ("pixels_sharpness BETWEEN 3 AND 4", []),
        ("x.pixels_sharpness > 3", []),
        ("my_pixels_sharpness > 3", []),
        ("pixels_sharpness > 3 * width", []),
        ("pixels_sharpness >= (SELECT quantile_cont(pixels_sharpness, 0.5) FROM rows)", [57.5]),
        ("pixels_sharpness >= (SELECT quantile_cont(width, 0.5) FROM rows)", []),
    ],
)
def test_thresholds_are_read_out_of_sql(store, sql, values):
    with Manifest.open(store).connection() as con:
        con.execute("CREATE TEMP TABLE few AS SELECT 57.5 AS pixels_sharpness, 3 AS width")
        con.execute("CREATE OR REPLACE VIEW rows AS FROM few")
        found = thresholds.find(con, Recipe("own", (Filter("mine", sql),)), ["pixels_sharpness"])
    assert [each.value for each in found] == values


def test_a_histogram_holds_every_downloaded_pair(store):
    manifest = Manifest.open(store)
    with manifest.connection() as con:
        for name in ("pixels_sharpness", "captions_words", "width", "captions_length"):
            drawn = charts.histogram(con, manifest.columns.field(name), [])
            told = [int(re.search(r": ([\d,]+) pairs", bar.title)[1]) for bar in drawn.bars]
            assert sum(told) == drawn.count
            assert drawn.count + drawn.unscored == manifest.counts.pool
            assert all(
                0 <= bar.x < charts.WIDTH and bar.kept + bar.dropped <= charts.HEIGHT + 1e-9 for bar in drawn.bars
            )


def test_a_histogram_of_one_value_is_left_out(store, page):
    manifest = Manifest.open(store)
    with manifest.connection() as con:
        assert charts.histogram(con, manifest.columns.field("pixels_brightness"), []) is None
    assert {"pixels_sharpness", "captions_words"} <= set(Elements(page).shown)
    assert "pixels_brightness" not in Elements(page).shown


def test_link_rot_by_domain(tmp_path):
    urls = {0: "http://a.example/0.jpg", 1: "https://u@www.A.example:8080/1.jpg", 2: "http://b.example/2.jpg", 3: "odd"}
    rows = [(f"picture number {number}", url) for number, url in urls.items()]
    store = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path, (), filters=(), rows=rows), store, failed={1, 2, 0})
    with Manifest.open(store).connection() as con:
        found = {each.name: each for each in failures.domains(con)}
    assert found["a.example"] == failures.Domain("a.example", 2, 2, 1.0, {"http_404": 2})
    assert (found["b.example"].failed, found["no domain"].failed) == (1, 1)


def encoders(manifest, name):
    cost = {"images_per_second": 48.0, "busy": 0.99, "to_one_by_one": 1.02, "parameters": 2_223_872, "flops": 6e8}
    cost |= {"memory_mb": 962, "dim": 1280, "batch": 32, "halved": True}
    cost |= {"streamed": [{"workers": workers, "images_per_second": 40.0 + workers} for workers in (1, 2)]}
    worth = {"score": 0.505, "low": 0.438, "high": 0.564, "scores": {"f1_macro": 0.505, "accuracy": 0.639}}
    tuned = {"score": 0.525, "adds": 0.02, "seeds": 2}
    there = {"encoder": name, "weights": {"from": "file"}, "finetuned": tuned, **worth, **cost}
    return {
        "code": COMPARED,
        "manifest": manifest,
        "metrics": METRICS,
        "budget": {"seeds": 5},
        "test_pictures": 204,
        "interval": "95 %",
        "baseline": {"says": "always dog", "f1_macro": 0.119},
        "costs_on": {"pictures": 64},
        "device": "no GPU",
        "cores": 2,
        "load": [0.2, 1.9],
        "encoders": [there, {"encoder": "timm:gone", "error": "the hub does not answer"}],
    }


@pytest.mark.slow
def test_encoders_that_were_compared_are_shown(tmp_path):
    store = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path, range(40, 44)), store)
    manifest, page = Manifest.open(store), tmp_path / "report.html"

    def written(**other):
        (store.root / report.ENCODERS).write_text(json.dumps(encoders(manifest.id, HOSTILE[1]) | other))
        report.write(store, manifest, None, page)
        return " ".join(filter(None, Elements(page.read_text()).shown))

    (store.root / report.PARETO).write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    report.write(store, manifest, None, page)
    assert "Which encoder" not in page.read_text()
    assert "Which encoder" not in written(code=COMPARED - 1)  # an older winnow's
    shown = written()
    assert '<img class="plot" src="data:image/svg+xml;base64,PHN2Zy' in page.read_text()
    assert f"{HOSTILE[1]} weights: file trained end to end 0.525, +0.020" in shown
    assert "0.505 0.438 to 0.564 0.639" in shown
    assert "1: 41.0 2: 42.0" in shown
    assert "32 halved" in shown
    assert "timm:gone the hub does not answer" in shown
    assert "Of another manifest" not in shown
    assert "Of another manifest, 0123456789ab ." in written(manifest="0123456789abcdef")


def test_recipes_and_filters_are_compared(page, store):
    shown = Elements(page).shown
    assert "Which filters drop the same pairs" in shown
    manifest = Manifest.open(store)
    at = shown.index("Other recipes")
    for each in manifest.compare([manifest.recipe, catalog.recipes()["conceptual-captions-like"]]).funnels:
        row = shown.index(each.recipe, at)
        assert str(each.kept) in shown[row : row + 6]
    assert "clip-top30" not in shown  # nobody scored what it asks for
    overlaps = manifest.compare([manifest.recipe]).funnels[0].overlaps
    assert str(overlaps[0].both) in shown[shown.index("Which filters drop the same pairs") : at]


@pytest.mark.slow
def test_drift_is_told_against_the_manifest_before(tmp_path, page):
    assert "Against the manifest before" not in page
    store = Storage(tmp_path / "store")
    described = published_sources.listed(tmp_path, range(110), filters=(published_sources.WORDED,), shard_size=110)
    published_sources.published(described, store)  # keeps more digests than are compared as words
    published_sources.published(published_sources.listed(tmp_path, range(110), shard_size=110), store)
    report.write(store, Manifest.open(store), None, tmp_path / "report.html")
    shown = " ".join(Elements((tmp_path / "report.html").read_text()).shown)
    assert "50 rows kept before are dropped now." in shown
    assert "pixels_sharpness 0.000 0.000" in shown


@pytest.mark.slow
def test_labels_show_what_each_filter_caught(tmp_path):
    store = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path, range(40, 60)), store, failed={41})
    rows = [f"http://host/{number}.jpg\tpicture number {number}\t" for number in range(40, 60)]
    kinds = ["blurred" if number < 49 else "clean" for number in range(40, 60)]
    lines = [f"{row}{kind}\n" for row, kind in zip(rows, kinds, strict=True)]
    for name, text in {"labels": "".join(lines), "others": "http://host/1.jpg\tother\tclean\n"}.items():
        (tmp_path / f"{name}.tsv").write_text("url\tcaption\tlabel\n" + text)
    shown = {}
    for name in ("labels", "others"):
        labels = Labelled.read(tmp_path / f"{name}.tsv", ["clean"])
        report.write(store, Manifest.open(store), None, tmp_path / "report.html", labels)
        shown[name] = " ".join(filter(None, Elements((tmp_path / "report.html").read_text()).shown))
    assert "What each filter caught" in shown["labels"]
    assert "clean good 11 1 1 9.1% blurred 8 8 8 100.0% precision 88.9%" in shown["labels"]
    assert "were not downloaded: blurred 1 (http_404 1)." in shown["labels"]
    assert "What each filter caught" not in shown["others"]


def test_one_domain_needs_no_table_of_domains(tmp_path):
    store = Storage(tmp_path / "store")
    published_sources.published(published_sources.listed(tmp_path, range(4)), store, failed={1})
    with Manifest.open(store).connection() as con:
        assert failures.domains(con) == []


@pytest.mark.slow
def test_galleries_of_a_few_shards_say_so(tmp_path, page):
    assert "chosen at random" not in page
    store = Storage(tmp_path / "store")
    published_sources.published(
        published_sources.listed(tmp_path, range(40, 40 + galleries.SHARDS + 6), shard_size=1), store
    )
    report.write(store, Manifest.open(store), None, tmp_path / "report.html")
    shown = " ".join(Elements((tmp_path / "report.html").read_text()).shown)
    assert f"From {galleries.SHARDS} of {galleries.SHARDS + 6} shards, chosen at random." in shown


def browse(tmp_path, page, *more):
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [CHROMIUM, *FLAGS, profile, "--virtual-time-budget=3000", *more, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_no_script_runs_in_a_browser(tmp_path, folder, page):
    dom = browse(tmp_path, folder / "pages" / "report.html", "--dump-dom")
    assert "<title>tiny: " in dom
    assert ">owned<" not in dom
    assert "<title>owned" not in dom


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")
def test_the_browser_would_have_run_one(tmp_path):
    """The check above can fail: a page that does run such a script is seen."""
    (tmp_path / "page.html").write_text(f"<title>tiny: </title><script>{OWNED}</script>")
    assert "<title>owned" in browse(tmp_path, tmp_path / "page.html", "--dump-dom")
