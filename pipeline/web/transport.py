"""Sockets whose reads all end at one deadline, however slowly the bytes arrive, plain and under TLS."""

import functools
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import certifi

from pipeline.web.guard import seconds_left

_STEP = 0.01
"""Seconds after which a socket's own time limit is set again. It costs as much as a read, and a body has many reads."""


class _Deadline(socket.socket):
    """A socket whose reads end at a deadline, in seconds of `time.monotonic`, or `_STEP` later."""

    _deadline: float
    _set_at: float

    @property
    def deadline(self) -> float:
        """When reads end."""
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        self._deadline, self._set_at = deadline, 0.0

    def recv_into(self, *args: Any) -> int:
        """As the base class's. Raises TimeoutError after the deadline."""
        now = time.monotonic()
        if now - self._set_at > _STEP:
            self.settimeout(seconds_left(self._deadline))
            self._set_at = now
        return super().recv_into(*args)


class PlainSocket(_Deadline):
    """A socket with a deadline."""


class TlsSocket(_Deadline, ssl.SSLSocket):
    """The same under TLS."""


Socket: TypeAlias = PlainSocket | TlsSocket


@functools.cache
def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """TLS that trusts the usual authorities, and those of `ca_file`. Reading them takes 30 ms."""
    tls = ssl.create_default_context()
    tls.load_verify_locations(certifi.where())  # a fresh Python on macOS has no authorities
    if ca_file:
        tls.load_verify_locations(ca_file)
    tls.sslsocket_class = TlsSocket
    return tls


def connect(addresses: Sequence[tuple[str, int]], deadline: float, tls: tuple[ssl.SSLContext, str] | None) -> Socket:
    """A connection to the first address and port that accepts one. `tls`: the context, and the host to verify.

    Each address gets an equal part of the time that is left, so that a silent one leaves time for the others. A failed
    handshake is final. Raises OSError.
    """
    for remaining, (address, port) in zip(range(len(addresses) - 1, -1, -1), addresses, strict=True):
        plain = PlainSocket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            plain.settimeout(seconds_left(deadline) / (remaining + 1))
            plain.connect((address, port))
            plain.settimeout(seconds_left(deadline))
            connected = _handshake(plain, *tls) if tls else plain
        except OSError as error:
            plain.close()
            if remaining and not isinstance(error, ssl.SSLError):
                continue
            raise
        connected.deadline = deadline
        return connected
    raise AssertionError("there is at least one address")


def _handshake(plain: PlainSocket, context: ssl.SSLContext, host: str) -> TlsSocket:
    secure = context.wrap_socket(plain, server_hostname=host)
    assert isinstance(secure, TlsSocket)
    return secure
