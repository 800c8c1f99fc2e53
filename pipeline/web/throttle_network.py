"""One throttle for many machines: `pipeline.web.throttle` over TCP.

It is a process of the machine that starts it. Whoever connects sends a token first, so that no stranger takes slots.
`python -m pipeline.web.throttle_network ADDRESS` is that process. Its token comes on standard input, and it prints its
port.
"""

import contextlib
import resource
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ClusterError
from pipeline.process import lifeline
from pipeline.web import throttle

_SECONDS = 10
"""To connect, and until a machine that has vanished without closing its connections is noticed, about five times."""


@dataclass(frozen=True)
class NetworkThrottle:
    """Where a throttle listens. It can be pickled; see `pipeline.web.throttle.Hosts`."""

    host: str
    port: int
    token: str

    def connect(self) -> socket.socket:
        """A new connection. Raises OSError if the throttle is gone."""
        wire = socket.create_connection((self.host, self.port), _SECONDS)
        wire.settimeout(None)
        _tune(wire)
        wire.sendall(f"{self.token}\n".encode())
        return wire


class NetworkAcceptor:
    """A TCP port of one address."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._queue = socket.create_server((address, 0), family=family, backlog=1024)

    @property
    def port(self) -> int:
        """The port, which the system has chosen."""
        return int(self._queue.getsockname()[1])

    def accept(self) -> tuple[bytes, socket.socket]:
        """Wait for a connection."""
        wire = self._queue.accept()[0]
        _tune(wire)
        return b"", wire

    def fileno(self) -> int:
        """For `select`."""
        return self._queue.fileno()


@contextlib.contextmanager
def started(address: str) -> Iterator[NetworkThrottle]:
    """A throttle that listens at this address of this machine. It ends with the block, and with this process."""
    token = secrets.token_urlsafe(16)
    process = lifeline.start(
        lifeline.python("pipeline.web.throttle_network", address),
        start_new_session=True,  # it does not see Ctrl-C
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            process.stdin.write(f"{token}\n".encode())
            process.stdin.flush()
            port = process.stdout.readline().strip()
            if not port:
                raise ClusterError(
                    f"the limits of hosts cannot be served at {address}: it is no address of this machine"
                )
            yield NetworkThrottle(address, int(port), token)
        finally:
            process.kill()


def _tune(wire: socket.socket) -> None:
    """Send at once, and notice a machine that has vanished."""
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", _SECONDS), ("TCP_KEEPINTVL", _SECONDS), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            wire.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _serve(address: str) -> None:
    lifeline.hold()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # a connection for each request at once in the cluster
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    token, acceptor = sys.stdin.readline().strip(), NetworkAcceptor(address)
    print(acceptor.port, flush=True)
    throttle.serve(acceptor, token)


if __name__ == "__main__":
    _serve(sys.argv[1])
