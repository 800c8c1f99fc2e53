"""How politely hosts are asked: robots.txt, Retry-After, few requests at once."""

import contextlib
import os
import signal
import socketserver
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.download import download
from pipeline.failure import RowError
from pipeline.process import unnamed
from pipeline.settings.download import OPT_OUTS, Download
from pipeline.settings.pairs import Pairs
from pipeline.sources.loading import load
from pipeline.sources.source import Source
from pipeline.web import throttle
from pipeline.web.client import Opener
from pipeline.web.connections import IDLE, Connections
from pipeline.web.guard import Guard
from pipeline.web.robots import Rules, robot_name
from pipeline.web.throttle import FIRST_BACKOFF, Backoff, Hosts, retry_after
from pipeline.web.url import Url

ROBOTS = """
User-agent: otherbot
User-agent: winnow   # both
Allow: /private/but/
Disallow: /private/
Disallow: /*.gif$
Disallow: /*?session=

User-agent: *
Disallow: /

User-agent: WINNOW
Disallow: /later
"""


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("/a.jpg", True),
        ("/private/a.jpg", False),
        ("/private/but/a.jpg", True),  # the longest rule decides
        ("/%70rivate/a.jpg", False),
        ("/a.gif", False),
        ("/a.gif?x", True),
        ("/a?session=1", False),
        ("/later/a.jpg", False),  # groups of one robot are one
    ],
)
def test_a_robots_txt_is_read_as_rfc_9309_says(target, allowed):
    assert Rules(ROBOTS, "winnow").allow(target) is allowed


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("Disallow: /", True),  # of nobody's group
        ("User-agent: *\nDisallow:", True),
        ("User-agent: *\nDisallow: /", False),
        ("user-agent:*\r\ndisallow:/a", False),
        ("User-agent: other\nDisallow: /", True),
        ("User-agent: winnow\n\nUser-agent: *\nDisallow: /", False),
        ("\ufeff<!doctype html><p>User-agent: *", True),
        ("User-agent: *\nDisallow: /" + "*a" * 5000 + "b", True),
    ],
)
def test_odd_files(text, allowed):
    begun = time.monotonic()
    assert Rules(text, "winnow").allow("/a" + "a" * 200) is allowed
    assert time.monotonic() - begun < 10


def test_retry_after_is_seconds_or_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=30), usegmt=True)
    assert (retry_after("120"), retry_after(past), retry_after("soon"), retry_after("-1"), retry_after(None)) == (
        120,
        0,
        None,
        None,
        None,
    )
    assert 28 < retry_after(soon) <= 30


def test_a_robot_is_named_by_the_first_word_of_its_agent():
    agent = Download(contact="mailto:me@example.org").agent
    assert agent == "winnow/0.1 (image-text curation); +mailto:me@example.org"
    assert robot_name(agent) == "winnow"
    assert Guard.of(Download(contact="https://example.org/bot")).user_agent.endswith("; +https://example.org/bot")
    with pytest.raises(ValueError, match="user_agent"):
        Download(user_agent="a\r\nCookie: b")


def test_what_is_honoured_is_part_of_the_key_and_the_rest_is_not():
    def key(**settings):
        return download.stage(
            Source(name="a", pairs=Pairs(location="http://a/b.tsv"), download=Download(**settings))
        ).key

    assert key() == key(per_host=1, contact="x", robots=tuple(reversed(OPT_OUTS)))
    assert len({key(), key(robots=()), key(robots=("robots.txt", *OPT_OUTS))}) == 3


class Site(BaseHTTPRequestHandler):
    """Answers by the path's first word; counts who is asked, and how many at once."""

    def do_GET(self):
        server = self.server
        with server.lock:
            server.asked.append((self.path, self.headers["User-Agent"]))
            server.now += 1
            server.most = max(server.most, server.now)
        time.sleep(0.02)
        kind = self.path.split("/")[1]
        with server.lock:
            server.now -= 1
        if kind == "robots.txt":
            status, headers, body = server.robots
        else:
            status, headers, body = {
                "busy": (429, {"Retry-After": "1"}, b"")
                if server.asked.count((self.path, self.headers["User-Agent"])) == 1
                else (200, {}, b"x"),
                "full": (503, {}, b""),
                "tired": (503, {"Retry-After": "3600"}, b""),
                "closed": (200, {"X-Robots-Tag": "none"}, b"x"),
                "tagged": (200, {"X-Robots-Tag": "noai"}, b"x"),
            }.get(kind, (200, {}, b"x"))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def site():
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.asked, server.now, server.most, server.lock = [], 0, 0, threading.Lock()
        server.robots = (200, {}, b"User-agent: *\nDisallow: /private/")
        server.place = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def opener(site, kept=None, **settings):
    asked = {"retries": 1, "timeout": 3, "user_agent": "winnow/1; +me@example.org", **settings}
    return Opener(Guard(allow_hosts=frozenset({site.place}), **asked), kept)


def cause_of(opened, site, path):
    try:
        opened.open(f"http://{site.place}{path}")
    except RowError as failure:
        return failure.cause


HONOURED = frozenset({"robots.txt", *OPT_OUTS})


def test_robots_txt_is_read_once_a_host_even_by_the_next_shard(site, tmp_path):
    for _ in range(2):
        first = opener(site, tmp_path / "robots", robots=HONOURED)
        with ThreadPoolExecutor(8) as pool:
            paths = [f"/{folder}/{number}" for folder in ("private", "open") for number in range(6)]
            causes = list(pool.map(lambda path, opened=first: cause_of(opened, site, path), paths))
        assert causes == ["robots_txt"] * 6 + [None] * 6
    asked = [path for path, _ in site.asked]
    assert asked.count("/robots.txt") == 1
    assert not any(path.startswith("/private") for path in asked)
    assert {agent for _, agent in site.asked} == {"winnow/1; +me@example.org"}


def test_a_robots_txt_may_begin_with_a_mark_of_its_encoding(site):
    site.robots = (200, {}, b"\xef\xbb\xbfUser-agent: *\nDisallow: /private/")
    opened = opener(site, robots=HONOURED)
    assert [cause_of(opened, site, path) for path in ("/private/a.jpg", "/open/a.jpg")] == ["robots_txt", None]


def test_shipped_lists_of_strangers_honour_all_that_a_site_can_say():
    for name in ("cc3m", "cc12m"):
        assert set(load(name).download.robots) == {"robots.txt", "none", *OPT_OUTS}


@pytest.mark.parametrize(
    ("status", "cause"), [(404, None), (403, None), (500, "http_500"), (429, "http_429"), (302, None)]
)
def test_a_robots_txt_that_cannot_be_had(site, status, cause):
    site.robots = (status, {"Location": "/other.txt"} if status == 302 else {}, b"")
    assert cause_of(opener(site, robots=HONOURED, retries=0), site, "/open/a.jpg") == cause


def test_a_policy_may_honour_less(site):
    assert cause_of(opener(site), site, "/tagged/a.jpg") == "opt_out"
    assert cause_of(opener(site, robots=frozenset({"noindex"})), site, "/tagged/a.jpg") is None
    assert cause_of(opener(site), site, "/closed/a.jpg") is None
    assert cause_of(opener(site, robots=frozenset({"none"})), site, "/closed/a.jpg") == "opt_out"
    assert cause_of(opener(site), site, "/private/a.jpg") is None
    assert "/robots.txt" not in [path for path, _ in site.asked]


def test_a_host_is_asked_again_when_it_said_and_not_before(site):
    opened = opener(site, retries=1)
    begun = time.monotonic()
    assert cause_of(opened, site, "/busy/a.jpg") is None
    assert 1 <= time.monotonic() - begun < 10


@pytest.mark.slow
def test_a_host_that_wants_a_long_rest_is_left_alone(site):
    opened = opener(site, retries=2)
    begun = time.monotonic()
    assert cause_of(opened, site, "/tired/a.jpg") in ("http_503", "http_429")
    assert {cause_of(opened, site, f"/open/{number}.jpg") for number in range(3)} == {"http_429"}
    assert time.monotonic() - begun < 5
    assert [path for path, _ in site.asked] == ["/tired/a.jpg"]


def test_a_host_that_names_no_time_rests_all_the_same(site):
    opened = opener(site, retries=0)
    assert cause_of(opened, site, "/full/a.jpg") == "http_503"
    begun = time.monotonic()
    assert cause_of(opened, site, "/open/a.jpg") is None
    assert FIRST_BACKOFF - 0.1 < time.monotonic() - begun < FIRST_BACKOFF + 9


def test_rests_double_until_the_host_serves_again(monkeypatch):
    host, now, rests = Backoff(), [100.0], []
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now[0])
        for _ in range(8):
            host.record_refusal(0)
            host.record_success()  # what was under way
            host.record_refusal(0)
            rests.append(host.seconds)
            now[0] += host.seconds
        assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
        host.record_success()
        host.record_refusal(0)
        assert host.seconds == 1
        host.record_refusal(30)
        assert host.seconds == 30


def test_few_requests_at_once_go_to_one_host(site):
    opened = opener(site, per_host=3)
    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(lambda number: cause_of(opened, site, f"/open/{number}"), range(24))) == {None}
    assert site.most <= 3


def forked(work):
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            work()
        os._exit(1)
    return child


def test_what_a_process_held_is_free_when_it_is_killed():
    """One slot: a process has it, this one waits, and the first is killed."""
    calling, accepting = unnamed.pair()
    ready, has = os.pipe()

    def hold():
        with Hosts(calling).slot("a:80", 1):
            os.write(has, b"+")
            time.sleep(60)

    def take():
        with Hosts(calling).slot("a:80", 1) as backoff:
            return backoff

    processes = [forked(lambda: throttle.serve(accepting)), forked(hold)]
    os.read(ready, 1)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(take)
        with pytest.raises(TimeoutError):
            waiting.result(0.3)
        os.kill(processes[1], signal.SIGKILL)
        assert waiting.result(10) == 0
    os.kill(processes[0], signal.SIGKILL)
    for process in processes:
        os.waitpid(process, 0)


class Kept(socketserver.StreamRequestHandler):
    """HTTP/1.1: counts connections and requests. The last part of a path says what happens after the response."""

    def handle(self):
        self.server.connections += 1
        with contextlib.suppress(ConnectionError):
            self.answer(self.server)

    def answer(self, server):
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            path = line.split()[1].decode()
            server.asked.append(path)
            body = path.encode()
            close = "Connection: close\r\n" if path.endswith("closes") else ""
            extra = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong" if path.endswith("more") else b""
            self.wfile.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{close}\r\n".encode() + body)
            self.wfile.flush()
            time.sleep(0.05)  # so that what comes after the body is no part of the same segment
            self.wfile.write(extra)
            if path.endswith(("ends", "closes")):
                return


@pytest.fixture
def kept():
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Kept) as server:
        server.asked, server.connections, server.daemon_threads = [], 0, True
        server.place = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(("after", "connections"), [("", 1), ("closes", 4), ("ends", 4), ("more", 4)])
def test_a_connection_serves_the_next_request_if_the_host_lets_it(kept, after, connections):
    """One that the host has closed, or on which more came than was asked for, serves nothing."""
    opened = opener(kept, retries=0)
    for number in range(4):
        path = f"/{number}/{after}"
        assert opened.open(f"http://{kept.place}{path}").read() == path.encode()
        time.sleep(0.1)
    assert len(kept.asked) == 4
    assert kept.connections == connections


def test_a_connection_serves_no_other_host(kept):
    """Two names of one address, of which one is private."""
    places = frozenset({f"a.test:{kept.server_address[1]}"})
    guard = Guard(allow_hosts=places, resolve=lambda host, port: [("127.0.0.1", port)], retries=0, timeout=3)
    opened = Opener(guard)
    for _ in range(2):
        assert opened.open(f"http://a.test:{kept.server_address[1]}/1/").read() == b"/1/"
    with pytest.raises(RowError, match="blocked_address"):
        opened.open(f"http://b.test:{kept.server_address[1]}/2/")
    assert (kept.connections, kept.asked) == (1, ["/1/", "/1/"])


def test_a_name_is_looked_up_once_a_minute(kept, monkeypatch):
    asked, now = [], [1000.0]

    def resolve(host, port):
        asked.append(host)
        return [("127.0.0.1", port)]

    url = Url.parse(f"http://a.test:{kept.server_address[1]}/1/")
    connections = Connections(Guard(allow_hosts=frozenset({url.authority}), resolve=resolve))
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now[0])
        for seconds in (0, 30, 29, 2):
            now[0] += seconds
            connections.open(url, now[0] + 3).close()
    assert asked == ["a.test", "a.test"]


def test_idle_connections_are_bounded_and_not_kept_for_long(kept, monkeypatch):
    place = kept.server_address[1]
    hosts = [Url.parse(f"http://{name}.test:{place}/") for name in "abc"]
    allowed = frozenset(host.authority for host in hosts)
    connections = Connections(Guard(allow_hosts=allowed, resolve=lambda host, port: [("127.0.0.1", port)]), most=2)
    now = time.monotonic()
    wires = [connections.open(host, now + 5) for host in hosts]
    for host, wire in zip(hosts, wires, strict=True):
        connections.keep(host, wire)
    assert wires[0].fileno() == -1  # the oldest
    assert connections.take(hosts[0], now + 5) is None
    assert connections.take(hosts[1], now + 5) is wires[1]
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: now + IDLE + 1)
        assert connections.take(hosts[2], now + 99) is None
    assert wires[2].fileno() == -1
