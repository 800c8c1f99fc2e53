"""The Python API on tiny sources: what the commands answer, as tables, arrays and pictures. Nothing is printed."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import polars as pl
import published_sources
import pyarrow as pa
import pytest

import winnow
from pipeline.store.storage import Storage

VECTORS = np.zeros((60, 2, 8), np.float16)
VECTORS[:, 0, 0] = 1
for number in range(60):
    VECTORS[number, 1, number % 8] = 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A source of 25 pairs in three shards, of which 44 failed; and the root of its results."""
    folder = tmp_path_factory.mktemp("python")
    described = published_sources.listed(folder, range(30, 55))
    published_sources.published(described, Storage(folder / "data" / "tiny"), failed={44})
    return winnow.Source.open(folder / "tiny.toml", folder / "data")


@pytest.fixture(scope="module")
def manifest(tiny):
    return winnow.Manifest.open(tiny)


def sharper(least):
    return winnow.Recipe("sharper", (winnow.Filter("sharper", f"pixels_sharpness >= {least}", "it is in focus"),))


def test_a_source_that_is_open_stays_as_it_is(tiny):
    assert winnow.Source.open(tiny) is tiny
    assert tiny.manifests == [winnow.Manifest.open(tiny).id]
    assert repr(tiny).startswith("Source('tiny', ")


def test_counts_recipe_and_columns(manifest):
    assert (manifest.source, manifest.counts.input, manifest.counts.failed, manifest.counts.kept) == ("tiny", 25, 1, 5)
    assert manifest.recipe.filters[0].sql == "pixels_sharpness >= 50"
    assert manifest.columns.field("pixels_sharpness").type == pa.float32()
    assert repr(manifest).endswith("5 of 24 pairs kept)")


def test_funnel_in_all_forms(manifest):
    funnel = manifest.funnel(sharper(45))
    assert (funnel.recipe, funnel.pool, funnel.kept, len(funnel.steps)) == ("sharper", 24, 10, 1)
    assert funnel.table().to_pylist()[0] == {
        "filter": "sharper", "sql": "pixels_sharpness >= 45", "why": "it is in focus",
        "alone": 10, "fails": 14, "unscored": 0, "sequence": 10, "costs": 14,
    }  # fmt: skip
    assert isinstance(funnel.table("pandas"), pd.DataFrame)
    assert isinstance(funnel.table("polars"), pl.DataFrame)
    assert [each.kept for each in manifest.compare(["everything", sharper(52)])] == [24, 3]


def test_a_funnel_shows_itself_and_escapes_what_people_wrote(manifest):
    hostile = winnow.Recipe("a", (winnow.Filter("b", "width > 0", "<script>alert(1)</script>"),))
    page = manifest.funnel(hostile)._repr_html_()
    assert "recipe a keeps 24 of 24 downloaded pairs" in page
    assert "<script>" not in page


def test_select_gives_the_kept_rows_in_ledger_order(manifest):
    chosen = manifest.select(sharper(50), ["caption", "pixels_sharpness"])
    assert chosen.column_names == ["caption", "pixels_sharpness"]
    assert chosen["pixels_sharpness"].to_pylist() == [50, 51, 52, 53, 54]
    assert manifest.select().column_names == ["uid"]
    assert len(manifest.select("everything", form="polars")) == 24
    assert len(manifest.select(form="pandas")) == 5


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda each: each.select(columns=["capton"]), winnow.QueryError, "did you mean 'caption'?"),
        (lambda each: each.select(columns="caption"), winnow.QueryError, "is a list of names: write ['caption']"),
        (lambda each: each.compare("everything"), winnow.RecipeError, "Manifest.funnel takes one recipe"),
        (lambda each: each.sample(5).funnel("everything"), winnow.RecipeError, "Manifest.funnel takes the name of one"),
        (lambda each: each.select("evrything"), winnow.RecipeError, "did you mean 'everything'?"),
        (lambda each: each.select(form="excel"), winnow.WinnowError, "take 'arrow', 'pandas' or 'polars'"),
        (lambda each: each.sql("drop table rows"), winnow.QueryError, "SELECT"),
        (lambda each: each.embeddings("clip"), winnow.ModelError, "no embeddings of 'clip'; it has those of none"),
        (lambda each: each.diff(), winnow.StorageError, "is the first of tiny"),
        (lambda each: each.sample(5, where="nothing > 1"), winnow.QueryError, "nothing"),
        (lambda each: winnow.Manifest.open(each.origin, "zz"), winnow.StorageError, "0 manifests begin with 'zz'"),
        (lambda each: winnow.train(each), winnow.SourceError, "there is no [task]"),
    ],
)
def test_errors_are_of_one_tree_and_one_line(manifest, call, error, words):
    with pytest.raises(error) as raised:
        call(manifest)
    assert isinstance(raised.value, winnow.WinnowError)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_sql_is_about_this_manifest_also_when_another_is_newer(tmp_path):
    described = published_sources.listed(tmp_path, range(30, 55))
    published_sources.published(described, Storage(tmp_path / "data" / "tiny"))
    old = winnow.Manifest.open(tmp_path / "tiny.toml", root=tmp_path / "data")
    new = old.publish(sharper(54))
    assert winnow.Manifest.open(old.origin).id == new.id != old.id
    assert [each.sql("SELECT count(*) FROM kept").column(0).to_pylist() for each in (old, new)] == [[5], [1]]
    assert len(old.sql("@worst-domains", form="polars")) == 1
    found = new.diff()
    assert (found.before, found.after) == (old.id, new.id)
    assert [(each.before, each.after, each.rows) for each in found.moves] == [("kept", "dropped", 4)]
    assert [each.rows for each in old.diff(new, examples=0).moves] == [4]


@pytest.mark.slow
def test_a_sample_has_pictures_and_tries_filters(manifest):
    sample = manifest.sample(10, seed=3)
    assert len(sample) == 10
    assert sample.rows == manifest.sample(10, seed=3).rows
    assert sample.rows["uid"] != manifest.sample(10, seed=4).rows["uid"]
    assert all(each.mode == "RGB" for each in sample.pictures)
    assert sample._repr_html_().count("<img") == 10
    assert sample.funnel(sharper(0)).kept == 10
    assert len(manifest.sample(100, where="pixels_sharpness > 52")) == 2


class Bright:
    """How bright a picture is, and how many words its caption has."""

    columns = {"mean": "float32", "words": "int32"}  # noqa: RUF012 - as a file has it

    def prepare(self, image):
        return float(np.asarray(image).mean())

    def score(self, batch):
        return {"mean": list(batch.images), "words": [len(each.split()) for each in batch.captions]}


def test_a_scorer_is_tried_then_put_into_a_file(manifest, tmp_path):
    sample = manifest.sample(12)
    tried = winnow.score(sample, Bright(), name="bright")
    assert tried.rows["bright_words"].to_pylist() == [3] * 12
    assert tried.funnel(winnow.Recipe("a", (winnow.Filter("b", "bright_mean >= 0"),))).kept == 12
    (tmp_path / "bright.py").write_text(
        "import numpy as np\n"
        'columns = {"mean": "float32", "words": "int32"}\n'
        "def prepare(image):\n    return float(np.asarray(image).mean())\n"
        "def score(batch):\n"
        '    return {"mean": list(batch.images), "words": [len(each.split()) for each in batch.captions]}\n'
    )
    assert winnow.score(sample, tmp_path / "bright.py", name="bright").rows == tried.rows
    assert "px_sharpness" in winnow.score(sample, {"kind": "pixels"}, name="px").rows.column_names


class Short:
    columns = {"mean": "float32"}  # noqa: RUF012 - as a file has it

    def score(self, batch):
        return {"mean": [1.0]}


class Broken:
    columns = {"mean": "float32"}  # noqa: RUF012 - as a file has it

    def score(self, batch):
        raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        (Short(), "has 1 values for 5 pairs"),
        (Broken(), "scorer 'mine' fails: KeyError: 'no such thing'"),
        (object(), "needs columns"),
        ({"kind": "pixel"}, "kind"),
        ({"kind": "duplicates", "of": "pixels"}, "need the whole pool"),
        ("missing.py", "missing.py"),
    ],
)
def test_a_wrong_scorer_is_one_line(manifest, scorer, words):
    with pytest.raises(winnow.WinnowError, match=words) as raised:
        winnow.score(manifest.sample(5), scorer)
    assert "\n" not in str(raised.value)


def test_embeddings_are_aligned_with_rows(tmp_path):
    published_sources.listed(tmp_path, range(30, 55))
    text = (tmp_path / "tiny.toml").read_text()
    (tmp_path / "tiny.toml").write_text(text + published_sources.recorded(tmp_path))
    source = winnow.Source.open(tmp_path / "tiny.toml", tmp_path / "data")
    vectors = VECTORS.copy()
    vectors[44] = np.nan
    published_sources.embedded(source.described, source.storage, vectors, failed={44})
    published_sources.published(source.described, source.storage, failed={44})
    manifest = winnow.Manifest.open(source)
    every = manifest.embeddings("recorded")
    assert (len(every), every.dim, every.pictures.shape) == (25, 8, (25, 8))
    captions = np.asarray(every.captions)
    assert captions.dtype == np.float16
    assert np.isnan(captions[14]).all()  # the failed pair has none
    assert np.array_equal(np.delete(captions, 14, 0), np.delete(VECTORS[30:55, 1], 14, 0))
    chosen = manifest.select(sharper(50))["uid"]
    some = manifest.embeddings("recorded", chosen.to_pylist()[::-1])
    assert np.array_equal(some.captions[:], VECTORS[54:49:-1, 1])
    assert np.array_equal(some.captions[1], VECTORS[53, 1])
    assert np.array_equal(some.captions[[2, 0]], VECTORS[[52, 54], 1])
    with pytest.raises(winnow.StorageError, match="has no pair 'x'"):
        manifest.embeddings("recorded", ["x"])


def test_export_writes_what_a_recipe_keeps(manifest, tmp_path):
    exported = manifest.export(tmp_path / "kept", "csv", sharper(53))
    assert (exported.pairs, exported.new) == (2, True)
    assert len((tmp_path / "kept" / "train.csv").read_text().splitlines()) == 3
    assert manifest.export(tmp_path / "kept", "csv", sharper(53)).new is False
    with pytest.raises(winnow.StorageError, match="already exists"):
        manifest.export(tmp_path / "kept", "csv")
    with pytest.raises(winnow.WinnowError, match="take one of webdataset"):
        manifest.export(tmp_path / "other", "excel")


def test_a_recipe_becomes_toml():
    assert '[[filters]]\nname = "sharper"\nsql = "pixels_sharpness >= 50"' in winnow.toml(sharper(50))


def test_importing_it_loads_no_torch_and_prints_nothing():
    code = "import sys, winnow; assert not {'torch', 'prefect', 'pandas', 'open_clip', 'typer'} & {*sys.modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_reading_prints_and_warns_nothing(manifest, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        manifest.funnel()
        manifest.select(columns=["caption"], form="pandas")
        manifest.sql("SELECT 1")
        manifest.sample(3)._repr_html_()
    assert capfd.readouterr() == ("", "")
