"""A store in a bucket: the verbs, conditional writes, faults of the network, the lease, and the cache of copies."""

import contextlib
import errno
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import s3_server

from pipeline.errors import BusyError, SourceError, StorageError
from pipeline.store import cache, storage
from pipeline.store.bucket import Bucket
from pipeline.store.cache import Cache
from pipeline.store.lease import Lease
from pipeline.store.object_client import ObjectClient
from pipeline.store.places import BucketUrl, place
from pipeline.store.storage import Storage


@pytest.fixture(scope="module")
def server():
    with s3_server.running() as address:
        yield address


@pytest.fixture
def proxy(server, tmp_path, monkeypatch):
    """The proxy of this test. winnow uses it, with a cache of its own."""
    with s3_server.Proxy(server) as made:
        for name, value in s3_server.variables(made.address).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
        cache.of_user.cache_clear()
        yield made
        cache.of_user.cache_clear()


@pytest.fixture
def root():
    return s3_server.root(uuid.uuid4().hex)


@pytest.fixture
def store(proxy, root):
    return Storage(root / "source")


@pytest.fixture
def forget_copies(tmp_path, monkeypatch):
    """Go on with an empty cache."""

    def forget():
        monkeypatch.setenv(cache.FOLDER, str(tmp_path / uuid.uuid4().hex))
        cache.of_user.cache_clear()

    return forget


def put(store, key, content):
    with store.making(key) as path:
        path.write_bytes(content)


def test_a_root_is_a_folder_or_a_bucket():
    assert place("data") == Path("data")
    found = place("s3://pool-1/a/b/")
    assert (str(found), found.name, str(found.parent)) == ("s3://pool-1/a/b", "b", "s3://pool-1/a")
    assert str(place("gs://pool") / "cc3m") == "gs://pool/cc3m"
    assert place(found) is found


@pytest.mark.parametrize("text", ["s3://", "s3:///prefix", "s3://Bucket/x", "s3://bucket/../x", "s3://bucket/a b"])
def test_a_url_without_a_bucket_is_refused(text):
    with pytest.raises(SourceError, match="names no bucket"):
        place(text)


def test_another_scheme_is_refused():
    with pytest.raises(SourceError, match="is no root of results"):
        place("ftp://host/folder")


def test_an_object_is_there_whole_or_not_at_all(store):
    assert not store.done("rows/a.parquet")
    put(store, "rows/a.parquet", b"whole")
    assert store.done("rows/a.parquet")
    assert store.size("rows/a.parquet") == 5
    assert store.fetch("rows/a.parquet").read_bytes() == b"whole"
    store.remove("rows/a.parquet")
    assert not store.done("rows/a.parquet")
    with pytest.raises(StorageError, match="rows/a.parquet is missing from s3://"):
        store.fetch("rows/a.parquet")
    with pytest.raises(StorageError, match="missing"):
        store.size("rows/a.parquet")


def test_another_machine_gets_the_same_objects(store, tmp_path):
    put(store, "shards-1/00000.tar", b"pictures")
    Bucket(store.root)
    other = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pickle; print(pickle.load(sys.stdin.buffer).fetch('shards-1/00000.tar').read_bytes())",
        ],
        input=pickle.dumps(store),
        env={**os.environ, cache.FOLDER: str(tmp_path / "elsewhere")},
        capture_output=True,
        check=True,
    )
    assert other.stdout == b"b'pictures'\n"


def test_a_large_file_goes_in_parts(store, forget_copies):
    content = os.urandom(12_000_000)
    put(store, "rows/large.parquet", content)
    forget_copies()
    assert store.fetch("rows/large.parquet").read_bytes() == content


def test_keys_and_patterns_are_those_of_a_folder(store, tmp_path):
    keys = ["scores/a-1/00000.parquet", "scores/a-1/key.json", "scores/b-2/00000.parquet", "scores/b-2/00001.parquet"]
    folder = Storage(tmp_path / "folder")
    for each in (store, folder):
        for key in [*keys, "report.html"]:
            put(each, key, b"x")
    for pattern in ("scores/*/00000.parquet", "scores/*/*.parquet", "*.html", "scores/b-*/[0-9]*.parquet", "none/*"):
        assert store.find(pattern) == folder.find(pattern)
    for prefix in ("scores", "scores/a-1", "none"):
        assert store.keys(prefix) == folder.keys(prefix)
    assert storage.sources(store.root.parent, "scores/a-1") == ["source"]
    assert storage.sources(store.root.parent, "nothing") == []


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "", "a//b", "a/./b"])
def test_a_key_cannot_leave_the_store(store, key):
    with pytest.raises(StorageError, match="is no key"):
        store.done(key)


def test_what_is_replaced_is_fetched_again(store):
    put(store, "scores/a-1/00000.parquet", b"before")
    assert store.fetch("scores/a-1/00000.parquet").read_bytes() == b"before"
    there = subprocess.run(
        [sys.executable, "-c", REPLACE], input=pickle.dumps(store), capture_output=True, check=True, env=os.environ
    )
    assert there.returncode == 0
    assert store.fetch("scores/a-1/00000.parquet").read_bytes() == b"after"
    copies = [path for path in (cache.of_user().folder / "copies").rglob("00000.parquet") if path.is_file()]
    assert len(copies) == 1


REPLACE = """
import pickle, sys
store = pickle.load(sys.stdin.buffer)
with store.making("scores/a-1/00000.parquet") as path:
    path.write_bytes(b"after")
"""


@pytest.mark.parametrize("key", ["run.json", "labels/labels.parquet"])
def test_what_another_machine_replaces_again_and_again_is_always_the_newest(store, key):
    other = ObjectClient(store.root)
    for number in range(12):
        other.upload(key, _file(str(number).encode()))
        store.keys("labels")
        assert store.done(key)
        assert store.fetch(key).read_text() == str(number)


def test_of_many_writers_one_wins(store):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.put_if_absent("log/00000000.json", str(n).encode()), range(40)))
    assert won.count(True) == 1
    assert store.fetch("log/00000000.json").read_bytes() == str(won.index(True)).encode()


@pytest.mark.parametrize(
    "fault",
    [
        "lost",
        (409, "ConditionalRequestConflict"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (500, 503, "reset")),
    ],
)
def test_a_conditional_write_is_certain_whatever_the_network_does(store, proxy, fault):
    proxy.fail("PUT", r"log/00000000\.json", fault, times=2)
    assert store.put_if_absent("log/00000000.json", b"mine")
    assert store.fetch("log/00000000.json").read_bytes() == b"mine"
    proxy.fail("PUT", r"log/00000000\.json", fault, times=1)
    assert not store.put_if_absent("log/00000000.json", b"mine")


def test_a_lost_answer_is_not_the_write_of_another(store, proxy):
    first = Storage(store.root)
    assert first.put_if_absent("log/00000000.json", b"the same")
    proxy.fail("PUT", r"log/00000000\.json", "reset", times=1)
    assert not store.put_if_absent("log/00000000.json", b"the same")


@pytest.mark.parametrize(
    "fault",
    [503, "lost", (409, "OperationAborted"), *(pytest.param(each, marks=pytest.mark.slow) for each in (500, "reset"))],
)
def test_files_arrive_whatever_the_network_does(store, proxy, fault, forget_copies):
    proxy.fail("PUT", "rows/x", fault, times=2)
    put(store, "rows/x", b"content")
    forget_copies()
    for method in ("HEAD", "GET") if not isinstance(fault, tuple) else ():
        proxy.fail(method, "rows/x", fault, times=2)
    assert store.done("rows/x")
    assert store.fetch("rows/x").read_bytes() == b"content"


def test_a_body_that_ends_early_is_asked_for_again(store, proxy, forget_copies):
    content = os.urandom(100_000)
    put(store, "rows/x", content)
    forget_copies()
    proxy.fail("GET", "rows/x", "half", times=2)
    assert store.fetch("rows/x").read_bytes() == content


def test_a_request_without_an_answer_is_made_again(proxy, root):
    client = ObjectClient(root, timeout=timedelta(seconds=0.5))
    client.upload("x", _file(b"1"))
    proxy.fail("HEAD", "/x", 10.0)
    started = time.monotonic()
    assert client.head("x").size == 1
    assert time.monotonic() - started < 8


def _file(content):
    path = Path(cache.of_user().folder, "given")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ((404, "NoSuchBucket"), "there is no bucket s3://winnow-test: create it"),
        ((403, "AccessDenied"), r"no right to read or write in s3://winnow-test: .*docs/buckets.md"),
        ((403, "SignatureDoesNotMatch"), r"no right to read or write in s3://winnow-test"),
        ((403, "RequestTimeTooSkewed"), "the clock of this machine is wrong: set it"),
        ((400, "AuthorizationHeaderMalformed"), "is in another region: set AWS_REGION"),
        ((301, "PermanentRedirect"), "is in another region: set AWS_REGION"),
    ],
)
def test_a_store_that_refuses_is_one_line(store, proxy, fault, words):
    proxy.fail("PUT", "", fault, times=100)
    proxy.fail("GET", "", fault, times=100)
    for work in (lambda: put(store, "rows/x", b"1"), lambda: store.put_if_absent("log/00000000.json", b"1")):
        with pytest.raises(StorageError, match=words) as error:
            work()
        assert "\n" not in str(error.value)
    with pytest.raises(StorageError, match=words):
        store.keys("rows")


def test_a_store_that_cannot_be_reached_is_one_line(proxy, root, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"cannot be reached: check the network and AWS_ENDPOINT_URL, which is http"):
        ObjectClient(root, attempts=1).head("rows")


@pytest.mark.parametrize("given", ["", "127.0.0.1:9000", "http://", "http://host name:1", "http://host:99999"])
def test_an_address_that_is_none_is_one_line(proxy, root, monkeypatch, given):
    monkeypatch.setenv("AWS_ENDPOINT_URL", given)
    with pytest.raises(StorageError, match=r"^AWS_ENDPOINT_URL is '.*': set it to http://HOST:PORT.*unset it$"):
        ObjectClient(root).head("rows")


@pytest.mark.parametrize(
    ("url", "name", "given", "words"),
    [
        ("gs://pool/x", "GOOGLE_APPLICATION_CREDENTIALS", "/none.json", "Unable to open service account file"),
        ("az://pool/x", "AZURE_STORAGE_ACCOUNT_KEY", "%%", "Invalid Access Key"),
        ("az://pool/x", "AZURE_STORAGE_ACCOUNT_NAME", None, "Account must be specified"),
    ],
)
def test_a_variable_of_a_store_that_is_wrong_is_one_line(monkeypatch, url, name, given, words):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "name")
    monkeypatch.delenv(name, raising=False)
    if given is not None:
        monkeypatch.setenv(name, given)
    with pytest.raises(StorageError, match=rf"{url[:9]} cannot be used: {words}.*docs/buckets.md") as error:
        ObjectClient(place(url)).head("rows")
    assert "\n" not in str(error.value)


def test_a_store_that_is_down_is_one_line(proxy, root):
    proxy.fail("GET", "", 503, times=100)
    with pytest.raises(StorageError, match=r"s3://winnow-test does not answer as it should: SlowDown .* it resumes"):
        ObjectClient(root, attempts=2).children("rows")


@pytest.mark.parametrize("header", ["if-none-match", "if-match"])
def test_a_store_that_ignores_conditions_is_refused(store, proxy, header):
    proxy.drops = {header}
    with pytest.raises(StorageError, match="ignores If-None-Match or If-Match"), store.lock():
        raise AssertionError("the store was opened for writing")
    proxy.drops = set()
    with store.lock():
        pass
    assert not store.find(".probe*")


def test_what_a_list_lacks_is_found_all_the_same(store, proxy):
    for number in range(3):
        assert store.put_if_absent(f"log/{number:08d}.json", b"{}")
    put(store, "rows/x", b"1")
    proxy.faults = [lambda method, path: (200, "X") if method == "GET" and "list-type" in path else None]
    empty = Storage(store.root)
    assert empty.keys("log") == [f"log/{number:08d}.json" for number in range(3)]
    assert all(empty.done("rows/x") for _ in range(20))


def test_a_folder_of_many_objects_is_listed_once(store, proxy):
    for number in range(20):
        put(store, f"scores/a-1a2b3c4d/{number:05d}.parquet", b"1")
    proxy.requests.clear()
    other = Storage(store.root)
    assert all(other.done(f"scores/a-1a2b3c4d/{number:05d}.parquet") for number in range(20))
    assert sum(proxy.requests.values()) < 12


def test_one_run_writes_at_a_time(store):
    with store.lock():
        with pytest.raises(BusyError, match="another run is writing in s3://"), Storage(store.root).lock():
            raise AssertionError("two runs write")
        put(store, "rows/x", b"1")
    with Storage(store.root).lock():
        pass


HELD = """
import pickle, sys, time
with pickle.load(sys.stdin.buffer).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_lease_of_a_killed_run_is_taken_over_at_once(store):
    with subprocess.Popen([sys.executable, "-c", HELD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdin.write(pickle.dumps(store))
        other.stdin.close()
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BusyError), store.lock():
            raise AssertionError("two runs write")
        other.kill()
        other.wait()
        started = time.monotonic()
        with store.lock():
            assert time.monotonic() - started < 5


@pytest.mark.slow
def test_the_lease_of_another_machine_is_watched_before_it_is_taken(proxy, root):
    client = ObjectClient(root)
    theirs = {"host": "elsewhere", "pid": 1, "started": "1", "id": "x", "beat": 1, "free": False}
    client.create("lease.json", json.dumps(theirs).encode())
    lease = Lease(client, "lease.json", renewed=0.2, expires=1.0)
    started = time.monotonic()
    with lease.held():
        assert time.monotonic() - started >= 1.0
    stop = threading.Event()

    def renew():
        beat = 1
        while not stop.wait(0.2):
            beat += 1
            client.upload("lease.json", _file(json.dumps({**theirs, "beat": beat}).encode()))

    client.upload("lease.json", _file(json.dumps(theirs).encode()))
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with (
            pytest.raises(BusyError, match=r"on elsewhere \(process 1\)"),
            Lease(client, "lease.json", 0.2, 2.0).held(),
        ):
            raise AssertionError("the lease of a living run was taken")
    finally:
        stop.set()
        thread.join()


def test_a_run_that_lost_its_lease_writes_no_more(proxy, root):
    client = ObjectClient(root)
    theirs = _file(b'{"host": "elsewhere", "free": false, "pid": 1, "started": "1"}')
    with pytest.raises(StorageError, match="another run took over"), Lease(client, "lease.json", 0.1, 1.0).held():
        time.sleep(0.5 * (client.upload("lease.json", theirs).size > 0))
    assert json.loads(client.read("lease.json")[1])["host"] == "elsewhere"


def test_a_run_that_was_suspended_asks_for_its_lease_before_it_writes(proxy, root):
    client = ObjectClient(root)
    theirs = b'{"host": "elsewhere", "free": false, "pid": 1, "started": "1"}'
    lease = Lease(client, "lease.json", renewed=60.0, expires=0.2)
    with contextlib.suppress(StorageError), lease.held():
        time.sleep(0.2)
        lease.check()  # it has not renewed for long, and still has it
        client.upload("lease.json", _file(theirs))
        time.sleep(0.2)
        with pytest.raises(StorageError, match="another run took over"):
            lease.check()
    assert client.read("lease.json")[1] == theirs


@pytest.mark.slow
def test_a_lease_survives_faults_of_the_store(proxy, root):
    client = ObjectClient(root)
    with Lease(client, "lease.json", 0.1, 5.0).held():
        proxy.fail("PUT", "lease", 503, times=2)
        proxy.fail("PUT", "lease", "lost", times=2)
        time.sleep(2)
    assert json.loads(client.read("lease.json")[1])["free"]


def test_small_changes_wait_for_one_another(store):
    order = []

    def change(number):
        with store.turn("labels"):
            order.append(number)
            time.sleep(0.05)
            order.append(number)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(change, range(3)))
    assert order[::2] == order[1::2]


def test_the_cache_is_bounded_and_keeps_what_is_in_use(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.store.cache import Cache\n"
        "made = Cache(Path(sys.argv[1]), 10_000)\n"
        "for number in range(20):\n    local = Path(sys.argv[1], 'given'); local.write_bytes(bytes(1000))\n"
        "    made.adopt(f'old/{number:02d}', local, 1.0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert len(list((tmp_path / "copies" / "old").iterdir())) == 20  # all of them were in use
    made = Cache(tmp_path, 10_000)
    used = made.get("old/00")
    assert used is not None
    made.shrink(10_000)
    left = sorted(path.name for path in (tmp_path / "copies" / "old").iterdir())
    assert left == ["00", *(f"{number:02d}" for number in range(11, 20))]
    made.shrink(0)
    assert [path.name for path in (tmp_path / "copies" / "old").iterdir()] == ["00"]


def test_a_copy_that_is_used_while_copies_are_removed_stays(tmp_path):
    path = tmp_path / "copy"
    path.touch()
    os.utime(path, (100.0, 100.0))
    assert not cache._remove_unused(path, before=100.0)
    assert path.exists()
    assert cache._remove_unused(path, before=101.0)
    assert not path.exists()


def test_a_full_disk_costs_the_copies_that_are_not_in_use_first(tmp_path):
    script = (
        "import sys\nfrom pathlib import Path\nfrom pipeline.store.cache import Cache\n"
        "local = Path(sys.argv[1], 'given'); local.write_bytes(bytes(1000))\n"
        "Cache(Path(sys.argv[1]), 10_000).adopt('old', local, 1.0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    made = Cache(tmp_path, 10_000)

    def write(path):
        if made.path("old").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        path.write_bytes(b"new")
        return "new", 1.0

    assert made.add(write).read_bytes() == b"new"

    def never(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with pytest.raises(StorageError, match="cannot keep copies in .*No space left.*WINNOW_CACHE; nothing is lost"):
        made.add(never)
    assert not [path for path in (tmp_path / "users").rglob("tmp*") if path.is_file()]


def test_the_scratch_of_a_killed_process_is_removed(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom pipeline.store.cache import Cache\n"
        "with Cache(Path(sys.argv[1]), 10).scratch() as folder:\n"
        "    (folder / 'half').touch(); print('there', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"there\n"
        Cache(tmp_path, 10)
        assert list(tmp_path.rglob("half"))
        other.kill()
    Cache(tmp_path, 10)
    assert not list(tmp_path.rglob("half"))


@pytest.mark.parametrize("given", ["many", "inf", "nan", "-3"])
def test_a_wrong_limit_of_the_cache_is_one_line(monkeypatch, tmp_path, given):
    monkeypatch.setenv(cache.FOLDER, str(tmp_path))
    monkeypatch.setenv(cache.LIMIT, given)
    cache.of_user.cache_clear()
    with pytest.raises(StorageError, match=f"WINNOW_CACHE_GB is '{given}': set it to a number"):
        cache.of_user()
    cache.of_user.cache_clear()


@pytest.mark.parametrize("below", ["", "cache"])
def test_a_cache_that_cannot_be_a_folder_is_one_line(monkeypatch, tmp_path, below):
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "file" / below))
    cache.of_user.cache_clear()
    with pytest.raises(StorageError, match="cannot keep copies in .*; name another folder with WINNOW_CACHE$"):
        cache.of_user()
    cache.of_user.cache_clear()


UPLOADS = """
import os, pickle, sys
store = pickle.load(sys.stdin.buffer)
for number in range(1000):
    content = bytes([number % 256]) * 6_000_000
    print(number, flush=True)
    with store.making(f"rows/{number}") as path:
        path.write_bytes(content)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_while_it_uploads_leaves_no_half_object(store, proxy):
    for pause in (0.0, 0.03, 0.06, 0.1, 0.15, 0.2):
        with subprocess.Popen([sys.executable, "-c", UPLOADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            other.stdin.write(pickle.dumps(store))
            other.stdin.close()
            for _ in range(3):
                other.stdout.readline()
            time.sleep(pause)
            other.send_signal(signal.SIGKILL)
        keys = store.keys("rows")
        assert len(keys) >= 2
        for key in keys:
            assert store.size(key) == 6_000_000
        content = {key: store.fetch(key).read_bytes() for key in keys}
        assert all(len(set(each)) == 1 for each in content.values())


def _race(given):
    store, barrier, races, number = given
    won = []
    for race in range(races):
        barrier.wait()
        won.append(store.put_if_absent(f"log/{race:08d}.json", f"{number}-{race}".encode() * 50))
    return won


@pytest.mark.slow
def test_eight_publishers_race_a_thousand_times(store):
    races, context = 1000, multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(8) as pool:
        barrier = manager.Barrier(8)
        won = pool.map(_race, [(store, barrier, races, number) for number in range(8)], chunksize=1)
    for race in range(races):
        winners = [number for number in range(8) if won[number][race]]
        assert len(winners) == 1
        assert store.fetch(f"log/{race:08d}.json").read_bytes() == f"{winners[0]}-{race}".encode() * 50


def test_the_type_of_a_root_is_kept_by_its_store(store):
    assert isinstance(store.root, BucketUrl)
    assert str(pickle.loads(pickle.dumps(store)).root) == str(store.root)
    assert store.below("calibration").address("x") == f"{store.root}/calibration/x"
    assert store.beside("other").root.parent == store.root.parent
    assert isinstance(store.local.root, Path)
