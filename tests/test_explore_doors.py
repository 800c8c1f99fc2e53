"""Strangers at the door of `winnow explore`: paths, bodies, crowds, and filters that want more than rows."""

import http.client
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product

import published_sources
import pytest

from pipeline.manifest.manifest import Manifest
from pipeline.pages.explore.app import listening
from pipeline.pages.explore.explorer import Explorer, choices
from pipeline.pages.explore.rows import Rows
from pipeline.store.storage import Storage

SECRET = "a line that no stranger may read"


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """(port, token, storage) of a page that this process answers."""
    folder = tmp_path_factory.mktemp("door")
    described = published_sources.listed(folder, range(40, 70))
    store = Storage(folder / "root" / "tiny")
    published_sources.published(described, store)
    (folder / "secret.csv").write_text(f"word\n{SECRET}\n")
    with store.scratch() as scratch:
        held = Rows(Manifest.open(store), scratch)
        with listening(Explorer(held, choices(held.manifest, described.own_recipe)), 0) as (address, answer, end):
            run = threading.Thread(target=answer)
            run.start()
            port, token = address.removeprefix("http://127.0.0.1:").split("/#")
            try:
                yield int(port), token, store
            finally:
                end()
                run.join()
                held.close()


def asked(door, method, path, body=None, **headers):
    """Status, headers and text of an answer. The path is sent as it stands."""
    port, token, _ = door
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    known = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"} | headers
    line.request(method, path, None if body is None else json.dumps(body), known)
    answer = line.getresponse()
    return answer.status, answer.headers, answer.read().decode("utf-8", "replace")


PATHS = [
    "/../app.py",
    "/../../../../../../../../etc/passwd",
    "/%2e%2e/app.py",
    "/..%2fapp.py",
    "/%2e%2e%2fapp.py",
    "/..%5capp.py",
    "/page.js/../../app.py",
    "//etc/passwd",
    "/./../requests.py",
    "/%00/app.py",
    "/page.js%00.html",
    "/api/../../app.py",
    "/api/picture?shard=0&member=..%2f..%2flog%2f00000000.json",
    "/api/picture?shard=0&member=%2fetc%2fpasswd",
    "/api/picture?shard=-1&member=00000.jpg",
    "/api/picture?shard=99999999999999999999&member=00000.jpg",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_leads_out_of_the_page(door, path):
    status, headers, text = asked(door, "GET", path)
    assert status in (400, 404, 405, 422)
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "import" not in text
    assert "root:" not in text


def test_fifty_clients_at_once_get_their_own_answers(door):
    least = [40 + number % 30 for number in range(200)]

    def kept(number):
        body = {"filters": [{"name": "sharp", "sql": f"pixels_sharpness >= {number}"}]}
        status, _, text = asked(door, "POST", "/api/funnel", body)
        return status, json.loads(text)["steps"][0]["alone"]

    with ThreadPoolExecutor(50) as clients:
        assert list(clients.map(kept, least)) == [(200, 70 - number) for number in least]


@contextmanager
def slow_body(door, length, head=""):
    """A request whose body never comes, by somebody without the token."""
    with socket.create_connection(("127.0.0.1", door[0]), 10) as line:
        start = f"POST /api/funnel HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{head}\r\n{{"
        line.sendall(start.encode())
        yield line


def test_slow_bodies_keep_nobody_waiting(door):
    held = [slow_body(door, 1000) for _ in range(100)]
    try:
        for each in held:
            each.__enter__()
        begun = time.monotonic()
        for _ in range(5):
            assert asked(door, "GET", "/api/start")[0] == 200
        assert time.monotonic() - begun < 5
    finally:
        for each in held:
            each.__exit__(None, None, None)
    assert asked(door, "GET", "/api/start")[0] == 200


@pytest.mark.parametrize("length", [5_000_000, 1 << 40])
def test_a_large_body_is_refused_before_it_is_read(door, length):
    with slow_body(door, length) as line:
        line.settimeout(10)
        assert line.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_without_an_end_is_refused(door):
    with socket.create_connection(("127.0.0.1", door[0]), 10) as line:
        line.sendall(b"POST /api/funnel HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert line.recv(100).startswith(b"HTTP/1.1 411")


READS = [
    "read_csv('{folder}/secret.csv')",
    "'{folder}/secret.csv'",
    "read_text('{folder}/secret.csv')",
    "read_blob('{folder}/secret.csv')",
    "sniff_csv('{folder}/secret.csv')",
    "glob('{folder}/*')",
    "read_parquet('{folder}/root/tiny/rows/*.parquet')",
    "parquet_metadata('{folder}/root/tiny/rows/*.parquet')",
    "duckdb_settings()",
    "duckdb_secrets()",
    "duckdb_databases()",
    "information_schema.tables",
    "(SHOW ALL TABLES)",
    "(COPY rows TO '{folder}/out.csv')",
    "(INSERT INTO rows SELECT * FROM rows)",
    "query('SELECT 1')",
    "query_table('rows')",
]
PLACES = [
    "(SELECT count(*) FROM {what}) > 0",
    "EXISTS (FROM {what})",
    "true OR (SELECT any_value(x) IS NULL FROM {what} AS x)",
    "width > 3) OR EXISTS (FROM {what}) OR (1 = 1",
    "(WITH rows AS (FROM {what}) SELECT count(*) FROM rows) > 0",
    "CASE WHEN width < 0 THEN EXISTS (FROM {what}) ELSE true END",
]
HOSTILE = [
    "getenv('HOME') IS NULL",
    "current_setting('allowed_paths') IS NULL",
    "getvariable('x') IS NULL",
    "true; COPY rows TO '{folder}/out.csv'",
    "true; ATTACH '{folder}/out.db'",
    "true; INSTALL httpfs",
    "true; LOAD httpfs",
    "true; SET enable_external_access = true",
    "write_log('x') IS NULL",
    "len(repeat(repeat('x', 100000), 20000)) > 0",
    *(place.replace("{what}", what) for place, what in product(PLACES, READS)),
]


@pytest.mark.slow
def test_hostile_filters_read_and_write_nothing(door):
    folder = door[2].root.parent.parent
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert len(HOSTILE) > 101
    for sql in HOSTILE:
        body = {"filters": [{"name": "mine", "sql": sql.replace("{folder}", str(folder))}]}
        status, _, text = asked(door, "POST", "/api/funnel", body)
        detail = json.loads(text)["detail"]
        assert (status, detail[:14]) == (400, "filter 'mine':"), sql
        assert "\n" not in detail
        assert SECRET not in text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert asked(door, "GET", "/api/start")[0] == 200
