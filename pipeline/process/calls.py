"""One function call in a process of its own, which is killed at its deadline and ends with its caller.

`python -m pipeline.process.calls MODULE:FUNCTION` is that process. The arguments come pickled on standard input, from
winnow itself, and the result goes back the same way.
"""

import importlib
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from pipeline.errors import WinnowError
from pipeline.process import confinement, lifeline


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
    """A call of `target`, "module:function", in a process with these limits, from the time that this is made."""

    def __init__(self, target: str, *arguments: Any, limits: Limits) -> None:
        self._limits, self._request = limits, pickle.dumps((sys.path, limits, arguments))
        command = lifeline.python("pipeline.process.calls", target)
        self._process = lifeline.start(
            command, None, start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def result(self) -> Any:
        """What the function returns. To be called once; raises what `call` raises."""
        deadline = self._limits.deadline
        with self._process as process:
            try:
                answer, words = process.communicate(self._request, deadline)
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

    def stop(self) -> None:
        """End the process. Whoever waits for the result gets a ProcessError."""
        self._process.kill()


def call(target: str, *arguments: Any, limits: Limits) -> Any:
    """The result of `target`, "module:function", called in a process with these limits.

    Raises what the function raises if that is a WinnowError or a MemoryError, TimeoutError at the deadline, and
    ProcessError if the process ends without an answer.
    """
    return Call(target, *arguments, limits=limits).result()


def _serve(target: str) -> None:
    lifeline.hold()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not mix with the answer
    sys.path[:], limits, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own process
    confinement.limit(limits.memory, limits.written, limits.processor)
    module, _, name = target.partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(*arguments)
    except (WinnowError, MemoryError) as error:
        result = error
    with answer:
        pickle.dump(result, answer)


if __name__ == "__main__":
    _serve(sys.argv[1])
