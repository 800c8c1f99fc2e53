"""Connections between related processes, over a socket without an address: only those that inherit it can connect."""

import socket
from typing import Self


class Caller:
    """The end of those that connect. Any thread and any fork may use it at the same time."""

    def __init__(self, queue: socket.socket) -> None:
        self._queue = queue

    def connect(self, message: bytes = b"+") -> socket.socket:
        """A new connection, and a first message of at most some kilobytes, which is not empty.

        One of the processes that accept gets both, when it has time. Raises OSError if none is left.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._queue, [message], [theirs.fileno()])
            except BaseException:
                ours.close()
                raise
        return ours

    def close(self) -> None:
        """Give the end up in this process."""
        self._queue.close()


class Acceptor:
    """The end of those that accept, each connection by one of them. Close it in every other process."""

    def __init__(self, queue: socket.socket) -> None:
        self._queue = queue

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """The end that was passed to this process."""
        return cls(socket.socket(fileno=descriptor))

    def accept(self) -> tuple[bytes, socket.socket]:
        """Wait for a connection. Returns the first message and the connection."""
        while True:
            message, descriptors, _, _ = socket.recv_fds(self._queue, 1 << 14, 1)
            if descriptors:
                return message, socket.socket(fileno=descriptors[0])

    def fileno(self) -> int:
        """For `select`, and to pass the end to another process."""
        return self._queue.fileno()

    def close(self) -> None:
        """Give the end up in this process."""
        self._queue.close()


def pair() -> tuple[Caller, Acceptor]:
    """Both ends. Connections that nobody has accepted are closed with the last acceptor."""
    calling, accepting = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return Caller(calling), Acceptor(accepting)
