"""The main job with its results in a bucket: the same manifest as in a folder, and every reader of it."""

import json
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import killed_runs
import main_job
import published_sources
import pytest
import s3_server
from typer.testing import CliRunner

from filters.core import Filter, Recipe
from flows.cli import app
from pipeline.errors import QueryError, StorageError
from pipeline.export import export
from pipeline.export.content import Content
from pipeline.manifest import log, publish
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.query import sandbox
from pipeline.review.labels import GOOD, KEY, Labels
from pipeline.review.sample import Labelled
from pipeline.store import cache
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request
from pipeline.upkeep import forget


@pytest.fixture(scope="module")
def server():
    with s3_server.running() as address:
        yield address


@pytest.fixture
def bucket(server, tmp_path, monkeypatch):
    """A root in the bucket, and a cache of its own."""
    for name, value in s3_server.variables(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    cache.of_user.cache_clear()
    yield s3_server.root(tmp_path.name)
    cache.of_user.cache_clear()


@pytest.fixture
def published(bucket, tmp_path):
    described = published_sources.listed(tmp_path, range(40, 75))
    storage = Storage(bucket / "tiny")
    return described, storage, published_sources.published(described, storage, failed={44})


def test_the_manifest_is_that_of_a_folder(published, tmp_path):
    described, storage, made = published
    folder = Storage(tmp_path / "folder" / "tiny")
    assert published_sources.published(described, folder, failed={44}).id == made.id
    assert Manifest.open(storage).select().equals(Manifest.open(folder).select())
    again = published_sources.published(described, storage, failed={44})
    assert (again.id, again.new) == (made.id, False)


@pytest.mark.slow
def test_sql_reads_a_bucket_without_an_extension(published):
    _, storage, made = published
    assert sandbox.run("SELECT count(*) n FROM rows WHERE kept", [storage])["n"].to_pylist() == [25]
    publish.republish(storage, Recipe("sharper", (Filter("sharp", "pixels_sharpness >= 60", why="test"),)))
    counted = sandbox.run("SELECT manifest, count(*) n FROM history WHERE kept GROUP BY ALL ORDER BY n", [storage])
    assert counted["n"].to_pylist() == [15, 25]
    listed = sandbox.run("SELECT id, complete FROM manifests ORDER BY time, id", [storage])
    assert sorted(listed["id"].to_pylist()) == sorted(commit.id for commit in commits(storage))
    assert listed["complete"].to_pylist() == [True, True]
    assert made.id in listed["id"].to_pylist()
    with pytest.raises(QueryError, match="no table"):
        sandbox.run("SELECT * FROM elsewhere", [storage])


def test_the_catalogue_of_a_bucket_has_the_sql_of_its_views(published):
    _, storage, _ = published
    with duckdb.connect(str(storage.fetch("catalog.duckdb")), read_only=True) as con:
        (sql,) = con.execute("SELECT sql FROM views WHERE name = 'rows'").fetchone()
        assert con.execute("SELECT count(*) FROM manifests").fetchone() == (1,)
        assert "the SQL of each view over URLs" in con.execute("SELECT note FROM about").fetchone()[0]
    manifest = Manifest.open(storage)
    assert all(
        f"{storage.root}/{part.rows}" in sql and f"{storage.root}/{part.verdicts}" in sql for part in manifest.parts
    )
    assert str(cache.of_user().folder) not in sql
    for part in manifest.parts:
        for key in (part.rows, part.verdicts):
            sql = sql.replace(storage.address(key), str(storage.fetch(key)))
    assert duckdb.sql(f"SELECT count(*) FROM ({sql}) WHERE kept").fetchall() == [(25,)]


@pytest.mark.slow
def test_a_takedown_leaves_nothing_in_the_bucket(published, tmp_path):
    described, storage, _ = published
    Labels(storage).put("http://host/60.jpg", "picture number 60", "match")
    assert Labels(storage).counts()["match"] == 1
    assert Labelled.read(storage.fetch(KEY), GOOD).counts["match"] == 1
    file = tmp_path / "names"
    file.write_text("http://host/60.jpg\n")
    done = forget.forget(storage, Request.read(file), described)
    assert (done.pairs, done.new) == (1, True)
    assert Labels(storage).counts()["match"] == 0
    assert Manifest.open(storage).counts.kept == 24
    assert not Manifest.open(storage, "-2").complete
    for key in storage.find("rows/*.parquet"):
        assert b"picture number 60" not in storage.fetch(key).read_bytes()


@pytest.mark.slow
def test_an_older_manifest_that_lost_its_verdicts_is_left_out(published):
    described, storage, made = published
    sharper = publish.republish(storage, Recipe("sharper", (Filter("sharp", "pixels_sharpness >= 60", why="test"),)))
    storage.remove(Manifest.open(storage, made.id).parts[0].verdicts)
    again = publish.republish(storage, Recipe("sharpest", (Filter("sharp", "pixels_sharpness >= 70", why="test"),)))
    found = sandbox.run("SELECT id FROM manifests WHERE complete ORDER BY id", [storage])["id"].to_pylist()
    assert found == sorted([sharper.id, again.id])
    assert sandbox.run("SELECT count(DISTINCT manifest) n FROM history", [storage])["n"].to_pylist() == [2]
    assert published_sources.published(described, storage, failed={44}).id == made.id
    assert Manifest.open(storage).complete


@pytest.mark.slow
def test_commits_of_many_publishers_form_one_chain(bucket, server, monkeypatch):
    def publish_some(publisher):
        return [log.commit(Storage(bucket / "chain"), f"{publisher}-{number}") for number in range(5)]

    with s3_server.Proxy(server) as proxy:  # with moto alone, two conditional writes may both succeed
        for name, value in s3_server.variables(proxy.address).items():
            monkeypatch.setenv(name, value)
        with ThreadPoolExecutor(8) as pool:
            assert all(all(new) for new in pool.map(publish_some, range(8)))
        chain = commits(Storage(bucket / "chain"))
    assert [each.number for each in chain] == list(range(40))
    assert [each.parent for each in chain] == [None, *(each.id for each in chain[:-1])]
    assert len({each.id for each in chain}) == 40


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["rows/*.parquet", "verdicts/*.parquet", "scores/pixels-*/00001.parquet"])
def test_what_the_store_loses_is_named_and_made_again(published, lost):
    described, storage, made = published
    (key,) = storage.find(lost)
    assert storage.fetch(key).exists()
    storage.remove(key)
    if not lost.startswith("scores"):
        with pytest.raises(
            (StorageError, QueryError), match=f"{key} is missing from {storage.root}: run `winnow curate`"
        ):
            sandbox.run("SELECT count(*) FROM rows", [storage])
    again = published_sources.published(described, storage, failed={44})
    assert again.id == made.id
    assert storage.done(key) == (not lost.startswith("scores"))  # scores are in the rows already
    assert sandbox.run("SELECT count(*) n FROM rows WHERE kept", [storage])["n"].to_pylist() == [25]


@pytest.mark.slow
def test_pairs_leave_a_bucket_as_they_leave_a_folder(published, tmp_path):
    described, storage, made = published
    folder = Storage(tmp_path / "folder" / "tiny")
    published_sources.published(described, folder, failed={44})
    for number, each in enumerate((storage, folder)):
        export.write(Content(Manifest.open(each), "webdataset"), tmp_path / str(number))
    names = [sorted(path.name for path in (tmp_path / number).iterdir()) for number in ("0", "1")]
    assert names[0] == names[1]
    for name in names[0]:
        if name.endswith(".tar"):
            assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()
    assert made.counts.kept == 25


@pytest.mark.slow
def test_commands_take_a_bucket_as_their_root(published, bucket, tmp_path):
    def run(*words):
        done = CliRunner().invoke(app, [*words, "--root", str(bucket)])
        assert done.exit_code == 0, done.output
        return done.output

    toml = str(tmp_path / "tiny.toml")
    assert "25" in run("sql", "select count(*) from kept")
    assert "sharp" in run("funnel", toml)
    page = run("report", toml).strip().splitlines()[-1]
    assert "<html" in Path(page).read_text()
    assert "tiny" in run("doctor", "--deep").replace("winnow-tiny", "")


def test_a_wrong_root_is_one_line(bucket):
    done = CliRunner().invoke(app, ["sql", "select 1", "--root", "ftp://x/y"])
    assert done.exit_code == 2
    assert "is no root of results" in done.output


@pytest.mark.slow
def test_killed_anywhere_ends_with_the_same_manifest(bucket, server, tmp_path):
    with killed_runs.served() as port:
        toml = killed_runs.described(tmp_path, port, 120)
        expected = main_job.run(toml, tmp_path / "whole")
        chance = random.Random(20261127)
        shards = range(120 // killed_runs.SHARD)
        steps = [f"{step} {n + 1}." for step in ("download", "score") for n in shards] + ["list", "publish"] * 2
        kills = 0
        for line in chance.sample(steps, 9):
            process = killed_runs.started(toml, bucket)
            killed_runs.killed_after(process, line, chance.uniform(0, 0.3))
            kills += process.returncode < 0
        assert kills >= 5
        shutil.rmtree(tmp_path / "cache")  # another machine goes on
        command = [sys.executable, main_job.__file__, str(toml), str(bucket)]
        last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        assert json.loads(last)["id"] == expected.id
        assert len(commits(main_job.storage_of(toml, bucket))) == 1  # one of the killed runs may have made it


@pytest.mark.slow
def test_a_run_over_a_bad_network_ends_with_the_same_manifest(server, bucket, tmp_path, monkeypatch):
    chance = random.Random(20261127)
    faults = [500, 503, "reset", "lost", "half", 0.2, (409, "ConditionalRequestConflict")]

    def every_tenth(method, path):
        found = chance.choice(faults) if chance.random() < 0.1 else None
        return None if isinstance(found, tuple) and method != "PUT" else found

    with killed_runs.served() as port, s3_server.Proxy(server) as proxy:
        toml = killed_runs.described(tmp_path, port, 60)
        expected = main_job.run(toml, tmp_path / "whole")
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        proxy.faults.append(every_tenth)
        made = main_job.run(toml, bucket)
        assert (made.id, made.new) == (expected.id, True)
        storage = main_job.storage_of(toml, bucket)
        assert sandbox.run("SELECT count(*) n FROM rows", [storage])["n"].to_pylist() == [60]
        assert len(commits(storage)) == 1
        assert proxy.requests.total() > 100
