"""The dataset card of an export, as a person sees it rendered, and its Croissant metadata, as mlcroissant reads it."""

import io
import json
import re
import subprocess
import sys

import published_sources
import pyarrow as pa
import pytest
import yaml
from markdown_it import MarkdownIt
from PIL import Image

from filters import recipes
from filters.core import Filter, Recipe
from pipeline.errors import SourceError
from pipeline.export import croissant, export, licences, markdown
from pipeline.export.columns import describe, explanations
from pipeline.export.content import About, Content
from pipeline.export.format import Written
from pipeline.export.formats import FORMATS
from pipeline.manifest.manifest import Manifest
from pipeline.sources import loading
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage
from pipeline.trials.trials import GAIN

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
"""As on the hub: HTML is HTML."""

HOSTILE = "a|b `c` <img src=x onerror=alert(1)> [d](http://evil) ![e](x) **f** _g_ www.evil.com &lt; # h\n\n---\n1. i"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Pictures 40 to 69, of which one filter keeps those from 50 on; its reason is hostile."""
    tmp_path = tmp_path_factory.mktemp("tiny")
    rows = [(HOSTILE.replace("\n", " "), "http://host/60.jpg")]
    sharp = {**published_sources.SHARP, "why": HOSTILE}
    described = published_sources.listed(tmp_path / "lists", range(40, 70), (sharp,), rows=rows)
    storage = Storage(tmp_path / "store")
    published_sources.published(described, storage, failed=(55,))
    return Manifest.open(storage)


def parts(folder):
    """The settings of a card, and its text as HTML."""
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), MARKDOWN.render(body)


def cells(html, first):
    """The text of the cells of the table row that begins with `first`."""
    (row,) = [each for each in html.split("<tr>") if re.match(rf"\s*<td>(<code>)?{first}<", each)]
    return [re.sub("<.*?>", "", each) for each in re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)]


def test_the_card_says_what_the_manifest_says(manifest, tmp_path):
    about = About("Pets: 50 %\u00e9", "CC-BY-4.0", "https://example.com/pets")
    done = export.write(Content(manifest, "datasets", about=about), tmp_path / "out")
    front, html = parts(done.path)
    assert (front["pretty_name"], front["license"], front["size_categories"]) == (about.title, "cc-by-4.0", ["n<1K"])
    assert "<h1>Pets: 50 %\u00e9</h1>" in html
    counts = manifest.counts
    assert cells(html, "rows of the list")[1] == f"{counts.input:,}"
    assert cells(html, "kept")[1] == f"{counts.kept}"
    assert cells(html, "failed")[1] == "1"
    (step,) = manifest.funnel(manifest.recipe)
    numbers = [str(each) for each in (step.fails, step.unscored, step.sequence, step.costs)]
    assert cells(html, "sharp")[3:] == numbers
    assert cells(html, "sharp")[1] == "pixels_sharpness &gt;= 50"
    assert 'href="https://spdx.org/licenses/CC-BY-4.0.html"' in html
    assert 'href="https://example.com/pets"' in html
    assert manifest.id in html
    assert "Nothing: no model was trained" in html
    assert cells(html, "pixels_sharpness")[2].startswith("of the scorer pixels; in the pool 40 to 69, mean ")
    assert "sharpness: variance of the Laplacian" in html


def test_words_of_others_stay_words(manifest, tmp_path):
    about = About(title=HOSTILE.replace("\n", " "), license="my\u2028own <b>licence</b>: [x](http://evil)")
    html = parts(export.write(Content(manifest, "datasets", about=about), tmp_path / "out").path)[1]
    assert set(re.findall(r'href="(.*?)"', html)) == set()
    assert not re.search(r"<(img|b|em|strong|script)\b", html)
    assert cells(html, "sharp")[2] == " ".join(HOSTILE.split()).replace("&", "&amp;").replace("<", "&lt;").replace(
        ">", "&gt;"
    )
    assert html.count("<h1>") == 1
    assert "my own &lt;b&gt;licence&lt;/b&gt;: [x](http://evil)" in html


@pytest.mark.parametrize(
    "words", [HOSTILE, "# a", "- a", "1) a", "+ a", "===", "> a", "a\\|b", "`", "``a`|", "~~a~~", "\\"]
)
def test_text_and_code_are_shown_as_they_are(words):
    lines = markdown.table(("a", "b"), [(markdown.text(words), markdown.code(words))])
    html = MARKDOWN.render("\n".join([*lines, "", markdown.text(words)]))
    shown = " ".join(words.split())
    for mark, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(mark, entity)
    assert re.findall("<td>(.*?)</td>", html) == [shown, f"<code>{shown}</code>"]
    assert html.endswith(f"<p>{shown}</p>\n")


def test_the_gain_is_that_of_the_exported_pairs(manifest, tmp_path):
    difference = {"difference": 0.05, "low": -0.01, "high": 0.11, "clear": False}
    row = {"arm": "filtered", "augmented": False, "pairs_mean": 10, "macro_mean": 0.5, "macro_sd": 0.1}
    gain = {
        "code": GAIN,
        "manifest": manifest.id,
        "published": True,
        "metrics": [["macro", "macro-F1"]],
        "budget": {"seeds": 7},
        "test": {"says": "30 held-out pictures"},
        "interval": "95 %",
        "baseline": {"says": "always cube", "macro": 0.02},
        "learners": [{"name": "linear", "rows": [row], "differences": [{"name": "filtered - raw", **difference}]}],
    }
    manifest.storage.put_if_absent("gains/1.json", canonical_json(gain))
    html = parts(export.write(Content(manifest, "datasets"), tmp_path / "out").path)[1]
    assert "7 seeds each" in html
    assert "0.500 (0.100)" in html
    difference = html[html.index("<td>filtered - raw</td>") :].split("</tr>")[0]
    assert re.findall("<td.*?>(.*?)</td>", difference)[1:] == ["+0.050", "-0.010", "+0.110", "includes 0"]
    other = parts(export.write(Content(manifest, "datasets", recipes.everything), tmp_path / "all").path)[1]
    assert "Nothing: no model was trained" in other
    manifest.storage.remove("gains/1.json")


READ = """
import json, socket, sys
socket.socket.connect = lambda *words: sys.exit("it asked the network")
import mlcroissant
from PIL import Image

def plain(value):
    if isinstance(value, Image.Image):
        return value.size
    return value.decode() if isinstance(value, bytes) else value

for folder in sys.argv[1:]:
    dataset = mlcroissant.Dataset(jsonld=f"{folder}/croissant.json")
    issues = dataset.metadata.ctx.issues
    records = [{key: plain(value) for key, value in each.items()} for each in dataset.records("pairs")]
    found = {"errors": list(issues.errors), "license": dataset.metadata.license, "records": records}
    print(json.dumps(found, default=str))
"""
"""In a process of its own: absl, which it imports, closes pytest's own stream when Prefect sets up logging."""


@pytest.mark.slow
def test_mlcroissant_reads_every_record_without_a_network(manifest, tmp_path):
    about = About("Pets", "odbl", "https://example.com/pets")
    forms = ("datasets", "webdataset", "csv")
    folders = [
        str(export.write(Content(manifest, form, about=about), tmp_path / form, piece=10).path) for form in forms
    ]
    done = subprocess.run([sys.executable, "-c", READ, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with manifest.connection() as con:
        expected = dict(con.execute("SELECT uid, caption FROM rows WHERE kept").fetchall())
    for form, line in zip(forms, done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        assert (found["errors"], found["license"]) == ([], ["https://spdx.org/licenses/ODbL-1.0.html"])
        caption = "pairs/title" if form == "csv" else "pairs/caption"
        assert {each["pairs/uid"]: each[caption] for each in found["records"]} == expected
        if form == "datasets":
            assert {tuple(each["pairs/image"]) for each in found["records"]} == {(64, 48)}
            assert found["records"][0]["pairs/pixels_phash"] >= 50


def test_columns_of_every_type(manifest):
    """What Croissant has no type for is left out; a map is text, as it is in the JSON of tars."""
    kinds = {
        "sc:Text": (pa.string(), pa.binary(), pa.null(), pa.map_(pa.string(), pa.int8())),
        "sc:Integer": (pa.uint64(), pa.int8()),
        "sc:Float": (pa.float32(), pa.decimal128(9, 2)),
        "sc:Date": (pa.date32(),),
        "sc:DateTime": (pa.timestamp("us"),),
        "sc:Boolean": (pa.bool_(),),
        None: (pa.struct([("a", pa.int8())]), pa.list_(pa.list_(pa.int8()))),
    }
    named = [(f"{name} {number}", kind) for name, each in kinds.items() for number, kind in enumerate(each)]
    rows = pa.schema([("uid", pa.string()), *named, ("many", pa.list_(pa.int32()))])
    found = json.loads(croissant.metadata(Content(manifest, "datasets"), FORMATS["datasets"], Written(1, 1, 1), rows))
    fields = {each["name"]: each for each in found["recordSet"][0]["field"]}
    assert {name: fields[name]["dataType"] for name, _ in named if name in fields} == {
        name: name.split()[0] for name, _ in named if not name.startswith("None")
    }
    assert (fields["many"]["dataType"], fields["many"]["repeated"]) == ("sc:Integer", True)
    assert fields["sc:Text 0"]["@id"] == "pairs/sc%3AText%200"


def test_every_scorer_s_columns_are_explained(manifest):
    described = list(describe(manifest, manifest.columns, {}))
    assert {each.scorer for each in described} == {None, "pixels", "captions"}
    assert set(explanations(manifest, manifest.columns)) == {"pixels", "captions"}


@pytest.mark.parametrize(
    ("given", "front"),
    [
        (None, {}),
        ("mit", {"license": "mit"}),
        (" odbl-1.0", {"license": "odbl"}),
        ("https://example.com/terms", {"license": "other", "license_link": "https://example.com/terms"}),
        ("ask us", {"license": "other", "license_name": "ask us"}),
    ],
)
def test_a_licence_is_one_that_the_hub_knows_or_other(given, front):
    assert licences.front_matter(given) == front


def test_title_license_and_homepage_are_keys_of_a_source_file(tmp_path):
    more = 'title = "Pets"\nlicense = "cc0-1.0"\nhomepage = "https://example.com/"\n'
    described = published_sources.listed(tmp_path, range(3), more=more)
    assert (described.title, described.license, described.homepage) == ("Pets", "cc0-1.0", "https://example.com/")
    for wrong, says in (('homepage = "javascript:x"', "is no web address"), ('title = "a\\nb"', "a line of text")):
        (tmp_path / "wrong.toml").write_text(f"{wrong}\n[demo]\n")
        with pytest.raises(SourceError, match=says):
            loading.load(tmp_path / "wrong.toml")


def test_a_recipe_without_filters(manifest, tmp_path):
    html = parts(export.write(Content(manifest, "uids", Recipe("all")), tmp_path / "all").path)[1]
    assert "There is no filter: every downloaded pair is kept." in html
    recipe = Recipe("odd", (Filter("odd", "caption NOT LIKE '%|%' OR length(caption) > 1 /* `x` */"),))
    html = parts(export.write(Content(manifest, "uids", recipe), tmp_path / "odd").path)[1]
    assert cells(html, "odd")[1] == recipe.filters[0].sql.replace(">", "&gt;")


def test_the_metadata_is_small_whatever_the_number_of_pieces(manifest, tmp_path):
    few = export.write(Content(manifest, "datasets"), tmp_path / "few").path / "croissant.json"
    many = export.write(Content(manifest, "datasets"), tmp_path / "many", piece=1).path / "croissant.json"
    assert len(many.read_bytes()) == len(few.read_bytes())
    assert json.loads(many.read_text())["distribution"][0]["includes"] == "data/train-*-of-00020.parquet"
    assert Image.open(io.BytesIO(published_sources.jpeg(50))).size == (64, 48)
