"""`catalog.duckdb`: what a person finds in it, from any folder, and when it is written anew."""

import json
import os
import subprocess
import sys

import duckdb
import published_sources
import pytest

from pipeline.manifest import database
from pipeline.manifest.log import commits
from pipeline.store.storage import Storage


@pytest.fixture
def store(tmp_path):
    """Two manifests of one source, in a folder whose name has a quote."""
    store = Storage(tmp_path / "it's here" / "tiny")
    (tmp_path / "it's here").mkdir()
    published_sources.published(published_sources.listed(tmp_path, range(40, 60)), store)
    published_sources.published(
        published_sources.listed(tmp_path, range(40, 60), filters=(published_sources.WORDED,)), store, failed={44}
    )
    return store


def ask(store, sql):
    with duckdb.connect(str(store.root / "catalog.duckdb"), read_only=True) as con:
        return con.execute(sql).fetchall()


def test_it_opens_from_any_folder_in_a_process_of_its_own(store, tmp_path):
    program = "import duckdb, sys; print(duckdb.connect(sys.argv[1], read_only=True).execute(sys.argv[2]).fetchall())"
    command = [sys.executable, "-c", program, str(store.root / "catalog.duckdb"), "SELECT count(*) FROM kept"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert (done.stdout.strip(), done.stderr) == ("[(20,)]", "")


def test_an_older_client_can_read_it(store):
    """After a checksum of 8 bytes and the magic word comes the version of the format: 66 is that of DuckDB 1.3."""
    head = (store.root / "catalog.duckdb").read_bytes()[8:20]
    assert head[:4] == b"DUCK"
    assert int.from_bytes(head[4:], "little") <= 66


def test_its_views_are_those_of_winnow_sql(store):
    assert ask(store, "SELECT (SELECT count(*) FROM rows), (SELECT count(*) FROM dropped)") == [(20, 0)]
    published = [commit.id for commit in commits(store)]
    assert ask(store, "SELECT id FROM manifests") == [(each,) for each in published]
    sides = ask(store, "SELECT manifest, count(*) FILTER (kept) FROM history GROUP BY manifest")
    assert dict(sides) == {published[0]: 10, published[1]: 20}


def test_a_trial_and_the_rows_it_drew_from(store):
    newest = commits(store)[-1].id
    trial = {"manifest": newest, "arm": "filtered", "seed": 0, "f1_macro": 0.75}
    store.put_if_absent("trials/abc.json", json.dumps(trial).encode())
    assert ask(store, "FROM trials") == []
    database.refresh(store)
    found = ask(
        store, "SELECT count(*), any_value(f1_macro) FROM history JOIN trials USING (manifest) WHERE kept GROUP BY key"
    )
    assert found == [(20, 0.75)]


def test_it_is_written_when_something_changed_and_whole(store, tmp_path):
    path = store.root / "catalog.duckdb"
    with duckdb.connect(str(path), read_only=True) as reader:
        before = path.stat().st_ino
        database.refresh(store)
        assert path.stat().st_ino == before
        published_sources.published(published_sources.listed(tmp_path, range(40, 60)), store)
        assert path.stat().st_ino != before
        assert reader.execute("SELECT count(*) FROM kept").fetchall() == [(20,)]
    assert ask(store, "SELECT count(*) FROM kept") == [(10,)]
    assert not list(store.root.glob("*.wal"))


def test_a_source_that_was_moved_or_a_file_that_was_spoiled_gets_a_new_one(store, tmp_path):
    moved = Storage(store.root.rename(tmp_path / "moved"))
    with pytest.raises(duckdb.Error):
        ask(moved, "FROM rows")
    database.refresh(moved)
    assert ask(moved, "SELECT count(*) FROM rows") == [(20,)]
    (moved.root / "catalog.duckdb").write_bytes(b"no database")
    database.refresh(moved)
    assert ask(moved, "SELECT count(*) FROM rows") == [(20,)]


def test_nothing_is_published_nothing_is_written(tmp_path):
    database.refresh(Storage(tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()
