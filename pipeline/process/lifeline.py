"""A child process that ends with its parent, however that dies, SIGKILL included.

The parent holds the write end of a pipe, the child the read end. When the parent is gone the kernel closes the pipe and
signals the child. Linux's PR_SET_PDEATHSIG would do for a process too, but it fires when the *thread* that started the
child ends. Standard library only: small processes import this.
"""

import contextlib
import fcntl
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_VARIABLE = "WINNOW_LIFELINE"
_LEADER = "WINNOW_LEADER"

HOME = Path(__file__).parents[2]
"""The folder of winnow's packages."""


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs one of winnow's modules. A file of the working folder never takes a module's place."""
    safe = () if Path.cwd() == HOME else ("-P",)
    return [sys.executable, *safe, "-m", module, *arguments]


def start(command: Sequence[str], env: Mapping[str, str] | None = None, **settings: Any) -> "subprocess.Popen[bytes]":
    """`subprocess.Popen` of a program that calls `hold` first.

    `pass_fds` and the other settings are those of Popen.
    """
    theirs, ours = os.pipe()
    try:
        settings["pass_fds"] = (*settings.get("pass_fds", ()), theirs)
        child = subprocess.Popen(command, env={**(env or os.environ), _VARIABLE: str(theirs)}, **settings)
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    weakref.finalize(child, os.close, ours)
    return child


def hold() -> None:
    """In the child: end when the parent ends. The leader of a process group takes its group along.

    Works for programs that `start` started and for workers of multiprocessing; in any other it does nothing.
    """
    parent = multiprocessing.parent_process()
    named = os.environ.pop(_VARIABLE, None)
    if named is not None:
        _watch(int(named))
    elif parent is not None and isinstance(parent.sentinel, int):
        _watch(parent.sentinel)


def lead() -> None:
    """Let programs that others start for this process end with it: those that call `follow`."""
    os.environ[_LEADER] = str(os.getpid())
    if Path.cwd() != HOME:
        os.environ["PYTHONSAFEPATH"] = "1"  # as `python` does


def follow() -> None:
    """In a program that a process after `lead` started, through whatever library: end when that process ends."""
    leader = os.environ.pop(_LEADER, None)
    if leader is not None:
        threading.Thread(target=_follow, args=(int(leader),), daemon=True).start()


def _follow(leader: int) -> None:
    while os.getppid() == leader:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _watch(descriptor: int) -> None:
    """Be signalled by the kernel, which needs no thread and no interpreter; and where it does not, wait in a thread."""
    leads = os.getpgrp() == os.getpid()
    with contextlib.suppress(OSError, AttributeError):
        signal.signal(signal.SIGIO, signal.SIG_DFL)  # its default is to end the process
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, -os.getpgrp() if leads else os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_wait, args=(descriptor, leads), daemon=True).start()


def _wait(descriptor: int, leads: bool) -> None:
    select.select([descriptor], [], [])
    if leads:
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
