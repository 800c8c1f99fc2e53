"""A loopback stand-in for the web, http and https, that answers for any host and misbehaves on request."""

import contextlib
import gzip
import hashlib
import io
import socket
import ssl
import struct
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import trustme
from PIL import Image

from pipeline.web.guard import Guard
from pipeline.web.url import Url

CAUSES = {
    "fine": None,
    "packed": None,  # gzipped, though nobody asked for it
    "moved": None,
    "flaky": None,  # 500, then 200
    "missing": "http_404",
    "failing": "http_500",
    "limited": "http_429",
    "empty": "empty",
    "drip": "timeout",
    "silent": "timeout",
    "dead": "reset",
    "short": "reset",  # fewer bytes than Content-Length says
    "cut": "undecodable",  # half a JPEG
    "html": "undecodable",
    "bomb": "too_many_pixels",
    "oversize": "too_large",  # without Content-Length
    "stated": "too_large",
    "private": "blocked_address",  # a redirect to a name at a private address
    "neighbour": "blocked_address",  # a redirect to another port of 127.0.0.1
    "local": "blocked_scheme",  # a redirect to file:
    "loop": "redirects",
    "opt_out": "opt_out",
}
"""What the web does with a URL -> the cause it should have, None for a picture."""

REPEATED = {"failing", "limited", "dead", "short"}
"""Kinds that are worth another try."""

ENDLESS = 30_000_000
PRIVATE_HOST = "router.lan"


@cache
def picture(number):
    """One of a few JPEGs, 340 x 256 or so: enough detail to score, cheap to serve."""
    number %= 16
    image = Image.linear_gradient("L").resize((320 + 8 * number, 256 + 4 * number)).rotate(20 * number)
    image = Image.merge("RGB", [image, image.transpose(Image.Transpose.ROTATE_180), image.point(lambda v: 255 - v)])
    data = io.BytesIO()
    image.save(data, "JPEG", quality=60 + number)
    return data.getvalue()


def bomb():
    """A PNG of 69 bytes that says it has 3.6 thousand million pixels."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def share(text):
    """0 to 1, by the hash of the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") / 2**32


def picture_of(url):
    return picture(int(share(url) * 1e6))


def seen(url):
    """The URL as the server sees it: what was escaped on the way stays escaped."""
    parsed = Url.parse(url)
    return f"{'https' if parsed.secure else 'http'}://{parsed.host_header}{parsed.target}"


def kind_in_path(url):
    """http://host/drip/7.jpg drips."""
    return urlsplit(url).path.split("/")[1]


@dataclass(frozen=True)
class Loopback:
    """A resolver for Guard: every host is at 127.0.0.1, on the stand-in's ports."""

    http: int
    https: int
    canary: int
    unknown: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()

    def __call__(self, host, port):
        if host in self.unknown or host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        if host in self.closed:
            return [("127.0.0.1", 1)]
        if host in self.private or host == PRIVATE_HOST:
            return [("127.0.0.1", self.canary)]
        if host == "127.0.0.1":
            return [("127.0.0.1", port)]
        return [("127.0.0.1", self.https if port == 443 else self.http)]


@dataclass
class Web:
    """`kind` names what happens to a URL (a key of CAUSES). `hosts` get certificates; `untrusted` worthless ones.

    A URL of kind "to" is redirected to what `to` says of it.
    """

    kind: object = kind_in_path
    hosts: tuple = ()
    untrusted: frozenset = frozenset()
    hits: Counter = field(default_factory=Counter)
    canary: list = field(default_factory=list)
    to: dict = field(default_factory=dict)

    def __enter__(self):
        self._servers = [_server(self, Handler), _server(self, Handler, _contexts(self)), _server(self, Canary)]
        self.http, self.https, self.canary_port = (server.server_address[1] for server in self._servers)
        with contextlib.suppress(OSError):  # a machine without IPv6
            self._servers.append(_server(self, Canary, address=("::1", self.canary_port)))
        return self

    def __exit__(self, *_):
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def guard(self, allow_hosts=(), **settings):
        """A guard that finds the stand-in; `allow_hosts` without a port are allowed on the usual ones."""
        allowed = frozenset(f"{host}:{port}" for host in allow_hosts for port in (80, 81, 443))
        return Guard(**{"allow_hosts": allowed, "resolve": self.resolver(), "timeout": 2, **settings})

    def resolver(self, **planted):
        return Loopback(self.http, self.https, self.canary_port, **planted)


def _server(web, handler, sni=None, address=("127.0.0.1", 0)):
    server = (Server6 if ":" in address[0] else Server)(address, handler)
    server.web, server.sni = web, sni
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


def _contexts(web):
    """Certificates with a hundred names each, made when the first of them is asked for."""
    trusted, worthless = trustme.CA(), trustme.CA()
    web.ca_pem = trusted.cert_pem.bytes()
    hosts = sorted(web.hosts)
    group = {host: number // 100 for number, host in enumerate(hosts)}

    @cache
    def context(number, ca):
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(*(hosts[100 * number : 100 * (number + 1)] or ["nobody.invalid"])).configure_cert(made)
        return made

    def chosen(wire, name, _):
        wire.context = context(group.get(name, 0), worthless if name in web.untrusted else trusted)

    first = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.issue_cert("nobody.invalid", *(host for host in hosts if host.replace(".", "").isdigit())).configure_cert(
        first
    )
    first.sni_callback = chosen
    return first


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def get_request(self):
        wire, address = super().get_request()
        if self.sni:  # the handshake comes with the first read, in the thread of the request
            wire = self.sni.wrap_socket(wire, server_side=True, do_handshake_on_connect=False)
        return wire, address

    def handle_error(self, request, client_address):
        pass  # clients that hang up are what this is for


class Server6(Server):
    address_family = socket.AF_INET6


class Handler(BaseHTTPRequestHandler):
    timeout = 30

    def log_message(self, *args):
        pass

    def do_GET(self):
        target = self.requestline.split()[1]  # self.path has lost a slash where there were two
        self.url = f"http{'s' * bool(self.server.sni)}://{self.headers['Host']}{target}".removesuffix("/moved")
        web = self.server.web
        web.hits[self.url] += 1
        getattr(self, web.kind(self.url))(picture_of(self.url))

    def answer(self, body, status=200, length=None, **headers):
        self.send_response(status)
        if length is not False:
            self.send_header("Content-Length", str(length or len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def fine(self, body):
        self.answer(body)

    def packed(self, body):
        self.answer(gzip.compress(body), Content_Encoding="gzip")

    def moved(self, body):
        if self.path.endswith("/moved"):
            self.answer(body)
        else:
            self.answer(b"", 302, Location=self.url + "/moved")

    def to(self, body):
        self.answer(b"", 302, Location=self.server.web.to[self.url].encode().decode("latin-1"))

    def flaky(self, body):
        self.answer(body, 500 if self.server.web.hits[self.url] % 2 else 200)

    def missing(self, body):
        self.answer(b"gone", 404)

    def failing(self, body):
        self.answer(b"broken", 500)

    def limited(self, body):
        self.answer(b"slowly", 429)

    def empty(self, body):
        self.answer(b"", length=False)

    def drip(self, body):
        self.answer(b"", length=len(body))
        for byte in body:
            self.wfile.write(bytes([byte]))
            time.sleep(0.1)

    def silent(self, body):
        self.connection.recv(1)  # until the other side has enough

    def dead(self, body):
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def short(self, body):
        self.answer(body[:-100], length=len(body))

    def cut(self, body):
        self.answer(body[: len(body) // 2])

    def html(self, body):
        self.answer(b"<!doctype html><title>picture.jpg</title>", Content_Type="image/jpeg")

    def bomb(self, body):
        self.answer(bomb())

    def oversize(self, body):
        self.answer(body, length=False)
        for _ in range(ENDLESS // 100_000):
            self.wfile.write(bytes(100_000))

    def stated(self, body):
        self.answer(body, length=ENDLESS)

    def private(self, body):
        self.answer(b"", 302, Location=f"http://{PRIVATE_HOST}/admin.jpg")

    def neighbour(self, body):
        self.answer(b"", 302, Location=f"http://127.0.0.1:{self.server.web.canary_port}/admin.jpg")

    def local(self, body):
        self.answer(b"", 302, Location="file:///etc/passwd")

    def loop(self, body):
        self.answer(b"", 302, Location=self.url)

    def opt_out(self, body):
        self.answer(body, X_Robots_Tag="noai, noimageai")


class Canary(BaseHTTPRequestHandler):
    """Nobody may ever come here."""

    def setup(self):
        self.server.web.canary.append(self.client_address)
        super().setup()

    def do_GET(self):
        self.send_error(418)

    def log_message(self, *args):
        pass
