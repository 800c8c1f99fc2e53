"""What may be opened: hostile URLs, addresses that change, and a web that misbehaves."""

import contextlib
import gzip
import socketserver
import threading
import time
import urllib.request
import zlib
from email.message import Message
from itertools import chain, repeat
from urllib.parse import urlsplit

import pytest
from loopback_web import CAUSES, PRIVATE_HOST, REPEATED, Web, picture, picture_of

from pipeline.failure import RowError, parse_row_error
from pipeline.web.client import Opener
from pipeline.web.guard import Guard, is_public, system_resolver
from pipeline.web.robots import opted_out
from pipeline.web.url import Url

HOST = "pictures.test"


@pytest.fixture(scope="module")
def web():
    with Web(hosts=(HOST, "other.test"), untrusted=frozenset({"other.test"})) as web:
        yield web


@pytest.fixture
def opener(web, tmp_path):
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(web.ca_pem)
    hosts = [HOST, "other.test", "closed.test", "unknown.invalid"]
    resolve = web.resolver(closed=frozenset({"closed.test"}))
    return Opener(web.guard(hosts, ca_file=ca_file, max_bytes=200_000, timeout=1, retries=1, resolve=resolve))


def cause_of(opener, url):
    try:
        opener.open(url)
    except RowError as failure:
        return failure.cause


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", CAUSES)
def test_every_way_to_misbehave_has_its_cause(web, opener, kind, scheme):
    url = f"{scheme}://{HOST}/{kind}/{scheme}.jpg"
    begun = time.monotonic()
    if CAUSES[kind] is None:
        assert opener.open(url).read() == picture_of(url)
    elif CAUSES[kind] in ("undecodable", "too_many_pixels"):
        assert opener.open(url).read()  # for the decoder to judge
    else:
        assert cause_of(opener, url) == CAUSES[kind]
    assert time.monotonic() - begun < 10
    tries = {"flaky": 2, "moved": 2, "loop": 6} | dict.fromkeys(REPEATED, 2)
    assert web.hits[url] == tries.get(kind, 1)
    assert web.canary == []


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("http://unknown.invalid/fine/a.jpg", "dns"),
        ("http://closed.test/fine/a.jpg", "refused"),
        ("https://other.test/fine/a.jpg", "tls"),
        ("https://wrong-name.test/fine/a.jpg", "blocked_address"),
        (f"http://{PRIVATE_HOST}/a.jpg", "blocked_address"),
        ("file:///etc/passwd", "blocked_scheme"),
        ("FILE:///etc/passwd", "blocked_scheme"),
        ("ftp://pictures.test/a.jpg", "blocked_scheme"),
        ("data:image/gif;base64,R0lGODlhAQABAAAAACw=", "blocked_scheme"),
        ("javascript:alert(1)", "blocked_scheme"),
        ("gopher://127.0.0.1:70/_", "blocked_scheme"),
        ("", "invalid_url"),
        ("UNLIKELY", "invalid_url"),
        ("//pictures.test/a.jpg", "invalid_url"),
        ("http://", "invalid_url"),
        ("http://pictures.test:0/a.jpg", "invalid_url"),
        ("http://pictures.test:99999/a.jpg", "invalid_url"),
        ("http://pictures.test:x/a.jpg", "invalid_url"),
        ("http://[::1/a.jpg", "invalid_url"),
        ("http://a..b/a.jpg", "invalid_url"),
        ("http://" + "a" * 64 + ".test/a.jpg", "invalid_url"),
        ("http://a b/a.jpg", "invalid_url"),
        ("http://a\r\nHost: b/a.jpg", "invalid_url"),
        ("http://pictures.test%00.evil.test/a.jpg", "invalid_url"),
    ],
)
def test_urls_that_are_not_fetched(web, opener, url, cause):
    before = web.hits.total()
    assert cause_of(opener, url) == cause
    assert web.hits.total() == before
    assert web.canary == []


URLS = """
http://127.0.0.1:{port}/ http://2130706433:{port}/ http://0x7f000001:{port}/ http://0x7f.1:{port}/ http://017700000001:{port}/
http://0177.0.0.1:{port}/ http://0x7f.0x0.0x0.0x1:{port}/ http://127.1:{port}/ http://127.0.1:{port}/ http://0:{port}/
http://127.000.000.001:{port}/ http://0.0.0.0:{port}/ http://127.0.0.1.:{port}/ http://localhost:{port}/
http://localhost.:{port}/ http://LOCALHOST:{port}/ http://[::1]:{port}/ http://[0:0:0:0:0:0:0:1]:{port}/ http://[::]:{port}/
http://[::ffff:127.0.0.1]:{port}/ http://[::ffff:7f00:1]:{port}/ http://[::127.0.0.1]:{port}/ http://[64:ff9b::7f00:1]:{port}/
http://[2002:7f00:1::]:{port}/ http://127。0。0。1:{port}/ http://①②⑦.0.0.1:{port}/ http://user:pw@127.0.0.1:{port}/
http://pictures.test@127.0.0.1:{port}/ http://pictures.test\\@127.0.0.1:{port}/ http://127.0.0.1:{port}#@pictures.test/
http://127.0.0.1%00.pictures.test:{port}/ http:\\\\127.0.0.1:{port}\\ http:///127.0.0.1:{port}/ //127.0.0.1:{port}/
http://169.254.169.254/latest/meta-data/ http://[fe80::1%25lo]:{port}/ http://[fd00::1]:{port}/ http://10.0.0.1:{port}/
http://100.64.0.1:{port}/ file:///etc/passwd file://localhost/etc/passwd ftp://127.0.0.1:{port}/a gopher://127.0.0.1:{port}/_a
dict://127.0.0.1:{port}/a jar:http://127.0.0.1:{port}/!/a
"""
"""{port} is the canary's, on 127.0.0.1 and ::1."""

HOSTILE = URLS.split()

PRIVATE = """
0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.255.255.255 168.63.129.16 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1
192.0.0.192 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1
255.255.255.255
:: ::1 ::7f00:1 ::ffff:8.8.8.8 ::ffff:127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:10::1 2001:20::1
2001:db8::1 2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1
"""

PUBLIC = "8.8.8.8 1.1.1.1 172.15.0.1 172.32.0.1 100.128.0.1 192.0.1.1 2606:4700::1111 2a00:1450:4001::1"


def by_system(web):
    """This machine's resolver, which reads odd forms of numbers, but for the stand-in's own name."""
    return lambda host, port: [("127.0.0.1", web.http)] if host == HOST else system_resolver(host, port)


def refused(web, guard, url, *more):
    """What is not fetched, and says why in words of the guard's."""
    cause = cause_of(Opener(guard), url)
    assert cause in ("blocked_address", "blocked_scheme", "invalid_url", "dns", *more), cause
    assert web.canary == []


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_urls_are_not_reached_directly(web, hostile):
    refused(web, Guard(resolve=by_system(web), retries=0), hostile.format(port=web.canary_port))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_urls_are_not_reached_by_a_redirect(web, hostile):
    url = f"http://{HOST}/to/{HOSTILE.index(hostile)}"
    web.to[url] = hostile.format(port=web.canary_port)
    guard = web.guard([HOST], resolve=by_system(web), retries=0)
    refused(web, guard, url, "reset")  # what names no host is asked of the stand-in again, which hangs up
    assert web.hits[url] == 1


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_addresses_are_not_reached_when_a_name_changes_to_them(web, hostile):
    """The second answer is where the hostile URL leads, or the canary where it leads nowhere."""
    try:
        second = [
            (address, web.canary_port)
            for address, _ in system_resolver(urlsplit(hostile.format(port=1)).hostname or "", 1)
        ]
    except (OSError, ValueError):
        second = [("127.0.0.1", web.canary_port)]
    number = HOSTILE.index(hostile)
    resolve = Changing([("127.0.0.1", web.http)], second)
    guard = web.guard(resolve=resolve, allow_hosts=[HOST], retries=0)
    url = f"http://{HOST}/fine/changing-{number}.jpg"
    assert Opener(guard).open(url).read() == picture_of(url)
    assert (resolve.asked, web.canary) == (1, [])
    resolve.asked = 0
    web.to[f"http://{HOST}/to/changing-{number}"] = f"http://{HOST}:8080/fine/again.jpg"
    refused(web, guard, f"http://{HOST}/to/changing-{number}")
    assert resolve.asked == 2


def test_the_canary_sings_and_there_are_45_urls():
    assert len(set(HOSTILE)) == 45
    with Web() as web:
        place = f"127.0.0.1:{web.canary_port}"
        assert cause_of(Opener(Guard(allow_hosts=frozenset({place}))), f"http://{place}/") == "http_418"
        assert len(web.canary) == 1


def test_addresses():
    assert [address for address in PRIVATE.split() if is_public(address)] == []
    assert [address for address in PUBLIC.split() if not is_public(address)] == []


class Changing:
    """A name whose address is another each time it is looked up."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def __call__(self, host, port):
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def test_a_name_is_looked_up_once_and_the_vetted_address_is_the_one_that_is_reached(web):
    resolve = Changing([("127.0.0.1", web.http)], [("127.0.0.1", web.canary_port)])
    opener = Opener(web.guard([HOST], resolve=resolve))
    url = f"http://{HOST}/fine/once.jpg"
    assert opener.open(url).read() == picture_of(url)
    assert (resolve.asked, web.canary) == (1, [])


def test_a_redirect_is_looked_up_and_vetted_anew(web):
    resolve = Changing([("127.0.0.1", web.http)], [("10.0.0.1", 80)])
    guard = Guard(resolve=resolve, allow_hosts=frozenset({f"{HOST}:8080"}))
    assert cause_of(Opener(guard), f"http://{HOST}:8080/private/once.jpg") == "blocked_address"
    assert (resolve.asked, web.canary) == (2, [])


def test_one_private_address_among_public_ones_spoils_the_name():
    url = Url.parse("http://mixed.test/a.jpg")
    later = time.monotonic() + 5
    good = [("93.184.216.34", 80), ("2606:2800:220:1::", 80)]
    assert Guard(resolve=Changing(good)).addresses(url, later) == good
    for bad in ("127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1"):
        with pytest.raises(RowError, match="blocked_address"):
            Guard(resolve=Changing([*good, (bad, 80)])).addresses(url, later)


def test_a_host_is_allowed_on_one_port_only(web):
    guard = Guard(allow_hosts=frozenset({f"127.0.0.1:{web.http}"}), timeout=2)
    assert Opener(guard).open(f"http://127.0.0.1:{web.http}/fine/port.jpg").read()
    assert cause_of(Opener(guard), f"http://127.0.0.1:{web.canary_port}/a.jpg") == "blocked_address"
    assert cause_of(Opener(guard), f"http://127.0.0.1:{web.http}/neighbour/port.jpg") == "blocked_address"
    assert web.canary == []


def test_the_environments_proxies_are_not_used(web, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{web.canary_port}")
    assert Opener(web.guard([HOST])).open(f"http://{HOST}/fine/proxy.jpg").read()
    assert web.canary == []


def test_an_unknown_authority_is_not_trusted(web):
    assert cause_of(Opener(web.guard([HOST])), f"https://{HOST}/fine/a.jpg") == "tls"


def test_a_certificate_for_another_name_is_refused(web, tmp_path):
    (tmp_path / "ca.pem").write_bytes(web.ca_pem)
    guard = web.guard(["nobodys.test"], ca_file=tmp_path / "ca.pem")
    assert cause_of(Opener(guard), "https://nobodys.test/fine/a.jpg") == "tls"


def test_a_resolver_that_hangs_ends_with_the_request():
    opener = Opener(Guard(resolve=lambda host, port: time.sleep(5), timeout=0.3))
    begun = time.monotonic()
    assert cause_of(opener, "http://slow.test/a.jpg") == "timeout"
    assert time.monotonic() - begun < 4


def test_it_is_what_urlopen_uses(web, opener):
    before = urllib.request._opener
    urllib.request.install_opener(opener)
    try:
        request = urllib.request.Request(f"http://{HOST}/fine/installed.jpg", headers={"User-Agent": "Mozilla"})
        with urllib.request.urlopen(request, timeout=None) as answer:
            assert answer.read() == picture_of(f"http://{HOST}/fine/installed.jpg")
        with pytest.raises(RowError, match="blocked_scheme"):
            urllib.request.urlopen("file:///etc/passwd")
    finally:
        urllib.request.install_opener(before)


@pytest.mark.parametrize(
    "location", ["data:image/gif;base64,R0lGODlhAQABAAAAACw=", "about:blank", "ws://pictures.test/"]
)
def test_a_redirect_to_another_scheme_is_not_followed(web, location):
    url = f"http://{HOST}/to/{location}"
    web.to[url] = location
    assert cause_of(Opener(web.guard([HOST])), url) == "blocked_scheme"


def test_a_redirect_may_give_up_tls_and_is_vetted_all_the_same(web, opener):
    for host, cause in ((HOST, None), (PRIVATE_HOST, "blocked_address")):
        url = f"https://{HOST}/to/{host}.jpg"
        web.to[url] = f"http://{host}/fine/plain.jpg"
        assert cause_of(opener, url) == cause
    assert web.canary == []


MOST = 200_000
ZEROS = bytes(50 * MOST)


def answer(*headers, body=b""):
    return "\r\n".join(["HTTP/1.1 200 OK", *headers, "", ""]).encode() + body


def dripping(block):
    while True:
        yield block
        time.sleep(0.01)


ODD = {
    "no head, as HTTP/0.9 has it": ([picture(1)], "bad_answer"),
    "a status of letters": ([b"HTTP/1.1 abc OK\r\n\r\n"], "bad_answer"),
    "headers without end": (chain([b"HTTP/1.1 200 OK\r\n"], repeat(b"A: b\r\n" * 1000)), "bad_answer"),
    "a header without end": (chain([b"HTTP/1.1 200 OK\r\nA: "], repeat(b"b" * 100_000)), "bad_answer"),
    "a head that drips": (chain([b"HTTP/1.1 200 OK\r\n"], dripping(b"A")), "timeout"),
    "continue without end": (dripping(b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
    "a length of letters": ([answer("Content-Length: many", body=picture(1))], "bad_answer"),
    "two lengths": ([answer("Content-Length: 5", "Content-Length: 6", body=b"12345")], "bad_answer"),
    "less than its length, said twice": ([answer("Content-Length: 9, 9", body=b"12345")], "reset"),
    "hints without end": (repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n"), "bad_answer"),
    "another protocol": ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "http_101"),
    "raw deflate that is too large": (
        [answer("Content-Encoding: deflate", body=zlib.compress(ZEROS, wbits=-zlib.MAX_WBITS))],
        "too_large",
    ),
    "members that are too large together": (
        [answer("Content-Encoding: gzip", body=2 * gzip.compress(ZEROS[: MOST - 1]))],
        "too_large",
    ),
    "chunks without end": (
        chain([answer("Transfer-Encoding: chunked")], repeat(b"10000\r\n" + ZEROS[:65536] + b"\r\n")),
        "too_large",
    ),
    "trailers without end": (
        chain([answer("Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n")], dripping(b"A: b\r\n")),
        "timeout",
    ),
    "a chunk that is none": ([answer("Transfer-Encoding: chunked", body=b"zz\r\nx")], "reset"),
    "gzip": ([answer("Content-Encoding: gzip", body=gzip.compress(ZEROS))], "too_large"),
    "deflate": ([answer("Content-Encoding: deflate", body=zlib.compress(ZEROS))], "too_large"),
    "gzip twice": ([answer("Content-Encoding: gzip, gzip", body=gzip.compress(gzip.compress(ZEROS)))], "bad_answer"),
    "brotli": ([answer("Content-Encoding: br", body=b"\x0b\x02\x80hello\x03")], "bad_answer"),
    "zstd": ([answer("Content-Encoding: zstd", body=b"\x28\xb5\x2f\xfd\x04\x00")], "bad_answer"),
    "gzip that is none": ([answer("Content-Encoding: gzip", body=picture(1))], "bad_answer"),
}
"""What a server says, in blocks, until nobody listens any more."""

JPEG = picture(1)
LENGTH = f"Content-Length: {len(JPEG)}"
HINT = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
PICTURES = {
    "early hints": [HINT + answer(LENGTH, body=JPEG)],
    "several informational answers": [HINT, b"HTTP/1.1 102 Processing\r\n\r\n", HINT, answer(body=JPEG)],
    **{f"coding {word}": [answer(f"Content-Encoding: {word}", LENGTH, body=JPEG)] for word in ("none", "utf-8", "")},
    "aws-chunked and gzip": [answer("Content-Encoding: gzip, aws-chunked", body=gzip.compress(JPEG))],
    "gzip of several members": [
        answer("Content-Encoding: gzip", body=gzip.compress(JPEG[:500]) + gzip.compress(JPEG[500:]))
    ],
    "gzip and padding": [answer("Content-Encoding: gzip", body=gzip.compress(JPEG) + bytes(20))],
    "zlib as deflate": [answer("Content-Encoding: deflate", body=zlib.compress(JPEG))],
    "raw deflate": [answer("Content-Encoding: deflate", body=RAW.compress(JPEG) + RAW.flush())],
    "one length twice": [answer(LENGTH, LENGTH, body=JPEG)],
    "one length twice in a line": [answer(f"{LENGTH}, {len(JPEG)}", body=JPEG)],
    "a length beside chunks": [
        answer("Content-Length: 7", "Transfer-Encoding: chunked", body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(JPEG), JPEG))
    ],
}


@pytest.mark.parametrize("says", PICTURES.values(), ids=PICTURES)
def test_pictures_of_odd_servers_are_whole(says):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Odd) as server:
        server.says, server.daemon_threads = says, True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        place = f"127.0.0.1:{server.server_address[1]}"
        guard = Guard(frozenset({place}), timeout=5, max_bytes=MOST, retries=0)
        assert Opener(guard).open(f"http://{place}/a.jpg").read() == JPEG
        server.shutdown()


class Odd(socketserver.StreamRequestHandler):
    def handle(self):
        while self.rfile.readline().strip():
            pass
        with contextlib.suppress(OSError):
            for block in self.server.says:
                self.wfile.write(block)


@pytest.mark.parametrize(("says", "cause"), ODD.values(), ids=ODD)
def test_what_is_no_answer_ends_soon_and_small(says, cause):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Odd) as server:
        server.says, server.daemon_threads = says, True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        place = f"127.0.0.1:{server.server_address[1]}"
        guard = Guard(frozenset({place}), timeout=0.3, max_bytes=MOST, retries=0)
        begun = time.monotonic()
        assert cause_of(Opener(guard), f"http://{place}/a.jpg") == cause
        assert time.monotonic() - begun < 10
        server.shutdown()


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("http://Pictures.TEST", "http://pictures.test:80/"),
        (" https://pictures.test/a b.jpg\n", "https://pictures.test:443/a%20b.jpg"),
        ("http://pictures.test./ä.jpg?q=ö&r=%20#top", "http://pictures.test:80/%C3%A4.jpg?q=%C3%B6&r=%20"),
        ("http://bücher.test:81/", "http://xn--bcher-kva.test:81/"),
        ("http://user:secret@pictures.test/a", "http://pictures.test:80/a"),
        ("http://[2606:4700::1111]:8080/a", "http://[2606:4700::1111]:8080/a"),
        ("http://under_score.test/a", "http://under_score.test:80/a"),
        ("http://pictures.test/a\r\nX-Evil: 1", "http://pictures.test:80/aX-Evil:%201"),
        ("http://pictures.test/x/../a/./b.jpg", "http://pictures.test:80/a/b.jpg"),
        ("http://pictures.test/x/%2e%2E/a.jpg", "http://pictures.test:80/a.jpg"),
        ("http:\\\\pictures.test\\a\\b.jpg?\\", "http://pictures.test:80/a/b.jpg?\\"),
        ("http:/pictures.test/a", "http://pictures.test:80/a"),
        ("http:///pictures.test/a", "http://pictures.test:80/a"),
        ("https:pictures.test/a", "https://pictures.test:443/a"),
        ("http://stra\u00dfe.test/", "http://xn--strae-oqa.test:80/"),
        ("http://\uff50ictures.test/", "http://pictures.test:80/"),
        ("http://pictures\u3002test/", "http://pictures.test:80/"),
        ("http://p%69ctures.test/", "http://pictures.test:80/"),
        ("http://0x7f.1/", "http://127.0.0.1:80/"),
        ("http://pictures.test/a%zz?'q'", "http://pictures.test:80/a%zz?%27q%27"),
    ],
)
def test_urls_are_read_as_browsers_read_them(text, whole):
    assert Url.parse(text).text == whole


@pytest.mark.parametrize(
    ("lines", "out"),
    [
        (["noai"], True),
        (["NoIndex, nofollow"], True),
        (["nofollow"], False),
        (["googlebot: noindex"], False),
        (["winnow: noimageai"], True),
        (["googlebot: nofollow, noindex"], False),
        (["nofollow", "all, noimageindex"], True),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST"], False),
        ([], False),
    ],
)
def test_opting_out(lines, out):
    headers = Message()
    for line in lines:
        headers["X-Robots-Tag"] = line
    assert opted_out(headers, "winnow/0.1 (image-text curation)") is out


def test_a_failure_survives_its_own_text():
    failure = RowError("tls", "two\nlines: " + "x" * 500)
    again = parse_row_error(str(failure))
    assert (again.cause, again.error) == (failure.cause, failure.error)
    assert len(again.error) <= 200
    assert "\n" not in again.error
    assert parse_row_error("unknown url type: 'x'") is None
