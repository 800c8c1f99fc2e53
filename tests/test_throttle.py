"""How politely hosts are asked: robots.txt, Retry-After, few requests at once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pipeline.download import download
from pipeline.failure import RowError
from pipeline.settings.download import OPT_OUTS, Download
from pipeline.settings.pairs import Pairs
from pipeline.sources.loading import load
from pipeline.sources.source import Source
from pipeline.web.client import Opener
from pipeline.web.guard import Guard
from pipeline.web.robots import Rules, robot_name
from pipeline.web.throttle import FIRST_BACKOFF, Backoff, retry_after

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
    assert time.monotonic() - begun < 0.5


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
    assert 1 <= time.monotonic() - begun < 2.5


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
    assert FIRST_BACKOFF - 0.1 < time.monotonic() - begun < FIRST_BACKOFF + 1


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
