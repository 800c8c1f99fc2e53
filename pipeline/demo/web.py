"""The demo's web server, on loopback: it fails in the ways that servers on the web fail.

It runs as long as a client holds a connection to /winnow-demo/hold. Several runs may share it, and it stops with the
last of them, however that one ended. Run as `python -m pipeline.demo.web FOLDER PORT KEY`.
"""

import json
import os
import socket
import struct
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HOST = "127.0.0.1"
PRIVATE = "http://127.0.0.1:9/latest/meta-data/"
"""The target of the redirect to a private address: a port that no source allows."""

_FIRST_HOLD, _AFTER_LAST = 10.0, 0.3  # seconds without a holder before the server ends


class Site:
    """The contents of a world's folder: pictures in tars, and the faults of their URLs."""

    def __init__(self, folder: Path, key: str) -> None:
        self.key = key
        self.bomb = (folder / "bomb.png").read_bytes()
        self.faults: dict[str, str] = json.loads((folder / "faults.json").read_text(encoding="utf-8"))
        self._where: dict[str, tuple[Path, int, int]] = {}
        for path in sorted((folder / "pictures").glob("*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    self._where[member.name] = (path, member.offset_data, member.size)

    def picture(self, name: str) -> bytes | None:
        """The bytes of a picture, or None for an unknown name."""
        if name not in self._where:
            return None
        path, offset, size = self._where[name]
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class Server(ThreadingHTTPServer):
    """Serves one site, and counts the clients that hold it."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, site: Site, port: int) -> None:
        super().__init__((HOST, port), Handler)
        self.site = site
        self._holders = 0
        self._free_at = time.monotonic() + _FIRST_HOLD
        self._lock = threading.Lock()

    def hold(self, count: int) -> None:
        """Count a client that came (1) or left (-1)."""
        with self._lock:
            self._holders += count
            self._free_at = time.monotonic() + _AFTER_LAST

    @property
    def released(self) -> bool:
        """Whether no client holds the server."""
        with self._lock:
            return not self._holders and time.monotonic() > self._free_at


class Handler(BaseHTTPRequestHandler):
    """One request. The method `_FAULT` answers for the fault of that name."""

    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing."""

    def do_GET(self) -> None:
        """Send a picture, with the fault of its URL, or the key of the world."""
        if self.path == "/winnow-demo":
            return self._send(self.server.site.key.encode(), "text/plain")
        if self.path == "/winnow-demo/hold":
            return self._keep()
        name = self.path.removeprefix("/")
        picture = self.server.site.picture(name)
        if picture is None:
            return self.send_error(404)
        answer = getattr(self, "_" + self.server.site.faults.get(name, "send"))
        try:
            return answer(picture)  # type: ignore[no-any-return]
        except (BrokenPipeError, ConnectionResetError):
            return None  # the client closed the connection

    def _send(self, body: bytes, kind: str = "image/jpeg", header: tuple[str, str] | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if header:
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def _keep(self) -> None:
        self.server.hold(1)
        try:
            self._send(self.server.site.key.encode(), "text/plain")
            self.wfile.flush()
            self.connection.recv(1)
        except OSError:
            pass
        finally:
            self.server.hold(-1)

    def _http_404(self, picture: bytes) -> None:
        self.send_error(404)

    def _http_500(self, picture: bytes) -> None:
        self.send_error(500)

    def _slow(self, picture: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(picture)))
        self.end_headers()
        for byte in picture:
            self.wfile.write(bytes([byte]))
            time.sleep(0.25)

    def _dead(self, picture: bytes) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()  # with nothing to linger for, this is a reset

    def _truncated(self, picture: bytes) -> None:
        self._send(picture[: len(picture) * 2 // 5])

    def _html(self, picture: bytes) -> None:
        self._send(b"<!doctype html><title>Gone</title><p>This picture has moved. Please log in.</p>")

    def _bomb(self, picture: bytes) -> None:
        self._send(self.server.site.bomb, "image/png")

    def _private(self, picture: bytes) -> None:
        self.send_response(302)
        self.send_header("Location", PRIVATE)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _opt_out(self, picture: bytes) -> None:
        self._send(picture, header=("X-Robots-Tag", "noai, noimageai"))


def serve(folder: Path, port: int, key: str) -> None:
    """Serve until no client holds the server. Raises OSError if the port is taken."""
    server = Server(Site(folder, key), port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while not server.released:
        time.sleep(0.1)
    os._exit(0)  # a slow drip must not hold the process


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
