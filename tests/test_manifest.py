import json
import random
import threading

import duckdb
import numpy as np
import published_sources
import pyarrow as pa
import pytest

from filters.core import REST, Filter, Recipe
from pipeline.errors import RecipeError, StorageError
from pipeline.filtering.funnel import Overlap, Step
from pipeline.manifest.document import Counts, Document
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.verdicts import SCHEMA
from pipeline.store import duck, parquet
from pipeline.store.storage import Storage

SHARP, WIDE = Filter("sharp", "pixels_sharpness >= 50"), Filter("wide", "width >= 600", why="banners")


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


@pytest.fixture
def manifest(tmp_path, store):
    """25 pairs with sharpness 40 to 64: one failed, one without scores."""
    published_sources.published(published_sources.listed(tmp_path, range(40, 65)), store, failed={64}, unscored={63})
    return Manifest.open(store)


def test_a_funnel_counts_alone_in_sequence_and_unscored(manifest):
    steps = manifest.funnel(Recipe("both", (SHARP, WIDE)))
    assert steps == [
        Step("sharp", SHARP.sql, "", alone=13, fails=10, unscored=1, sequence=13, costs=1),
        Step("wide", WIDE.sql, "banners", alone=4, fails=20, unscored=0, sequence=3, costs=10),
    ]
    assert manifest.counts.pool == 24
    assert all(step.alone + step.fails + step.unscored == manifest.counts.pool for step in steps)


def test_a_funnel_without_filters_is_empty(manifest):
    assert manifest.funnel(Recipe("everything")) == []


def test_recipes_side_by_side(manifest):
    """By hand: sharp drops 40..49 and 63, wide 40..59; together they keep 60, 61, 62."""
    found = manifest.compare([Recipe("both", (SHARP, WIDE)), Recipe("one", (WIDE,)), Recipe("everything")])
    assert found.pool == 24
    assert [(each.recipe, each.kept) for each in found.funnels] == [("both", 3), ("one", 4), ("everything", 24)]
    assert found.funnels[0].overlaps == [Overlap("sharp", "wide", both=10, jaccard=round(10 / 21, 4))]
    assert [each.overlaps for each in found.funnels[1:]] == [[], []]
    assert found.shared == [
        Overlap("both", "one", 3, 0.75),
        Overlap("both", "everything", 3, 0.125),
        Overlap("one", "everything", 4, round(4 / 24, 4)),
    ]


def test_a_quantile_of_the_rest_moves_with_the_filters_before_it(manifest):
    """Of 24 pairs the 13 sharp ones are 50..62: their median is 56, that of all scored ones (40..62) is 51."""
    best = "pixels_sharpness >= (SELECT quantile_cont(pixels_sharpness, 0.5) FROM rows"
    pool, rest = Filter("pool", f"{best})"), Filter("rest", f"{best} WHERE {REST})")
    assert len(manifest.select(Recipe("one", (SHARP, pool)))) == 12
    recipe = Recipe("two", (SHARP, rest))
    sharp, last = manifest.funnel(recipe)
    assert (last.alone, last.sequence, last.costs) == (7, 7, 6)
    assert last.sql == rest.sql
    assert sharp.costs == 12 - 7  # without it the median is 51
    assert len(manifest.select(recipe)) == 7
    assert len(manifest.select(recipe.without("sharp"))) == 12
    assert len(manifest.select(Recipe("turned", (rest, SHARP)))) == 12


def test_a_funnel_of_many_filters_counts_each(manifest):
    """More answers than fit one number: 50 filters, of which the n-th drops what is less sharp than 40 + n / 2."""
    filters = tuple(Filter(f"at_least_{n}", f"pixels_sharpness >= {40 + n / 2}") for n in range(50))
    steps = manifest.funnel(Recipe("many", filters))
    values = np.array([*range(40, 63), np.nan])
    for step, each in zip(steps, range(50), strict=True):
        passes = int((values >= 40 + each / 2).sum())
        assert (step.alone, step.fails, step.unscored, step.sequence) == (passes, 23 - passes, 1, passes)


@pytest.mark.parametrize("column", ["pixels_sharpness", "width", "captions_words", "bytes", "pixels_phash"])
@pytest.mark.parametrize("operator", ["<", "<=", ">", ">="])
def test_a_quantile_is_the_same_as_a_number(manifest, column, operator):
    """A float, integers, and text, whose quantile is an error in both forms."""
    quantile = f"(SELECT quantile_cont({column}, 0.37) FROM rows)"
    short, long = Filter("one", f'"{column}" {operator} {quantile}'), Filter("one", f"({column} {operator} {quantile})")
    outcomes = []
    for each in (short, long):  # the second is no plain comparison, and stays as it is
        try:
            (step,) = manifest.funnel(Recipe("one", (each,)))
            chosen = manifest.select(Recipe("one", (each,)))["uid"].to_pylist()
            outcomes.append(((step.alone, step.fails, step.unscored, step.sequence, step.costs), chosen))
            assert step.sql == each.sql
        except RecipeError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert len(manifest._quantiles) == (0 if isinstance(outcomes[0], str) else 1)


def test_a_quantile_of_the_rest_is_published_so(tmp_path, store):
    rest = f"pixels_sharpness >= (SELECT quantile_cont(pixels_sharpness, 0.5) FROM rows WHERE {REST})"
    chosen = published_sources.listed(
        tmp_path, range(40, 65), filters=(published_sources.SHARP, {"name": "rest", "sql": rest})
    )
    done = published_sources.published(chosen, store, failed={64}, unscored={63})
    assert (done.counts.kept, Manifest.open(store).recipe) == (7, chosen.own_recipe)
    assert len(Manifest.open(store).select(chosen.own_recipe)) == 7


def test_a_funnel_ends_where_the_selection_does(manifest):
    for filters in ((SHARP,), (WIDE,), (WIDE, SHARP), ()):
        recipe = Recipe("some", filters)
        kept = manifest.select(recipe)
        assert len(kept) == (manifest.funnel(recipe)[-1].sequence if filters else manifest.counts.pool)
        assert kept.column_names == ["uid"]


def test_the_published_selection_is_the_recipes(manifest):
    assert manifest.recipe == Recipe("tiny", (SHARP,))
    assert manifest.select().equals(manifest.select(manifest.recipe))
    assert len(manifest.select()) == manifest.counts.kept


def test_a_quantile_is_over_all_rows_that_have_a_score(manifest):
    median = Filter("median", "pixels_sharpness >= (SELECT quantile_cont(pixels_sharpness, 0.5) FROM rows)")
    never = Filter("never", "width < 0")
    assert [step.alone for step in manifest.funnel(Recipe("all", (never, median)))] == [0, 12]


def test_check_names_the_typo(manifest):
    manifest.check(SHARP, WIDE)
    with pytest.raises(RecipeError, match="'pixels_sharpness'"):
        manifest.check(Filter("mine", "pixel_sharpness > 3"))
    with pytest.raises(RecipeError, match="'mine'"):
        manifest.funnel(Recipe("own", (SHARP, Filter("mine", "kept"))))


def test_a_filter_that_fails_on_a_row_is_named(manifest):
    with pytest.raises(RecipeError, match="filter 'mine' fails on a row"):
        manifest.select(Recipe("own", (SHARP, Filter("mine", "caption::INTEGER > 3"))))


def test_open_by_prefix(tmp_path, store, manifest):
    second = published_sources.published(published_sources.listed(tmp_path, range(40, 50)), store)
    assert Manifest.open(store).id == second.id
    assert Manifest.open(store, manifest.id).document == manifest.document
    assert Manifest.open(store, manifest.id[:8]).id == manifest.id
    with pytest.raises(StorageError, match="0 manifests begin with 'nothing'"):
        Manifest.open(store, "nothing")
    with pytest.raises(StorageError, match="2 manifests begin with ''"):
        Manifest.open(store, "")


def test_nothing_is_published_yet(store):
    with pytest.raises(StorageError, match="run `winnow curate`"):
        Manifest.open(store)


def test_a_manifest_that_was_never_committed_is_not_there(tmp_path, store, manifest):
    store.put_if_absent("manifests/feedface.json", b"{}")
    with pytest.raises(StorageError, match="0 manifests"):
        Manifest.open(store, "feed")
    assert len(commits(store)) == 1


def test_counts_must_add_up():
    told = {"input": 10, "repeated": 1, "kept": 2, "dropped": 3, "unscored": 3, "failed": 4, "quarantined": 0}
    assert Counts(**told).pool == 5
    for name, value in (("kept", 1), ("input", 9), ("unscored", 4)):
        with pytest.raises(StorageError, match="report this"):
            Counts(**{**told, name: value})


def test_a_folder_name_with_signs_of_a_glob(tmp_path):
    store = Storage(tmp_path / "run=3" / "it's [a] *?")
    published_sources.published(published_sources.listed(tmp_path, range(40, 65)), store)
    published_sources.published(published_sources.listed(tmp_path, range(40, 60)), store)
    manifest = Manifest.open(store)
    assert manifest.funnel(Recipe("own", (SHARP,)))[0].alone == 10
    with duckdb.connect(str(store.root / "catalog.duckdb"), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM rows").fetchall() == [(20,)]
    with manifest.connection() as con:
        assert "run" not in con.sql("FROM rows").columns


def test_one_of_an_older_winnow_says_what_to_do(manifest):
    older = {"neighbours": {"edges": "scores/duplicates-1/edges.parquet", "radius": 4}}
    older = Document.parse(json.dumps(json.loads(manifest.document.to_bytes()) | older))
    with pytest.raises(StorageError, match="of an older winnow: `winnow curate`"):
        Manifest(manifest.storage, manifest.id, older).funnel(Recipe("sharp", (SHARP,)))


def test_two_connections_at_once(manifest):
    def count(told):
        with manifest.connection() as con:
            told.append(con.execute("SELECT count(*) FROM rows WHERE kept").fetchall())

    told = []
    threads = [threading.Thread(target=count, args=(told,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [[(manifest.counts.kept,)]] * 8


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_rows_and_verdicts_of_many_parts_stay_aligned(tmp_path, store, threads):
    """Over a million rows in uneven parts and row groups: each verdict tells the number of its own row."""
    sizes = [300_000, 1, 65_536, 131_073, 250_000, 7, 300_000]
    rows, verdicts, start = [], [], 0
    for size in sizes:
        numbers = np.arange(start, start + size)
        of_rows = pa.table({"uid": numbers.astype(str), "n": numbers, "score": np.sin(numbers)})
        of_verdicts = {"kept": numbers % 2 == 0, "dropped_by": numbers.astype("u8"), "unknown": numbers.astype("u8")}
        rows.append(parquet.put_parquet(store, "rows", of_rows.schema, [of_rows]))
        verdicts.append(parquet.put_parquet(store, "verdicts", SCHEMA, [pa.table(of_verdicts)]).key)
        start += size
    both = [duck.file_list(map(store.fetch, keys)) for keys in ([each.key for each in rows], verdicts)]
    joined = f"read_parquet({both[0]}) POSITIONAL JOIN read_parquet({both[1]})"
    limits = sorted(random.Random(7).random() for _ in range(3))
    with duck.connect(tmp_path, threads=threads) as con:
        for where in ("true", "kept", "n % 7 = 3", *(f"score > {limit}" for limit in limits)):
            wrong = "count(*) FILTER (n <> dropped_by OR kept <> (n % 2 = 0))"
            row = con.execute(f"SELECT {wrong}, count(n) > 100000 FROM {joined} WHERE {where}").fetchall()
            assert row == [(0, True)]
        assert con.sql(f"SELECT n FROM {joined}").to_arrow_table()["n"].to_numpy().tolist() == list(range(start))
