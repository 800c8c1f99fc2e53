"""One function call in a process of its own, which is killed at its deadline and ends with its caller.

`python -m pipeline.process.calls MODULE:FUNCTION` is that process. The arguments come pickled on standard input, from
winnow itself, and the result goes back the same way. Progress comes as lines through a pipe of its own.
"""

import contextlib
import importlib
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.errors import WinnowError
from pipeline.process import confinement, lifeline
from pipeline.progress import StepProgress

SMALL = 4 << 30
"""Bytes of memory up to which a process computes on one core."""


@dataclass(frozen=True)
class Limits:
    """Limits of a process: seconds by the clock, bytes of memory and of a file, seconds of processor time or None."""

    deadline: float
    memory: int
    written: int = 1 << 40
    processor: int | None = None


class ProcessError(WinnowError):
    """A process ended without an answer: it was killed, or ran out of memory."""


class Call:
    """A call of `target`, "module:function", in a process with these limits, from the time that this is made.

    With `progress` the function is given an argument of that name, and `result` calls `progress` as the function does.
    """

    def __init__(self, target: str, *arguments: Any, limits: Limits, progress: StepProgress | None = None) -> None:
        self._limits, self._progress = limits, progress
        told, telling = os.pipe() if progress else (None, None)
        self._told = os.fdopen(told) if told is not None else None
        self._request = pickle.dumps((sys.path, limits, arguments, telling))
        try:
            self._process = lifeline.start(
                lifeline.python("pipeline.process.calls", target),
                confinement.environment() if limits.memory <= SMALL else None,
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=() if telling is None else (telling,),
            )
        finally:
            if telling is not None:
                os.close(telling)

    def result(self) -> Any:
        """What the function returns. To be called once; raises what `call` raises."""
        deadline = self._limits.deadline
        with self._process as process, ThreadPoolExecutor(1) as pool:
            try:
                ending = pool.submit(self._communicate)
                self._tell()
                answer, words = ending.result()
            except subprocess.TimeoutExpired:
                raise TimeoutError(f"stopped after {deadline:g} s") from None
            finally:
                process.kill()
        if process.returncode or not answer:
            last = (words.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
            raise ProcessError(f"a process ended with status {process.returncode}: {last}")
        result = pickle.loads(answer)  # noqa: S301 - of our own process
        if isinstance(result, WinnowError | MemoryError):
            raise result
        return result

    def _communicate(self) -> tuple[bytes, bytes]:
        """The process's answer and what it wrote to standard error. Afterwards it has ended, so that `_tell` ends."""
        try:
            return self._process.communicate(self._request, self._limits.deadline)
        finally:
            self._process.kill()

    def _tell(self) -> None:
        """Call `progress` until the process is done."""
        if self._told is None or self._progress is None:
            return
        with self._told as lines:
            for line in lines:
                done, total = map(int, line.split())
                self._progress(done, total)

    def stop(self) -> None:
        """End the process. Whoever waits for the result gets a ProcessError."""
        self._process.kill()


def call(target: str, *arguments: Any, limits: Limits, progress: StepProgress | None = None) -> Any:
    """The result of `target`, "module:function", called in a process with these limits, with `progress` as of `Call`.

    Raises what the function raises if that is a WinnowError or a MemoryError, TimeoutError at the deadline, and
    ProcessError if the process ends without an answer.
    """
    return Call(target, *arguments, limits=limits, progress=progress).result()


def _serve(target: str) -> None:
    lifeline.hold()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not mix with the answer
    sys.path[:], limits, arguments, telling = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own process
    confinement.limit(limits.memory, limits.written, limits.processor)
    module, _, name = target.partition(":")
    try:
        with _teller(telling) as named:
            result = getattr(importlib.import_module(module), name)(*arguments, **named)
    except (WinnowError, MemoryError) as error:
        result = error
    with answer:
        pickle.dump(result, answer)


@contextlib.contextmanager
def _teller(telling: int | None) -> Iterator[dict[str, StepProgress]]:
    """The argument `progress`, which writes to this descriptor; none without a descriptor."""
    if telling is None:
        yield {}
        return
    with os.fdopen(telling, "w", buffering=1) as lines:
        yield {"progress": lambda done, total: print(done, total, file=lines)}


if __name__ == "__main__":
    _serve(sys.argv[1])
