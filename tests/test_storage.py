import errno
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import BusyError, StorageError
from pipeline.store import tarfiles
from pipeline.store.digests import canonical_json
from pipeline.store.disk import disk_errors
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def test_an_object_is_there_whole_or_not_at_all(store):
    assert not store.done("a/b.txt")
    with store.scratch() as scratch:
        local = scratch / "b"
        local.write_text("whole")
        store.put_file("a/b.txt", local)
        assert not local.exists()
    assert store.done("a/b.txt")
    assert store.fetch("a/b.txt").read_text() == "whole"
    assert store.keys("a") == ["a/b.txt"]
    assert store.size("a/b.txt") == 5


def test_a_file_from_another_disk_is_put_whole(store, tmp_path):
    outside = "/dev/shm"
    if not os.path.isdir(outside) or os.stat(outside).st_dev == os.stat(tmp_path).st_dev:
        pytest.skip("no second file system here")
    local = f"{outside}/winnow-test-{os.getpid()}"
    with open(local, "w") as file:
        file.write("whole")
    store.put_file("c", type(tmp_path)(local))
    assert store.fetch("c").read_text() == "whole"
    assert not os.path.exists(local)


def test_a_missing_object_says_what_to_do(store):
    with pytest.raises(StorageError, match="gone.parquet is missing .* run `winnow curate`"):
        store.fetch("gone.parquet")


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", ""])
def test_a_key_cannot_leave_the_store(store, key):
    with pytest.raises(StorageError):
        store.done(key)


def _claim(root, number):
    from pathlib import Path

    return number if Storage(Path(root)).put_if_absent("log/1.json", str(number).encode()) else None


def test_of_many_writers_one_wins(store):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        winners = [each for each in pool.starmap(_claim, [(str(store.root), n) for n in range(64)]) if each is not None]
    assert len(winners) == 1
    assert store.fetch("log/1.json").read_text() == str(winners[0])
    assert not [path for path in (store.root / ".tmp").rglob("*") if path.is_file()]


def test_only_one_run_at_a_time_and_a_killed_ones_leavings_are_swept(store):
    held = (
        "import sys, time, pathlib\nfrom pipeline.store.storage import Storage\n"
        "store = Storage(pathlib.Path(sys.argv[1]))\n"
        "with store.lock(), store.scratch() as scratch:\n"
        "    (scratch / 'half').write_text('half'); print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", held, str(store.root)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match="another run is writing"), store.lock():
            pass
        assert list((store.root / ".tmp").rglob("half"))
    finally:
        other.kill()
        other.wait()
    with store.lock():
        assert not list((store.root / ".tmp").rglob("half"))


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the path of an open file")


@linux
def test_what_is_put_and_its_new_folders_are_synced(store, monkeypatch):
    synced, sync = [], os.fsync

    def told(file):
        synced.append(os.path.realpath(f"/dev/fd/{file}"))
        sync(file)

    monkeypatch.setattr(os, "fsync", told)
    assert store.put_if_absent("a/b/c", b"whole")
    folders = [store.root.parent, store.root, store.root / "a", store.root / "a" / "b"]
    assert {str(folder) for folder in folders} <= set(synced)
    synced.clear()
    assert not store.put_if_absent("a/b/c", b"other")
    assert str(store.root / "a" / "b") in synced  # who came first may have been killed before


@linux
def test_what_a_killed_run_put_is_synced_before_the_next(store, monkeypatch):
    store.put_if_absent("a/b", b"whole")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (store.root / ".tmp" / str(gone.pid) / "half").mkdir(parents=True)
    synced, sync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.path.realpath(f"/dev/fd/{file}")) or sync(file))
    with store.lock():
        assert {str(store.root), str(store.root / "a")} <= set(synced)
        assert not (store.root / ".tmp" / str(gone.pid)).exists()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "x"), "no space left in"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "no space left in"),
        (RuntimeError("IO Error: No space left on device"), "no space left in"),
        (OSError(errno.EROFS, "x"), "cannot write in"),
        (RuntimeError("IO Error: Cannot open file: Read-only file system"), "cannot write in"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "the disk fails: Input/output error; .* --root"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/elsewhere/list"), "the disk fails at /elsewhere/list: Input"),
        (
            RuntimeError('IO Error: Could not read from file "/a/b": Input/output error'),
            "the disk fails at /a/b: Input/output",
        ),
    ],
)
def test_what_the_disk_says_is_one_line_with_the_way_out(store, error, told):
    for place in (store.scratch, store.lock):
        with pytest.raises(StorageError, match=told) as caught, place():
            raise error
        assert "\n" not in str(caught.value)
        with pytest.raises(StorageError) as again, store.lock(), store.scratch():
            raise error
        assert str(again.value) == str(caught.value)


def test_a_folder_that_cannot_be_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "x", Path("/proc/none/x")):
        with (
            pytest.raises(StorageError, match="cannot write in .*; choose another folder with --to"),
            disk_errors(folder, "--to"),
        ):
            folder.mkdir(parents=True)


def test_a_full_disk_is_named(store, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/elsewhere")
    for path in (str(store.root / "a"), "/elsewhere/catalog.duckdb"):
        with pytest.raises(StorageError, match=f"no space left in {os.path.dirname(path)}:"), store.lock():
            raise OSError(errno.ENOSPC, "No space left on device", path)


def test_a_file_that_may_not_be_read_is_not_the_store_s(store):
    with pytest.raises(PermissionError, match="/elsewhere/list.tsv"), store.lock():
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/list.tsv")


def test_a_stage_is_known_by_all_that_made_it(store):
    one = Stage("shards", {"size": 256, "version": 1})
    assert one.key == Stage("shards", {"version": 1, "size": 256}).key
    assert one.key != Stage("shards", {"size": 257, "version": 1}).key
    assert one.item(7, ".tar") == f"shards-{one.key}/00007.tar"
    one.describe(store)
    one.describe(store)
    assert '"size": 256' in store.fetch(f"{one.folder}/key.json").read_text()


def test_canonical_json_is_one_byte_string_for_one_value():
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_reader_of_tars_notices_that_one_was_written_again(store):
    def put(*members):
        with store.making("shards-a/00000.tar") as path:
            tarfiles.write(path, members)

    put(("a", b"one"), ("b", b"two"))
    tars = tarfiles.Tars(store, "a")
    assert (tars.read(0, "a"), tars.read(0, "b"), tars.read(0, "c"), tars.read(1, "a")) == (b"one", b"two", None, None)
    put(("b", b"two"))  # as a takedown does
    assert (tars.read(0, "a"), tars.read(0, "b")) == (None, b"two")
