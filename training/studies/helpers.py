"""More processes for the trials of an experiment, one for each core that would be idle.

Every process goes through the same list and trains what no other process has claimed. A trial has one thread and a
random state of its own, so its result is the same in any process. Whatever a helper leaves, because it was killed or
had an error, the process that started it trains.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from pipeline.process import lifeline
from pipeline.process.machine import cores
from pipeline.progress import StepProgress
from pipeline.store.storage import Storage

T = TypeVar("T")

DELAY = 4.0
"""Helpers start after so many seconds, unless the rest takes less. It is about what a helper needs to import torch."""

OWN_MEMORY = 1 << 29
"""Bytes that a helper needs before it has read any features."""


def assisted(
    planned: Sequence[T], job: Callable[[], None], memory: int, storage: Storage, progress: StepProgress
) -> Generator[T, None, None]:
    """Each of `planned`. Meanwhile helpers run `job`, which is pickled. They end when this iterator is closed.

    A helper takes so many bytes of `memory` for its data. All helpers together get half of the machine's.
    """
    with ExitStack() as helpers:
        begun, started = time.perf_counter(), False
        for done, each in enumerate(planned):
            progress(done, len(planned))
            seconds = time.perf_counter() - begun
            if not started and done and seconds > DELAY and seconds / done * (len(planned) - done) > DELAY:
                started = True
                _start(min(most(memory), len(planned) - done - 1), job, storage, helpers)
            yield each
        progress(len(planned), len(planned))


def most(memory: int) -> int:
    """How many helpers this machine has cores and memory for."""
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(cores() - 1, room // (OWN_MEMORY + memory))


def _start(count: int, job: Callable[[], None], storage: Storage, helpers: ExitStack) -> None:
    if count < 1:
        return
    path = helpers.enter_context(storage.scratch()) / "job"
    with path.open("wb") as file:
        pickle.dump(job, file, protocol=5)
    for _ in range(count):
        helper = lifeline.start(
            lifeline.python("training.studies.helpers", str(path)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        helpers.callback(helper.wait)
        helpers.callback(helper.kill)


def _main() -> None:
    lifeline.hold()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process that started this one, which ends it
    with Path(sys.argv[1]).open("rb") as file:
        job = pickle.load(file)  # noqa: S301 - written by the process that started this one
    job()


if __name__ == "__main__":
    _main()
