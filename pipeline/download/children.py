"""Forks a process for each connection that arrives, stops those that take too long, and reports those that died."""

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NoReturn

from pipeline.download.job import SECONDS
from pipeline.process import endings, unnamed
from pipeline.process.endings import Endings

_End = Endings | unnamed.Acceptor | Connection


@dataclass(frozen=True)
class Child:
    """A process at work: the connection of its caller, its time limit, and when that ends."""

    line: Connection
    seconds: float
    deadline: float


class Children:
    """Processes of one thread. `work` runs in each of them with the connection, and ends the process."""

    def __init__(self, jobs: unnamed.Acceptor, work: Callable[[Connection], NoReturn]) -> None:
        self._jobs, self._work = jobs, work
        self._children: dict[int, Child] = {}
        self._endings = Endings()

    def run(self, line: Connection, vital: Collection[int | None]) -> None:
        """Serve until the other end of `line` is closed, or one of the `vital` processes has ended."""
        ends: tuple[_End, ...] = (line, self._jobs, self._endings)
        while True:
            readable, _, _ = select.select(ends, [], [], self._patience())
            if line in readable:
                return
            if self._endings in readable:
                self._endings.clear()
                if any(process and os.waitpid(process, os.WNOHANG)[0] for process in vital):
                    return
            self._stop_late()
            self._reap()
            if self._jobs in readable:
                self._fork(*self._jobs.accept())

    def _patience(self) -> float | None:
        """Seconds until the first time limit ends."""
        deadlines = [child.deadline for child in self._children.values()]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _fork(self, message: bytes, wire: socket.socket) -> None:
        line = Connection(wire.detach())
        process = os.fork()
        if process == 0:
            self._endings.leave()
            self._jobs.close()
            for child in self._children.values():
                child.line.close()
            self._work(line)
        seconds = SECONDS.unpack(message)[0]
        self._children[process] = Child(line, seconds, time.monotonic() + seconds)

    def _stop_late(self) -> None:
        for process, child in self._children.items():
            if time.monotonic() >= child.deadline:
                os.kill(process, signal.SIGKILL)

    def _reap(self) -> None:
        for process, child in tuple(self._children.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if not done:
                continue
            with self._children.pop(process).line as line, contextlib.suppress(OSError):
                if fault := _fault(child, os.waitstatus_to_exitcode(status)):
                    line.send(fault)


def _fault(child: Child, status: int) -> str | None:
    """Why a process ended without a reply. With status 0 it has sent one."""
    if status and time.monotonic() >= child.deadline:
        return f"it took more than {child.seconds:g} s and was stopped"
    return f"its process died of {endings.name(status)}" if status else None
