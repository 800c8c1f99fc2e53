"""One shard after another from a web that misbehaves: rows, pictures, kills."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from loopback_web import CAUSES, PRIVATE_HOST, REPEATED, Loopback, Web, kind_in_path, picture_of
from PIL import Image

from pipeline.download import download, job
from pipeline.engine import local
from pipeline.errors import ShardError, StorageError
from pipeline.ledger import ingest
from pipeline.settings.download import Download
from pipeline.settings.pairs import Pairs
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.storage import Storage

HOST = "pictures.test"


@pytest.fixture(scope="module")
def web():
    with Web() as web:
        yield web


def listed(folder, rows, **settings):
    """A source whose list holds these (URL, caption) rows."""
    folder.mkdir(exist_ok=True)
    (folder / "list.jsonl").write_text(
        "".join(json.dumps({"url": url, "caption": words}) + "\n" for url, words in rows)
    )
    return Source(name="test", pairs=Pairs(location=str(folder / "list.jsonl")), download=Download(**settings))


def downloaded(source, storage, guard):
    """The rows of all shards, with the pairs' URLs."""
    ledger = ingest.update(source, storage)
    rows = []
    for shard, error in local.run_wide(download.Downloading(source, storage, guard), ledger.shards):
        assert error is None
        urls = pq.read_table(storage.fetch(shard.key))["url"].to_pylist()
        made = pq.read_table(storage.fetch(download.stage(source).item(shard.number, ".parquet")))
        assert made.schema == job.COLUMNS
        rows += [{"url": url, "shard": shard.number, **row} for url, row in zip(urls, made.to_pylist(), strict=True)]
    return sorted(rows, key=lambda row: row["shard"])


def stored(source, storage):
    folder = storage.root / download.stage(source).folder
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def leftovers(storage):
    return [path for path in (storage.root / ".tmp").rglob("*") if path.is_file()]


def address(kind, number):
    """Who had too much rests, so that it has a host of its own."""
    return f"http://{f'busy-{number}.test' if kind == 'limited' else HOST}/{kind}/{number}.jpg"


@pytest.fixture(scope="module")
def fetched(web, tmp_path_factory):
    """(source, storage, rows) of a list with every kind of trouble, in four shards."""
    folder = tmp_path_factory.mktemp("fetched")
    urls = [address(kind, number) for number in range(4) for kind in CAUSES]
    urls += ["", "UNLIKELY", "file:///etc/passwd", f"http://{PRIVATE_HOST}/a.jpg", "http://unknown.invalid/a.jpg"]
    rows = [(url, f"caption {number}") for number, url in enumerate(urls)]
    rows += [(f"http://{HOST}/fine/0.jpg", "a second caption"), (f"http://{HOST}/missing/0.jpg", "another")]
    source = listed(folder, rows, shard_size=25, max_bytes=200_000, image_size=64)
    storage = Storage(folder / "store")
    guard = web.guard([HOST, "unknown.invalid", *(f"busy-{n}.test" for n in range(4))], max_bytes=200_000, timeout=2)
    return source, storage, downloaded(source, storage, guard), guard


def test_every_pair_has_a_row_with_its_cause(web, fetched):
    _, _, rows, _ = fetched
    assert len(rows) == 4 * len(CAUSES) + 7
    planted = {
        "": "invalid_url",
        "UNLIKELY": "invalid_url",
        "file:///etc/passwd": "blocked_scheme",
        f"http://{PRIVATE_HOST}/a.jpg": "blocked_address",
        "http://unknown.invalid/a.jpg": "dns",
    }
    for row in rows:
        expected = planted[row["url"]] if row["url"] in planted else CAUSES[kind_in_path(row["url"])]
        assert row["cause"] == expected, row
        assert row["status"] == ("failed" if expected else "ok")
        assert (row["error"] is None) == (expected is None)
        assert row["error"] is None or (0 < len(row["error"]) <= 200 and "\n" not in row["error"])
        assert all((row[name] is None) == (expected is not None) for name in ("sha256", "width", "bytes", "member"))
    assert web.canary == []


def test_pictures_are_those_of_their_urls(fetched):
    source, storage, rows, _ = fetched
    made = [row for row in rows if row["status"] == "ok"]
    for number in {row["shard"] for row in made}:
        tar = storage.fetch(download.stage(source).item(number, ".tar"))
        members = dict(tarfiles.read(tar))
        mine = [row for row in made if row["shard"] == number]
        assert list(members) == list(dict.fromkeys(row["member"] for row in mine)) == sorted(members)
        for row in mine:
            original = picture_of(row["url"])
            assert (row["sha256"], row["bytes"]) == (hashlib.sha256(original).hexdigest(), len(original))
            with Image.open(io.BytesIO(original)) as before, Image.open(io.BytesIO(members[row["member"]])) as after:
                assert (row["width"], row["height"]) == before.size
                assert (after.format, after.mode, min(after.size)) == ("JPEG", "RGB", 64)
                small = before.convert("L").resize((16, 16))
                assert abs(sum(small.tobytes()) - sum(after.convert("L").resize((16, 16)).tobytes())) < 256 * 3


def test_requests_are_counted(web, fetched):
    tries = {"flaky": 2, "moved": 2, "loop": 6} | dict.fromkeys(REPEATED, 3)
    for number in range(4):
        for kind in CAUSES:
            assert web.hits[address(kind, number)] == tries.get(kind, 1), kind


def test_pairs_of_one_url_share_a_fetch_and_a_picture(fetched):
    _, _, rows, _ = fetched
    twins = [row for row in rows if row["url"] == f"http://{HOST}/fine/0.jpg"]
    assert len(twins) == 2
    assert len({row["uid"] for row in twins}) == 2
    assert len({(row["shard"], row["member"], row["sha256"]) for row in twins}) == 1


def test_what_is_there_is_not_fetched_again(web, fetched):
    source, storage, rows, guard = fetched
    before, files = web.hits.total(), stored(source, storage)
    assert downloaded(source, storage, guard) == rows
    assert web.hits.total() == before
    assert stored(source, storage) == files
    assert leftovers(storage) == []


@pytest.mark.slow
def test_the_same_web_makes_the_same_bytes_off_the_main_thread_too(fetched, tmp_path):
    source, storage, rows, guard = fetched
    again = Storage(tmp_path / "again")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(downloaded, source, again, guard).result() == rows
    assert stored(source, again) == stored(source, storage)


class Crowded(BaseHTTPRequestHandler):
    """Counts who is here at once. The first picture is refused, and the host names two seconds."""

    def do_GET(self):
        server = self.server
        with server.lock:
            server.paths.append((self.path, time.monotonic()))
            refused = self.path.endswith(".jpg") and not server.refused_at
            if refused:
                server.refused_at = time.monotonic()
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(0.03)
        with server.lock:
            server.now -= 1
        body = b"" if self.path == "/robots.txt" or refused else picture_of(self.path)
        self.send_response(429 if refused else 200)
        self.send_header("Content-Length", str(len(body)))
        if refused:
            self.send_header("Retry-After", "2")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.mark.slow
def test_four_shards_at_once_are_as_polite_as_one(tmp_path):
    """Requests at once, the rest that a host asked for and its robots.txt are those of all processes together."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Crowded) as server:
        server.paths, server.now, server.most, server.refused_at, server.lock = [], 0, 0, 0, threading.Lock()
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        place = f"127.0.0.1:{server.server_address[1]}"
        source = listed(
            tmp_path,
            [(f"http://{place}/{number}.jpg", "") for number in range(100)],
            **{"shard_size": 25, "per_host": 3, "allow_hosts": [place], "robots": ["robots.txt"], "threads": 128},
        )
        storage = Storage(tmp_path / "store")
        shards = ingest.update(source, storage).shards
        with download.Downloading(source, storage, cores=4) as downloading:
            assert downloading.at_once == 4
            assert [error for _, error in local.run_wide(downloading, shards)] == [None] * 4
        server.shutdown()
    items = [download.stage(source).item(shard.number, ".parquet") for shard in shards]
    states = [pq.read_table(storage.fetch(item))["status"].to_pylist() for item in items]
    assert states == [["ok"] * 25] * 4
    assert server.most == 3
    assert [path for path, _ in server.paths].count("/robots.txt") == 1
    after = [when - server.refused_at for path, when in server.paths if when > server.refused_at + 0.5]
    assert min(after) > 1.9


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="the processes are found in /proc")
@pytest.mark.parametrize("which", ["decode_process", "worker"])
def test_a_helper_that_is_killed_costs_one_try(web, tmp_path, which):
    """The process that forks decoders, and the one that knows the hosts: the next try starts all of them again."""
    rows = [(f"http://{HOST}/fine/{number}.jpg", "") for number in range(4)]
    source = listed(tmp_path, rows, shard_size=2)
    storage = Storage(tmp_path / "store")
    first, second = ingest.update(source, storage).shards
    with download.Downloading(source, storage, web.guard([HOST])) as downloading:
        assert [error for _, error in local.run_wide(downloading, [first])] == [None]
        server = next(pid for pid in below(os.getpid()) if "pipeline.download.worker" in command_of(pid))
        helper = next(pid for pid in below(server) if f".{which} " in command_of(pid))
        os.kill(helper, signal.SIGKILL)
        assert gone([server])
        assert [error for _, error in local.run_wide(downloading, [second])] == [None]


def test_who_asks_strangers_without_a_contact_is_told(tmp_path):
    rows = [("http://mine.test/a.jpg", "mine"), ("http://strangers.test/b.jpg", "theirs")]

    def line(**settings):
        source = listed(tmp_path, rows, **settings)
        storage = Storage(tmp_path / "store")
        return download.missing_contact(source, storage, ingest.update(source, storage).shards)

    assert "has no contact for the operators of servers: set contact under [download] in test" in line()
    assert line(contact="https://example.org/robot") is None
    assert line(user_agent="mine/1 (me@example.org)") is None
    assert line(allow_hosts=["mine.test:80"])
    assert line(allow_hosts=["mine.test:80", "strangers.test:80"]) is None


def test_settings_that_change_pictures_change_the_key(fetched):
    source, *_ = fetched

    def key(**changed):
        settings = source.download.model_copy(update=changed)
        return download.stage(source.model_copy(update={"download": settings})).key

    changes = ({}, {"image_size": 65}, {"quality": 94}, {"max_bytes": 1}, {"max_pixels": 1}, {"resample": "lanczos"})
    assert len({key(**changed) for changed in changes}) == 6
    assert key(threads=1, timeout=1, retries=0, shard_seconds=1, shard_size=1) == key()


@dataclass(frozen=True)
class Deadly(Loopback):
    """Kills the process that asks for its name: the one of the shard."""

    def __call__(self, host, port):
        if host == "deadly.test":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(host, port)


@pytest.mark.slow
def test_a_dead_process_quarantines_its_shard_and_no_other(web, tmp_path):
    rows = [(f"http://{HOST}/fine/{n}.jpg", "") for n in range(4)]
    rows[1] = ("http://deadly.test/fine/1.jpg", "")
    source = listed(tmp_path, rows, shard_size=2)
    storage = Storage(tmp_path / "store")
    guard = web.guard([HOST], resolve=Deadly(web.http, web.https, web.canary_port))
    ledger = ingest.update(source, storage)
    outcomes = local.run_wide(download.Downloading(source, storage, guard), ledger.shards)
    first, second = (error for _, error in sorted(outcomes, key=lambda outcome: outcome[0].number))
    assert isinstance(first, ShardError)
    assert str(first) == "download, shard 00000: its process died of SIGKILL"
    assert second is None
    assert sorted(stored(source, storage)) == ["00001.parquet", "00001.tar", "key.json"]
    assert leftovers(storage) == []


@dataclass(frozen=True)
class Telling(Loopback):
    """Writes down which process asks."""

    told: str = ""

    def __call__(self, host, port):
        Path(self.told).write_text(f"{os.getppid()} {os.getpid()}")
        return super().__call__(host, port)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] if Path("/proc").is_dir() else "?"
        os.kill(pid, 0)
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"


def gone(pids, seconds=20):
    until = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.mark.slow
def test_a_shard_that_takes_too_long_is_stopped(web, tmp_path):
    source = listed(tmp_path, [(f"http://{HOST}/drip/1.jpg", "")], shard_seconds=5)
    storage = Storage(tmp_path / "store")
    told = tmp_path / "told"
    resolve = Telling(web.http, web.https, web.canary_port, told=str(told))
    (shard,) = ingest.update(source, storage).shards
    with download.Downloading(source, storage, web.guard([HOST], resolve=resolve, timeout=60)) as fetch:
        begun = time.monotonic()
        with pytest.raises(ShardError, match="shard 00000: it took more than 5 s and was stopped"):
            fetch(shard)
        assert time.monotonic() - begun < 60  # the timeout of the request, which would have ended it
        server, process = map(int, told.read_text().split())
        assert gone([process])
        assert alive(server)  # the other shards go on
    assert gone([server])
    assert leftovers(storage) == []


ALONE = """
import sys
from pathlib import Path
from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.sources.loading import load
from pipeline.store.storage import Storage

source, storage = load(sys.argv[1]), Storage(Path(sys.argv[2]))
(shard,) = ingest.update(source, storage).shards
print("begins", flush=True)
try:
    download.Downloading(source, storage)(shard)
except Exception as error:
    print(type(error).__name__, error)
"""


def written(folder, web, kind, count):
    """A source file that a program of its own can read: the web by its address."""
    place = f"127.0.0.1:{web.http}"
    (folder / "list.tsv").write_text("".join(f"{n}\thttp://{place}/{kind}/{n}.jpg\n" for n in range(count)))
    (folder / "alone.toml").write_text(
        '[pairs]\nlocation = "list.tsv"\ncolumns = ["caption", "url"]\n'
        f'[download]\ntimeout = 60\nallow_hosts = ["{place}"]\n'
    )
    return folder / "alone.toml"


def below(pid):
    """All processes that descend from this one."""
    lines = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    children = [tuple(map(int, line.split())) for line in lines]
    found = [pid]
    for each in found:
        found += [child for child, parent in children if parent == each]
    return found[1:]


def command_of(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


@pytest.mark.slow
def test_when_the_program_is_killed_nothing_goes_on(web, tmp_path):
    toml = written(tmp_path, web, "drip", 3)
    program = subprocess.Popen(
        [sys.executable, "-c", ALONE, str(toml), str(tmp_path / "store")], stdout=subprocess.PIPE
    )
    assert program.stdout.readline() == b"begins\n"
    until = time.monotonic() + 20
    while len(pids := below(program.pid)) < 2 and time.monotonic() < until:  # img2dataset's, and the shard's
        time.sleep(0.1)
    while web.hits[f"http://127.0.0.1:{web.http}/drip/0.jpg"] == 0 and time.monotonic() < until:
        time.sleep(0.1)
    pids = below(program.pid)
    assert len(pids) >= 2
    program.kill()
    program.wait()
    program.stdout.close()
    assert gone(pids)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_in_one_line(web, tmp_path):
    mounts = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=700k none "$0" && exec "$@"']
    root = tmp_path / "small"
    root.mkdir()
    try:
        subprocess.run([*mounts, str(root), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk cannot be mounted here")
    toml = written(tmp_path, web, "fine", 200)
    program = subprocess.run(
        [*mounts, str(root), sys.executable, "-c", ALONE, str(toml), str(root)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert program.stdout.splitlines()[-1].startswith("StorageError no space left in")


def test_a_tar_has_the_same_bytes_and_a_cut_one_is_noticed(tmp_path):
    members = [(f"{n:05d}.jpg", bytes([n]) * n) for n in range(50)]
    for name in ("one.tar", "two.tar"):
        tarfiles.write(tmp_path / name, iter(members))
    whole = (tmp_path / "one.tar").read_bytes()
    assert whole == (tmp_path / "two.tar").read_bytes()
    assert list(tarfiles.read(tmp_path / "one.tar")) == members
    for name, (offset, size) in tarfiles.index(tmp_path / "one.tar").items():
        assert whole[offset : offset + size] == dict(members)[name]
    for size in (0, 100, 512, 5000, 10240, len(whole) // 2, len(whole) - 10240):
        (tmp_path / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(StorageError, match=r"cut\.tar is damaged: delete it"):
            list(tarfiles.read(tmp_path / "cut.tar"))
        with pytest.raises(StorageError, match=r"cut\.tar is damaged"):
            tarfiles.index(tmp_path / "cut.tar")
