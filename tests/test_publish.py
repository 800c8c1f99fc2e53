import json
import multiprocessing
import resource
import threading
from collections import Counter
from dataclasses import asdict

import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.core import Filter, Recipe
from pipeline.errors import RecipeError, StorageError
from pipeline.manifest import publish
from pipeline.manifest.document import Document
from pipeline.manifest.log import commit, commits
from pipeline.manifest.manifest import Manifest
from pipeline.scoring.plan import Plan
from pipeline.store.damage import damaged
from pipeline.store.digests import digest
from pipeline.store.storage import Storage


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def files(store):
    """Every object with the time it was made; what a running process leaves for itself is none."""
    return {
        str(path.relative_to(store.root)): path.stat().st_mtime_ns
        for path in store.root.rglob("*")
        if path.is_file() and ".tmp" not in path.parts
    }


def statuses(store):
    with Manifest.open(store).connection() as con:
        return dict(con.execute("SELECT status, count(*) FROM rows GROUP BY ALL").fetchall())


def test_every_row_is_accounted_for(tmp_path, store):
    repeated = [("picture number 45", "http://host/45.jpg")] * 3
    described = published_sources.listed(tmp_path, range(40, 65), rows=repeated)
    done = published_sources.published(
        described, store, failed={60, 61}, unscored={62}, quarantined={1: "the shard took too long"}
    )
    assert asdict(done.counts) == {
        "input": 28, "repeated": 3, "kept": 2, "dropped": 11, "unscored": 1, "failed": 2, "quarantined": 10,
    }  # fmt: skip
    assert statuses(store) == {"ok": 13, "failed": 2, "quarantined": 10}
    with Manifest.open(store).connection() as con:
        rows = con.execute("SELECT url, status, cause, error, kept, dropped_by, unknown FROM rows").fetchall()
    told = {url.rpartition("/")[2].removesuffix(".jpg"): rest for url, *rest in rows}
    assert list(told) == [str(number) for number in range(40, 65)]
    assert told["41"] == ["ok", None, None, False, ["sharp"], []]
    assert told["55"] == ["quarantined", "quarantined", "the shard took too long", False, [], []]
    assert told["61"] == ["failed", "http_404", "HTTP Error 404: Not Found", False, [], []]
    assert told["62"] == ["ok", None, None, False, ["sharp"], ["sharp"]]
    assert told["63"] == ["ok", None, None, True, [], []]


def test_same_input_same_id_and_nothing_is_written(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 70))
    first = published_sources.published(described, store, failed={44})
    before = files(store)
    again = published_sources.published(described, store, failed={44})
    assert (first.new, again.new) == (True, False)
    assert (again.id, again.counts) == (first.id, first.counts)
    assert files(store) == before
    elsewhere = published_sources.published(
        published_sources.listed(tmp_path / "b", range(40, 70)), Storage(tmp_path / "other"), failed={44}
    )
    assert elsewhere.id == first.id


def test_another_recipe_reuses_the_rows(tmp_path, store):
    first = published_sources.published(published_sources.listed(tmp_path, range(40, 70)), store)
    parts = Manifest.open(store).parts
    second = published_sources.published(
        published_sources.listed(tmp_path, range(40, 70), filters=(published_sources.SHARP, published_sources.WORDED)),
        store,
    )
    assert second.id != first.id
    assert second.new
    assert [part.rows for part in Manifest.open(store).parts] == [part.rows for part in parts]
    assert len(store.keys("rows")) == 1
    back = published_sources.published(published_sources.listed(tmp_path, range(40, 70)), store)
    assert (back.id, back.new) == (first.id, True)
    assert [commit.parent for commit in commits(store)] == [None, first.id, second.id]


def test_publishing_anew_is_what_the_source_would_publish(tmp_path, store):
    """Only the recipe differs, so that the manifest is the one that an edited source file gives, by its id."""
    both = Recipe("tiny", (Filter(**published_sources.SHARP, why="blur"), Filter(**published_sources.WORDED)))
    first = published_sources.published(
        published_sources.listed(tmp_path, range(40, 70)), store, failed={44}, unscored={45}
    )
    before = set(files(store))
    second = publish.republish(store, both)
    edited = published_sources.listed(
        tmp_path, range(40, 70), filters=(published_sources.SHARP, published_sources.WORDED)
    )
    assert published_sources.published(edited, store) == publish.Published(second.id, False, second.counts)
    assert publish.republish(store, both) == publish.Published(second.id, False, second.counts)
    assert [commit.parent for commit in commits(store)] == [None, first.id]
    assert Manifest.open(store).recipe == both
    assert {name.partition("/")[0] for name in set(files(store)) - before} == {"verdicts", "manifests", "log"}


def test_damaged_verdicts_are_written_again_and_named(tmp_path, store):
    """A COPY over the file: publish said that nothing had changed, and 1,122 kept pairs were 2,488."""
    described = published_sources.listed(tmp_path, range(40, 50))
    first = published_sources.published(described, store)
    (key,) = (part.verdicts for part in Manifest.open(store).parts)
    whole = store.fetch(key).read_bytes()
    table = pq.read_table(store.fetch(key))
    forged = table.set_column(0, "kept", pa.array([True] * len(table)))
    pq.write_table(forged, store.fetch(key))
    assert damaged(store) == [key]
    again = published_sources.published(described, store)
    assert again == publish.Published(first.id, False, first.counts, repaired=(key,))
    assert store.fetch(key).read_bytes() == whole
    assert damaged(store) == []
    assert published_sources.published(described, store).repaired == ()


def test_damaged_rows_are_named_and_written_again_by_curate(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 50))
    published_sources.published(described, store)
    (key,) = (part.rows for part in Manifest.open(store).parts)
    whole = store.fetch(key).read_bytes()
    store.fetch(key).write_bytes(whole[:-100])
    with pytest.raises(StorageError, match=f"{key} is damaged: run `winnow curate`"):
        publish.republish(store, Recipe("none"))
    published_sources.published(described, store)
    assert store.fetch(key).read_bytes() == whole


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("clip_similarity > 0.3", "recipe 'own' does not fit the published scores: filter 'own': there is no column"),
        ("caption::INTEGER > 3", "filter 'own' fails on a row"),
        ("error = 'dog'", "recipe 'own': no pair has the scores that filter 'own' needs"),
    ],
)
def test_without_scores_nothing_is_published_anew(tmp_path, store, sql, told):
    published_sources.published(published_sources.listed(tmp_path, range(40, 50)), store)
    with pytest.raises(RecipeError, match=told):
        publish.republish(store, Recipe("own", (Filter("own", sql),)))
    assert len(commits(store)) == 1


def test_only_the_reason_changed(tmp_path, store):
    first = published_sources.published(published_sources.listed(tmp_path, range(3)), store)
    second = published_sources.published(
        published_sources.listed(tmp_path, range(3), filters=({**published_sources.SHARP, "why": "blur"},)), store
    )
    assert second == publish.Published(first.id, False, first.counts)


def test_growing_reordered_and_shrunken_sources(tmp_path, store):
    published_sources.published(published_sources.listed(tmp_path, range(40, 70)), store)
    grown = published_sources.published(published_sources.listed(tmp_path, [*range(40, 50), 99, *range(50, 70)]), store)
    assert asdict(grown.counts) | {"input": 31, "kept": 21, "dropped": 10} == asdict(grown.counts)
    reordered = published_sources.published(published_sources.listed(tmp_path, [*range(69, 39, -1), 99]), store)
    assert reordered == publish.Published(grown.id, False, grown.counts)
    shrunken = published_sources.published(published_sources.listed(tmp_path, [45, 99, 55]), store)
    assert asdict(shrunken.counts) | {"input": 3, "kept": 2, "dropped": 1} == asdict(shrunken.counts)
    with Manifest.open(store).connection() as con:
        urls = con.execute("SELECT url, kept FROM rows").fetchall()
    assert urls == [("http://host/45.jpg", False), ("http://host/55.jpg", True), ("http://host/99.jpg", True)]


@pytest.mark.slow
def test_a_source_that_grows_by_a_part_keeps_the_first(tmp_path, store):
    published_sources.published(published_sources.listed(tmp_path, range(100), shard_size=1), store)
    first = Manifest.open(store).parts
    published_sources.published(published_sources.listed(tmp_path, range(103), shard_size=1), store)
    second = Manifest.open(store).parts
    assert [part.count for part in second] == [100, 3]
    assert second[0] == first[0]


def test_a_quarantined_shard_that_recovers(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 60))
    ill = published_sources.published(described, store, quarantined={0: "killed"})
    well = published_sources.published(described, store)
    assert (ill.counts.quarantined, well.counts.quarantined) == (10, 0)
    assert well.new
    assert statuses(store) == {"ok": 20}


def test_a_shard_can_be_quarantined_after_its_download(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 60))
    ledger = published_sources.finish(described, store)
    done = publish.publish(Plan.of(described), store, ledger, {1: "score, shard 00001: out of memory"})
    assert done.counts.quarantined == 10
    with Manifest.open(store).connection() as con:
        assert con.execute("SELECT count(width), count(pixels_sharpness) FROM rows").fetchall() == [(10, 10)]


@pytest.mark.parametrize(("numbers", "kept"), [([3], 0), ([77], 1), (range(20), 0)])
def test_one_row_and_no_row_kept(tmp_path, store, numbers, kept):
    done = published_sources.published(published_sources.listed(tmp_path, numbers), store)
    assert done.counts.kept == kept
    assert len(Manifest.open(store).select()) == kept


def test_every_pair_failed(tmp_path, store):
    done = published_sources.published(published_sources.listed(tmp_path, range(20)), store, failed=set(range(20)))
    assert (done.counts.failed, done.counts.pool) == (20, 0)


def test_without_filters_everything_downloaded_is_kept(tmp_path, store):
    done = published_sources.published(
        published_sources.listed(tmp_path, range(20), filters=()), store, failed={3}, unscored={4}
    )
    assert (done.counts.kept, done.counts.failed) == (19, 1)


def test_not_a_number_is_no_score(tmp_path, store):
    described = published_sources.listed(tmp_path, range(60, 62))
    ledger = published_sources.finish(described, store)
    key = next(key for key in store.keys(_folder(store, "pixels")) if key.endswith(".parquet"))
    table = pq.read_table(store.fetch(key))
    nan = table.set_column(table.column_names.index("pixels_sharpness"), "pixels_sharpness", [[float("nan"), 61.0]])
    published_sources.put_table(store, key, nan.select(table.column_names))
    done = publish.publish(Plan.of(described), store, ledger, {})
    assert (done.counts.kept, done.counts.unscored) == (1, 1)


def test_a_missing_result_is_an_error_and_nothing_is_published(tmp_path, store):
    described = published_sources.listed(tmp_path, range(20))
    ledger = published_sources.finish(described, store, without={1})
    with pytest.raises(StorageError, match=r"00001\.parquet is missing"):
        publish.publish(Plan.of(described), store, ledger, {})
    assert commits(store) == []


def test_results_of_other_pairs_are_an_error(tmp_path, store):
    described = published_sources.listed(tmp_path, range(20))
    ledger = published_sources.finish(described, store)
    keys = [key for key in store.keys(_folder(store, "captions")) if key.endswith(".parquet")]
    published_sources.put_table(store, keys[0], pq.read_table(store.fetch(keys[1])))
    with pytest.raises(StorageError, match="is not aligned"):
        publish.publish(Plan.of(described), store, ledger, {})


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("pixels_sharpnes > 3", "did you mean 'pixels_sharpness'"),
        ("caption::INTEGER > 3", "filter 'own' fails on a row"),
    ],
)
def test_a_bad_filter_publishes_nothing(tmp_path, store, sql, told):
    fine = {"name": "fine", "sql": "width > 3"}
    with pytest.raises(RecipeError, match=told) as raised:
        published_sources.published(
            published_sources.listed(tmp_path, range(20), filters=(fine, {"name": "own", "sql": sql})), store
        )
    assert "\n" not in str(raised.value)
    assert commits(store) == []


def test_63_filters_fit_a_verdict(tmp_path, store):
    filters = [{"name": f"f{number}", "sql": f"width <> {number * 10}"} for number in range(63)]
    done = published_sources.published(published_sources.listed(tmp_path, range(64), filters=filters), store)
    assert done.counts.kept == 1
    with Manifest.open(store).connection() as con:
        rows = con.execute("SELECT width, dropped_by FROM rows WHERE NOT kept").fetchall()
    assert all(dropped == [f"f{width // 10}"] for width, dropped in rows)


def test_the_card_tells_what_made_it(tmp_path, store):
    published_sources.published(published_sources.listed(tmp_path, range(20)), store, unscored={19})
    card = Manifest.open(store).card
    assert card["ranges"]["pixels_sharpness"] == {"count": 19, "min": 0, "mean": 9, "max": 18}
    assert card["repeats"] == {"pairs": 20, "pictures": 20, "captions": 20}
    assert {"python", "duckdb", "pyarrow", "torch"} <= set(card["versions"])
    assert all(made_by for made_by in card["made_by"].values())


@pytest.mark.slow
def test_a_reader_sees_whole_manifests_only(tmp_path, store):
    seen, faults, over = Counter(), [], threading.Event()

    def read():
        while not over.is_set():
            try:
                if commits(store):
                    manifest = Manifest.open(store)
                    with manifest.connection() as con:
                        rows = con.execute("SELECT count(*), count(*) FILTER (kept) FROM rows").fetchone()
                    assert rows == (manifest.counts.input, manifest.counts.kept)
                    seen[manifest.id] += 1
            except Exception as error:  # noqa: BLE001
                faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        ids = {
            published_sources.published(published_sources.listed(tmp_path, range(40, 60 + more)), store).id
            for more in range(12)
        }
    finally:
        over.set()
        reader.join()
    assert faults == []
    assert set(seen) <= ids
    assert len(seen) > 1


def _commit_many(root, name, count):
    store = Storage(root)
    for number in range(count):
        assert commit(store, f"{name}{number}")


@pytest.mark.slow
def test_publishers_at_once_each_get_a_number(store):
    writers = [
        multiprocessing.get_context("spawn").Process(target=_commit_many, args=(store.root, name, 20)) for name in "ab"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    published = commits(store)
    assert [commit.number for commit in published] == list(range(40))
    assert {commit.id for commit in published} == {f"{name}{number}" for name in "ab" for number in range(20)}
    assert [commit.parent for commit in published[1:]] == [commit.id for commit in published[:-1]]


def test_a_disk_that_is_full_loses_nothing(tmp_path, store):
    before = published_sources.published(published_sources.listed(tmp_path, range(40, 43)), store)
    described = published_sources.listed(tmp_path, range(40, 340), shard_size=100)
    ledger = published_sources.finish(described, store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(StorageError, match="nothing is lost"):
            publish.publish(Plan.of(described), store, ledger, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert Manifest.open(store).id == before.id
    assert publish.publish(Plan.of(described), store, ledger, {}).counts.input == 300


def test_the_document_is_what_the_id_says(tmp_path, store):
    done = published_sources.published(published_sources.listed(tmp_path, range(20)), store)
    raw = store.fetch(f"manifests/{done.id}.json").read_bytes()
    document = Document.parse(raw)
    assert digest(json.loads(raw))[:32] == document.id == done.id
    assert document.to_bytes() == raw


def _folder(store, scorer):
    return next(f"scores/{path.name}" for path in (store.root / "scores").iterdir() if path.name.startswith(scorer))
