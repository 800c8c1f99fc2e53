"""A server that speaks S3 on loopback, in a process of its own, and a proxy before it that injects faults."""

import contextlib
import http.client
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pipeline.store.places import place

BUCKET = "winnow-test"

ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>{}</Message></Error>'


def variables(address):
    """What makes winnow use the server at this address."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
    }


@contextlib.contextmanager
def running():
    """The address of a server with the empty bucket `BUCKET`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("PUT", f"/{BUCKET}")
                    assert connection.getresponse().status == 200
                    break
                assert time.monotonic() < deadline, "moto's server does not start"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def root(prefix):
    return place(f"s3://{BUCKET}/{prefix}")


class Proxy:
    """Hands requests on to the server at `address`, except where `faults` says otherwise.

    `faults` are called with method and path of each request, and return None or one of: an int, the status of an
    answer without the server; (status, code), the same with a code; "reset", no answer, and the server never sees the
    request; "lost", the server acts, and its answer is lost; "half", the body of the answer ends early; a float, a
    pause of so many seconds. `drops` are names of headers that do not reach the server.
    """

    def __init__(self, address):
        self.host = address.removeprefix("http://")
        self.faults, self.drops, self.requests = [], set(), Counter()
        self.writing = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def fail(self, method, pattern, fault, times=1):
        """Answer the first `times` requests that match with this fault."""
        left = [times]

        def decide(asked, path):
            if asked == method and re.search(pattern, path) and left[0] > 0:
                left[0] -= 1
                return fault
            return None

        self.faults.append(decide)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy = None

    def do_GET(self):
        self._serve()

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _serve(self):
        body = self._body()
        self.proxy.requests[self.command, self.path.partition("?")[0]] += 1
        found = [fault for decide in self.proxy.faults if (fault := decide(self.command, self.path)) is not None]
        fault = found[0] if found else None
        if isinstance(fault, float):
            time.sleep(fault)
        elif fault == "reset":
            return self._hang_up()
        elif isinstance(fault, int | tuple):
            status, code = (
                fault if isinstance(fault, tuple) else (fault, "SlowDown" if fault == 503 else "InternalError")
            )
            return self._answer(status, [], ERROR.format(code, f"{code} was injected.").encode())
        status, headers, data = self._forward(body)
        if fault == "lost":
            return self._hang_up()
        if fault == "half":
            self._answer(status, headers, data[: len(data) // 2], length=len(data))
            return self._hang_up()
        return self._answer(status, headers, data)

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            raise NotImplementedError
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body):
        # moto looks for the object and writes it in two steps, so that two conditional writes may both succeed
        with self.proxy.writing if self.command == "PUT" else contextlib.nullcontext():
            return self._ask(body)

    def _ask(self, body):
        connection = http.client.HTTPConnection(self.proxy.host, timeout=30)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in self.proxy.drops}
        connection.request(self.command, self.path, body, kept)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    def _answer(self, status, headers, data, length=None):
        self.send_response_only(status)
        own = {"content-length", "connection", "transfer-encoding"}
        for name, value in headers:
            if name.lower() not in own or (name.lower() == "content-length" and self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def _hang_up(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args):
        pass
