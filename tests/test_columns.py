"""Extra columns may have any name that winnow's own SQL uses inside, and keep their values everywhere."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_sources import published

from filters.core import Distinct, Filter, Recipe
from pipeline.errors import SourceError
from pipeline.export import export
from pipeline.export.content import Content
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.manifest.columns import score_columns
from pipeline.manifest.manifest import Manifest
from pipeline.pages import charts
from pipeline.pages.explore.rows import Rows
from pipeline.schema import RESERVED
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.sources.columns import check_columns, row_columns
from pipeline.store.storage import Storage
from pipeline.upkeep import retry, reuse

INSIDE = (
    "filename", "row", "number", "slot", "of", "whose", "ok", "f0", "p0", "no", "rows", "picture", "best", "first",
    "pairs", "numbers", "pages", "slots", "held", "failed", "later", "current", "value", "label", "side", "bits",
    "image", "title", "ordinal", "captions_hint", "pixels_sharpness_of_the_list", "Quality Score",
)  # fmt: skip
"""Names that the project's SQL gives to tables, columns and aliases; two that begin as scores do; one with a blank."""


def listed(folder, name="own", more=""):
    pairs = [(f"http://host/{number}.jpg", f"picture number {number}") for number in range(40, 65)]
    columns = {"url": [url for url, _ in pairs], "caption": [caption for _, caption in pairs]}
    columns |= {each: list(range(100, 125)) for each in INSIDE}
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / f"{name}.toml").write_text(
        f'{more}[pairs]\nlocation = "{name}.parquet"\nextra = {list(INSIDE)}\n[download]\nshard_size = 10\n'
        '[scorers.pixels]\nkind = "pixels"\n[scorers.captions]\nkind = "captions"\n'
        '[scorers.duplicates]\nkind = "duplicates"\nof = "pixels"\nradius = 2\n'
        '[distinct]\nof = "sha256"\nradius = 0\nbest_by = "best"\n'
        "[[filters]]\nname = \"ok\"\nsql = 'ok > 100 AND f0 > 100 AND filename > 100 AND rows > 100'\n"
    )
    return loading.load(folder / f"{name}.toml")


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "results" / "own")


def values(manifest):
    with manifest.connection() as con:
        return con.sql("SELECT * FROM rows").to_arrow_table().select(list(INSIDE)).to_pylist()


def test_a_name_that_winnow_uses_inside_keeps_its_values(tmp_path, store):
    described = listed(tmp_path)
    published(described, store, failed={52})
    expected = [dict.fromkeys(INSIDE, number) for number in range(100, 125)]
    assert values(Manifest.open(store)) == expected
    assert retry.append(described, store, ["http_404"]) == 1
    second = published(described, store)
    manifest = Manifest.open(store)
    key = lambda row: row["row"]  # noqa: E731
    assert sorted(values(manifest), key=key) == expected
    assert second.counts.kept == 24
    steps = manifest.funnel(Recipe("r", (Filter("f", "number > 110 AND slot < 120"),), Distinct(0, "pairs", "sha256")))
    assert steps[0].sequence == 9
    export.write(Content(manifest, "datasets"), tmp_path / "out")
    (file,) = (tmp_path / "out" / "data").iterdir()
    assert {"image", "source_image", "row", "filename"} <= set(pq.read_schema(file).names)
    rows = Rows(manifest, tmp_path)
    assert sorted(rows.read([0, 3], ["slot", "filename"]).to_pylist(), key=str) == [
        {"slot": 100, "filename": 100}, {"slot": 103, "filename": 103},
    ]  # fmt: skip


def test_a_union_takes_over_what_its_members_have_whatever_their_columns_are_called(tmp_path, store):
    published(listed(tmp_path), store)
    both = Storage(tmp_path / "results" / "both")
    (tmp_path / "both.toml").write_text(
        '[union]\n"own.toml" = 1\n[download]\nshard_size = 10\n[scorers.pixels]\nkind = "pixels"\n'
        '[scorers.captions]\nkind = "captions"\n'
    )
    union = loading.load(tmp_path / "both.toml")
    ledger = ingest.update(union, both)
    reuse.reuse(Plan.of(union), both, ledger.shards)
    publish.publish(Plan.of(union), both, ledger, {})
    assert values(Manifest.open(both)) == [dict.fromkeys(INSIDE, number) for number in range(100, 125)]


def test_a_column_that_begins_as_a_score_does_is_no_score(tmp_path, store):
    published(listed(tmp_path), store)
    manifest = Manifest.open(store)
    scores = score_columns(manifest)
    assert {"pixels_sharpness", "captions_words", "captions_language", "duplicates_count"} <= scores
    assert not scores & {"captions_hint", "pixels_sharpness_of_the_list", "width"}
    assert {each.name for each in charts.histogram_fields(manifest)} <= scores | {"width", "height"}


def test_members_of_a_union_may_not_disagree_on_case(tmp_path):
    for name, column in (("a", "Label"), ("b", "label")):
        pq.write_table(pa.table({"url": ["u"], "caption": ["c"], column: ["x"]}), tmp_path / f"{name}.parquet")
        (tmp_path / f"{name}.toml").write_text(f'[pairs]\nlocation = "{name}.parquet"\nextra = ["{column}"]\n')
    (tmp_path / "both.toml").write_text('[union]\n"a.toml" = 1\n"b.toml" = 1\n')
    with pytest.raises(SourceError, match=r"both.toml: \[union\]: the extra column 'Label' and .* 'label'"):
        loading.load(tmp_path / "both.toml")


def test_every_reserved_name_is_refused_in_any_case():
    for name in RESERVED | {"__anything"}:
        for spelled in (name, name.upper(), name.title()):
            with pytest.raises(ValueError, match=r"pairs\.extra: "):
                check_columns([spelled], {})
    check_columns(INSIDE, {})
    assert row_columns(pa.schema({"x": pa.int8()}), {}).names[-1] == "x"
