"""`winnow gc`: what nothing needs goes, to the byte, and everything that is published still opens."""

import json
import multiprocessing
import os
import random
import shutil
import threading
import time
from dataclasses import asdict

import duckdb
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3_server
from published_sources import SHARP, WORDED, listed, put, put_table
from typer.testing import CliRunner

from flows import cli
from pipeline.errors import BusyError, SourceError, StorageError
from pipeline.ledger import ingest
from pipeline.ledger.blocklist import Blocked
from pipeline.manifest import database, publish, views
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.review import diff
from pipeline.review.labels import Labels
from pipeline.review.sample_source import sample_source, sample_storage
from pipeline.scoring.plan import Plan
from pipeline.sources import loading, owner
from pipeline.store import cache, tarfiles
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request as Takedown
from pipeline.upkeep import forget, gc

DUPLICATES = '[scorers.duplicates]\nkind = "duplicates"\nof = "pixels"\nradius = {}\n'
SMALLER = "[download]\nimage_size = 96\n"
ALWAYS = (
    "ledger/",
    "forgotten/",
    "labels/",
    "trials/",
    "draws/",
    "gains/",
    "models/",
    "sweeps/",
    "mine/",
    "source.json",
)


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "data" / "tiny")


def objects(store):
    """The bytes of every object, without the catalogue, which is written anew."""
    return {
        path.relative_to(store.root).as_posix(): path.stat().st_size
        for path in store.root.rglob("*")
        if path.is_file() and path.name not in (".lock", database.KEY, database.TRIALS)
    }


def text(store, key, words="{}"):
    put(store, key, lambda path: path.write_text(words))


def source(folder, numbers=range(40, 60), radius=2, settings="", filters=(SHARP, WORDED)):
    """The source, whose scores of the whole pool and download have these settings."""
    made = listed(folder, numbers, filters=filters, more=DUPLICATES.format(radius))
    toml = made.path.read_text().replace("[download]\n", settings or "[download]\n")
    made.path.write_text(toml)
    return loading.load(made.path)


def history(folder, store):
    """Five manifests: other settings, a takedown, the present settings, another recipe, more pairs; and leavings.

    The first is not complete, because pair 45 was taken down.
    """
    described = source(folder, settings=SMALLER)
    owner.claim(described, store)
    ids = [published_sources.published(described, store).id]
    (folder / "list.txt").write_text("http://host/45.jpg\n")
    ids.append(forget.forget(store, Takedown.read(folder / "list.txt"), described).manifest)
    ids.append(published_sources.published(source(folder), store).id)
    ids.append(published_sources.published(source(folder, filters=(SHARP,)), store).id)
    described = source(folder, range(40, 70))
    ids.append(published_sources.published(described, store, failed={61}).id)
    plan = Plan.of(described)
    for key in (plan.shards.key, "0a1b2c3d"):  # features of pictures under the present key and under a lost one
        folder_ = f"features/hog-{key}"
        text(store, f"{folder_}/key.json", json.dumps({"shards": key}))
        text(store, f"{folder_}/00000-aa.npz", "features")
    text(store, "features/hog-ffffffff/key.json", json.dumps({"heldout": True}))
    text(store, "features/hog-ffffffff/00aa.npz", "held out")
    text(store, "shards-0a1b2c3d/00000.tar", "pictures")
    text(store, "scores/pixels-0a1b2c3d/00000.parquet", "scores")
    text(store, "embeddings/clip-0a1b2c3d/00000.npy", "embeddings")
    text(store, "pairs/00009-0a1b2c3d.parquet", "never committed")
    text(store, "rows/" + "0" * 64 + ".parquet", "rows")
    text(store, "rows/by-input/" + "0" * 64 + ".json", json.dumps({"key": "rows/lost", "count": 1}))
    text(store, "verdicts/" + "0" * 64 + ".parquet", "verdicts")
    text(store, "manifests/" + "0" * 32 + ".json", "not committed")
    trial = "trials/" + "a" * 32
    text(store, f"{trial}.json")
    text(store, f"{trial}.claim-0")
    text(store, "trials/" + "b" * 32 + ".claim-0")
    text(store, "checkpoints/trials-" + "a" * 32 + "-head.safetensors", "done")
    text(store, "checkpoints/trials-" + "b" * 32 + ".safetensors", "resumes")
    text(store, "models/small-0a1b2c3d/training.json")
    text(store, "checkpoints/small-0a1b2c3d.safetensors", "done")
    put_table(store, "draws/aa.parquet", pa.table({"uid": ["a"], "arm": ["raw"], "times": [1]}))
    for key in ("gains/aa.json", "sweeps/grid.json", "mine/notes.txt"):
        text(store, key)
    Labels(store).put("http://host/46.jpg", "picture number 46", "good")
    return described, ids


def published(store):
    """What can be seen of every manifest that stays, from SQL to pictures."""
    seen = {}
    for each in dict.fromkeys(commit.id for commit in commits(store)):
        manifest = Manifest.open(store, each)
        if manifest.complete:
            with manifest.connection() as con:
                rows = con.sql("FROM rows ORDER BY uid").to_arrow_table().to_pylist()
            seen[each] = (asdict(manifest.counts), manifest.select().to_pydict(), rows)
            assert manifest.funnel(manifest.recipe)
            for row in rows:
                if row["status"] == "ok":
                    assert tarfiles.Tars(store, manifest.stages.shards).read(row["shard"], row["member"])
    return seen


def again(described, store):
    """The manifest that a run publishes, which finds every result there and reads the same list."""
    ledger = ingest.update(described, store)
    plan = Plan.of(described)
    assert plan.results(store, ledger, ()).complete(store, ledger.shards)
    return publish.unchanged(plan, store, ledger)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return folder, *history(folder, Storage(folder / "data" / "tiny"))


@pytest.fixture
def full(made, store):
    """The source of `history`, its manifests, and a copy of its store in `store`."""
    folder, described, ids = made
    shutil.copytree(folder / "data" / "tiny", store.root)
    return described, ids


def test_what_goes_is_told_to_the_byte_and_all_that_is_published_stays(store, full):
    described, ids = full
    before, seen = objects(store), published(store)
    table = views.manifests([store]).select(["id", "complete"]).to_pydict()
    told = gc.preview(store, gc.Request(described))
    assert objects(store) == before

    assert gc.collect(store, gc.Request(described)) == told
    after = objects(store)
    gone = before.keys() - after.keys()
    assert told.bytes == sum(before.values()) - sum(after.values()) == sum(before[key] for key in gone)
    assert (told.objects, told.kept, told.dropped) == (len(gone), list(dict.fromkeys(ids)), [])
    assert not [key for key in gone if key.startswith(ALWAYS) and ".claim" not in key]
    lost = ("0a1b2c3d/", "pairs/00009", "rows/000", "rows/by-input/000", "verdicts/000", "manifests/000")
    for word in (*lost, "trials/" + "a" * 32 + ".claim-0", "checkpoints/trials-aaa", "checkpoints/small"):
        assert [key for key in gone if word in key]
        assert not [key for key in after if word in key and "models" not in key]

    assert published(store) == seen
    assert views.manifests([store]).select(["id", "complete"]).to_pydict() == table
    same = again(described, store)
    assert same is not None
    assert (same.id, same.new) == (ids[-1], False)
    assert gc.preview(store, gc.Request(described)).objects == 0


def test_older_manifests_go_with_what_they_alone_need_and_say_so(store, full):
    described, ids = full
    gc.collect(store, gc.Request(described))
    before, old = objects(store), Manifest.open(store, ids[1])
    told = gc.preview(store, gc.Request(described, keep=2))
    assert gc.collect(store, gc.Request(described, keep=2)) == told
    after = objects(store)
    left = {key: size for key, size in after.items() if not key.startswith("removed/")}
    assert told.bytes == sum(before.values()) - sum(left.values()) > 0
    assert told.dropped == ids[:3]
    assert f"shards-{old.stages.shards}" in {each.what for each in told.removals}
    assert not [key for key in after if old.stages.shards in key]

    assert [each.id for each in commits(store)] == ids[3:]
    assert again(described, store).id == ids[-1]
    for read in (lambda: Manifest.open(store, ids[1]), old.files, lambda: Manifest.open(store, ids[0][:12])):
        with pytest.raises(StorageError, match=r"was removed by `winnow gc --keep`, and its rows with it: take"):
            read()
    with pytest.raises(StorageError, match="there is no manifest -3: 2 are published"):
        Manifest.open(store, "-3")
    assert views.manifests([store])["id"].to_pylist() == ids[3:]
    with duckdb.connect(str(store.fetch(database.KEY)), read_only=True) as con:
        assert con.sql("SELECT count(DISTINCT manifest) FROM history").fetchall() == [(2,)]
    assert gc.preview(store, gc.Request(described, keep=2)).objects == 0


@pytest.mark.slow
def test_an_old_recipe_that_is_published_again_is_a_manifest_like_any_other(tmp_path, store):
    first = published_sources.published(source(tmp_path), store)
    other = published_sources.published(source(tmp_path, filters=(SHARP,)), store)
    gc.collect(store, gc.Request(source(tmp_path, filters=(SHARP,)), keep=1))
    described = source(tmp_path)
    assert published_sources.published(described, store).id == first.id
    assert Manifest.open(store, first.id).funnel(Manifest.open(store).recipe)
    assert [each.id for each in commits(store)] == [other.id, first.id]
    assert not diff.between(*(Manifest.open(store, each) for each in (other.id, first.id)), examples=0).certificates


def test_scores_of_a_pool_that_a_stopped_run_left_are_used_by_the_next(tmp_path, store):
    published_sources.published(source(tmp_path), store)
    described = source(tmp_path, range(40, 70))
    ledger = published_sources.finish(described, store)
    published_sources.pool.run(Plan.of(described), store, ledger, {})
    assert gc.collect(store, gc.Request(described)).objects == 0
    assert Plan.of(described).results(store, ledger, ()).complete(store, ledger.shards)
    assert [each.what for each in gc.preview(store, gc.Request(source(tmp_path, range(40, 70), radius=4))).removals]


@pytest.mark.slow
def test_a_union_that_copies_keeps_what_it_would_copy(tmp_path, store, monkeypatch):
    (tmp_path / "data_manifests").mkdir()
    monkeypatch.chdir(tmp_path)
    described = source(tmp_path / "data_manifests", settings=SMALLER)
    published_sources.published(described, store)
    old = Plan.of(described)
    described = source(tmp_path / "data_manifests")
    newest = published_sources.published(described, store)
    union = tmp_path / "data_manifests" / "both.toml"
    union.write_text(f'filters = []\n[union]\ntiny = 1.0\n{SMALLER}[scorers.pixels]\nkind = "pixels"\n')
    told = gc.collect(store, gc.Request(described, keep=1))
    assert told.kept == [newest.id]
    assert store.find(f"{old.shards.folder}/*.tar")
    assert store.find(f"{old.scores['pixels'].folder}/*.parquet")
    assert not store.find(f"{old.scores['captions'].folder}/*.parquet")
    union.write_text("filters = []\n[union]\ntiny = 2.0\n")
    with pytest.raises(SourceError, match="both.toml"):
        gc.preview(store, gc.Request(described))


@pytest.mark.slow
def test_killed_at_any_removal_the_next_call_finishes_and_nothing_published_is_torn(tmp_path, store, full):
    described, ids = full
    whole = Storage(tmp_path / "whole" / "tiny")
    shutil.copytree(store.root, whole.root)
    gc.collect(whole, gc.Request(described, keep=1))
    rng, kills, status = random.Random(0), 0, None
    while status != 0:
        process = multiprocessing.get_context("fork").Process(
            target=_collect_until, args=(store, described, rng.randint(1, 14))
        )
        process.start()
        process.join()
        kills, status = kills + bool(process.exitcode), process.exitcode
        for each in commits(store):
            manifest = Manifest.open(store, each.id)
            if manifest.complete or each.id == ids[-1]:
                assert len(manifest.select()) == manifest.counts.kept
    assert kills > 1
    assert objects(store).keys() == objects(whole).keys()
    assert store.done(database.KEY)


def _collect_until(store, described, count):
    """Collect, and die without any cleaning up before removal number `count`."""
    remove, left = store.remove, [count]

    def mortal(key):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), 9)
        remove(key)

    store.remove = mortal
    gc.collect(store, gc.Request(described, keep=1))


def test_it_takes_its_turn_and_refuses_what_it_cannot_judge(tmp_path, store):
    described = source(tmp_path)
    for look in (gc.preview, gc.collect):
        with pytest.raises(SourceError, match="there is nothing of tiny in"):
            look(store, gc.Request(described))
    assert not store.root.exists()
    published_sources.published(described, store)
    text(store, "shards-0a1b2c3d/00000.tar")
    with store.lock(), pytest.raises(BusyError, match="another run is writing"):
        gc.collect(Storage(store.root), gc.Request(described))
    Blocked(urls=frozenset({"a" * 64})).commit(store)
    with pytest.raises(StorageError, match="a takedown was interrupted: run `winnow curate` first"):
        gc.collect(store, gc.Request(described))
    (tmp_path / "other").mkdir()
    other = source(tmp_path / "other")
    text(store, "source.json", canonical_json({"path": str(described.path)}).decode())
    with pytest.raises(SourceError, match="holds the results of"):
        gc.preview(store, gc.Request(other))
    assert store.done("shards-0a1b2c3d/00000.tar")


def test_a_reader_that_has_its_files_open_finishes(store, full):
    described, ids = full
    old = Manifest.open(store, ids[1])
    assert old.funnel(old.recipe)
    with old.connection() as con:
        reader = con.sql("SELECT uid, url FROM rows").to_arrow_reader(4)
        first = reader.read_next_batch()
        gc.collect(store, gc.Request(described, keep=1))
        assert len(first) + sum(len(batch) for batch in reader) == 20
    for read in (old.select, lambda: old.select(old.recipe), lambda: old.funnel(old.recipe)):
        with pytest.raises(StorageError, match="was removed by `winnow gc --keep`"):
            read()


@pytest.mark.slow
def test_the_command_lists_first_and_removes_when_told(store, full):
    described, ids = full
    root = store.root.parent
    words = ["gc", str(described.path), "--root", str(root)]
    done = CliRunner().invoke(cli.app, words, prog_name="winnow")
    assert done.exit_code == 0, done.stderr
    assert "tiny: not needed" in done.stdout
    assert "shards-0a1b2c3d" in done.stdout
    assert "nothing was removed: run the same command with --apply" in done.stdout
    before = sum(objects(store).values())
    done = CliRunner().invoke(cli.app, [*words, "--keep", "1", "--apply", "--json"], prog_name="winnow")
    told = json.loads(done.stdout)
    assert told["applied"]
    assert told["stores"][0]["dropped"] == ids[:-1]
    removed = sum(size for key, size in objects(store).items() if key.startswith("removed/"))
    assert told["bytes"] == before - sum(objects(store).values()) + removed
    done = CliRunner().invoke(cli.app, [*words, "--keep", "1"], prog_name="winnow")
    assert done.stdout == "tiny: everything is needed\n"


@pytest.mark.slow
def test_the_sample_of_a_source_is_a_store_like_it(tmp_path, store):
    described = source(tmp_path)
    published_sources.published(described, store)
    pq.write_table(
        pa.table({"url": ["http://host/41.jpg"], "caption": ["picture number 41"]}), tmp_path / "sample.parquet"
    )
    sample = sample_storage(store)
    last = published_sources.published(sample_source(described, tmp_path / "sample.parquet"), sample)
    text(sample, "shards-0a1b2c3d/00000.tar", "pictures")
    text(store, "calibration/figures.json")
    words = ["gc", str(described.path), "--root", str(store.root.parent), "--apply", "--json"]
    told = json.loads(CliRunner().invoke(cli.app, words, prog_name="winnow").stdout)
    assert [(each["folder"], each["kept"]) for each in told["stores"]][1] == ("calibration/", [last.id])
    assert (told["objects"], told["bytes"]) == (1, len("pictures"))
    assert store.done("calibration/figures.json")
    assert Manifest.open(sample).select()["uid"]


@pytest.mark.slow
def test_readers_beside_it_finish_or_end_with_one_line(store, full):
    described, ids = full
    lines, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            for each in ids[1:]:
                try:
                    manifest = Manifest.open(store, each)
                    assert len(manifest.select()) == manifest.counts.kept
                    assert manifest.funnel(manifest.recipe)
                except StorageError as error:
                    lines.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        gc.collect(store, gc.Request(described, keep=1))
    finally:
        time.sleep(0.5)
        stop.set()
        reader.join()
    assert lines
    assert not [line for line in lines if "was removed by `winnow gc --keep`" not in line or "\n" in line]


@pytest.mark.slow
def test_a_bucket_is_collected_as_a_folder_is(tmp_path, store, full, monkeypatch):
    described, ids = full
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    with s3_server.running() as address:
        for name, value in s3_server.variables(address).items():
            monkeypatch.setenv(name, value)
        cache.of_user.cache_clear()
        bucket = Storage(s3_server.root("gc/tiny"))
        for key in objects(store):
            put(bucket, key, lambda path, key=key: path.write_bytes(store.fetch(key).read_bytes()))
        request = gc.Request(described, keep=2)
        assert gc.preview(bucket, request) == gc.collect(store, request) == gc.collect(bucket, request)
        assert [each.id for each in commits(bucket)] == ids[3:]
        assert published(bucket) == published(store)
        assert again(described, bucket).id == ids[-1]
        with pytest.raises(StorageError, match="was removed by `winnow gc --keep`"):
            Manifest.open(bucket, ids[1])
        with bucket.lock(), pytest.raises(BusyError):
            gc.collect(Storage(bucket.root), request)
    cache.of_user.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_whatever_a_source_went_through_all_that_is_published_stays(tmp_path, store, seed):
    """Lists that grow and shrink, settings that come and go, shards in quarantine, and gc between them."""
    rng = random.Random(seed)
    last = first = 40
    for _ in range(8):
        last, first = last + rng.choice((0, 5, 12)), first + rng.choice((0, 0, 3))
        described = source(
            tmp_path,
            range(first, last + 8),
            radius=rng.choice((2, 4)),
            settings=rng.choice((SMALLER, "")),
            filters=rng.choice(((SHARP,), (SHARP, WORDED))),
        )
        shards = len(ingest.update(described, store).shards)
        lost = {rng.randrange(shards): "no reason"} if rng.random() < 0.3 else {}
        newest = published_sources.published(described, store, lost)
        for name in ("rows", "verdicts", "shards-00000000", "scores/pixels-00000000"):
            text(store, f"{name}/{rng.randrange(10**6)}.parquet", "x" * rng.randrange(9))
        before, keep = published(store), rng.choice((None, None, 1, 2, 4))
        count = len(dict.fromkeys(each.id for each in commits(store)))
        objects_before = objects(store)
        told = gc.collect(store, gc.Request(described, keep))
        objects_after = {key: size for key, size in objects(store).items() if not key.startswith("removed/")}
        marks = {key for key in objects_before if key.startswith("removed/")}
        assert told.bytes == sum(objects_before[key] for key in objects_before.keys() - objects_after.keys() - marks)
        after = published(store)
        assert after.items() <= before.items()
        assert len(after) == min(keep or count, count)
        plan, ledger = Plan.of(described), ingest.update(described, store)
        there = [shard for shard in ledger.shards if shard.number not in lost]
        assert plan.results(store, ledger, lost).complete(store, there)
        assert (publish.publish(plan, store, ledger, lost).id, newest.id) == (newest.id, Manifest.open(store).id)
        assert gc.preview(store, gc.Request(described, keep)).objects == 0
