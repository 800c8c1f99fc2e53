"""Code of the user's, run in this process without letting it end or change the process.

A crash of the interpreter, such as a segmentation fault in a library of the user's, is beyond this.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import NoReturn

_here = threading.local()
"""`_here.user` is true in a thread that runs the user's code."""

_started: list[threading.Thread] = []
_owner = 0
_exit, _start = os._exit, threading.Thread.start


class ExitError(Exception):
    """The user's code called `sys.exit` or `os._exit`, or raised another exception that is no `Exception`."""


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Run the user's code in this block.

    - An exit is raised as ExitError. Ctrl-C stays KeyboardInterrupt.
    - The working folder, and in the main thread signal handlers, filters of warnings, `sys.stdout` and `sys.stderr`
      are as before at the end.
    - In the main thread, what it prints goes to stderr.
    - Threads that it starts are daemons: they do not keep the process from ending.
    """
    _intercept()
    before, _here.user = getattr(_here, "user", False), True
    try:
        with _folder, _process() if threading.current_thread() is threading.main_thread() else _nothing():
            yield
    except (Exception, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise ExitError(f"it ends the process, with exit status {error.code}") from error
    except BaseException as error:
        raise ExitError(f"it ends the process, with {type(error).__name__}") from error
    finally:
        _here.user = before


def end_process(status: int) -> None:
    """End this process at once if threads of the user's code still run. They could block or crash the usual end."""
    if not any(thread.is_alive() for thread in _started):
        return
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    atexit._run_exitfuncs()
    _exit(status)


def _intercept() -> None:
    """From the first user's code on, `os._exit` raises in this process, and new threads are seen."""
    global _owner
    _owner = os.getpid()
    os._exit = _raise_exit
    threading.Thread.start = _start_seen  # type: ignore[method-assign]


def _raise_exit(status: int) -> NoReturn:
    if os.getpid() != _owner:  # a child of a fork ends this way
        _exit(status)
    raise SystemExit(status)


def _start_seen(self: threading.Thread) -> None:
    if getattr(_here, "user", False):
        self.daemon = True
        _started.append(self)
    _start(self)


class _Folder(contextlib.AbstractContextManager[None]):
    """Returns to the working folder of before the first of the blocks that run now, even if it was renamed."""

    def __init__(self) -> None:
        self._lock, self._blocks, self._before = threading.Lock(), 0, -1

    def __enter__(self) -> None:
        with self._lock:
            if not self._blocks:
                self._before = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))
            self._blocks += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            os.fchdir(self._before)
            self._blocks -= 1
            if not self._blocks:
                os.close(self._before)


_folder = _Folder()


@contextlib.contextmanager
def _process() -> Iterator[None]:
    """Restore what only the main thread changes."""
    handlers = {each: signal.getsignal(each) for each in signal.valid_signals()}
    filters = list(warnings.filters)
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.redirect_stderr(sys.stderr):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in handlers.items():
            if handler is not None and signal.getsignal(each) is not handler:
                signal.signal(each, handler)
        if list(warnings.filters) != filters:
            warnings.resetwarnings()
            warnings.filters[:] = filters  # type: ignore[index]


@contextlib.contextmanager
def _nothing() -> Iterator[None]:
    yield
