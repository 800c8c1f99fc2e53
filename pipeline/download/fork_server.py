"""Starts the processes that make shards: one for each, forked from a server process, with a time limit."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from pipeline.download.job import SECONDS, AnyJob
from pipeline.errors import WinnowError
from pipeline.images.limits import Limits
from pipeline.process import lifeline, unnamed
from pipeline.process.scratch import temporary_folder
from pipeline.web.throttle import Caller

_START = 120
"""The maximum time in seconds to import img2dataset."""


@dataclass(frozen=True)
class Program:
    """A module that serves jobs, and what it is called in messages."""

    module: str
    name: str


IMG2DATASET = Program("pipeline.download.worker", "img2dataset")


class ForkServer:
    """A process that imports a program (img2dataset: 3 s) and forks a process for each job. It ends with this object.

    Its jobs share `decoders` processes that decode under the limits, and what is known of hosts. The fork server of
    multiprocessing would import the caller's main program again in every fork.
    """

    def __init__(
        self, limits: Limits, decoders: int, throttle: Caller | None = None, program: Program = IMG2DATASET
    ) -> None:
        """`throttle` knows the hosts of other machines, too. Without one a program that needs it starts its own."""
        self._limits, self._decoders, self._throttle, self._program = limits, decoders, throttle, program
        self._end: weakref.finalize[..., ForkServer] | None = None
        self._jobs: unnamed.Caller | None = None
        self._lock = threading.Lock()

    def run(self, job: AnyJob, seconds: float) -> OSError | str | None:
        """Run a job with a time limit. Any number of threads may run one at the same time.

        Returns None, an error message, or an OSError of the disk.
        """
        fault: OSError | str | None
        try:
            with self._line(seconds) as line:
                line.send(job)
                fault = line.recv()
                return fault
        except (EOFError, OSError, pickle.UnpicklingError):
            self.close()
            return f"the process that {self._program.name} runs in ended"

    def close(self) -> None:
        """End all its processes. The next job starts them again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._end is not None:
            self._end()
        self._jobs = self._end = None

    def _line(self, seconds: float) -> Connection:
        """A connection to a process that waits for its job."""
        with self._lock:
            if self._jobs is None:
                self._jobs = self._open()
            return Connection(self._jobs.connect(SECONDS.pack(seconds)).detach())

    def _open(self) -> unnamed.Caller:
        """Start the process. Raises WinnowError if that fails, because no shard is the cause."""
        line, theirs = Pipe()
        jobs, accepting = unnamed.pair()
        held = contextlib.ExitStack()
        folder = held.enter_context(
            temporary_folder()
        )  # libraries that img2dataset imports leave temporary folders behind
        ends = [theirs.fileno(), accepting.fileno()]
        process = lifeline.start(
            lifeline.python(self._program.module, *map(str, ends)),
            stdin=subprocess.DEVNULL,
            stdout=2,  # img2dataset prints, and standard output is for results
            pass_fds=ends,
            env=os.environ | {"TMPDIR": str(folder)},
            start_new_session=True,  # its own process group, which is killed together and does not see Ctrl-C
        )
        theirs.close()
        accepting.close()
        self._end = weakref.finalize(self, _end, process, line, jobs, held)
        try:
            line.send((sys.path, self._limits, self._decoders, self._throttle))
            ready = line.poll(_START) and line.recv()
        except (EOFError, ConnectionError):
            ready = False
        if not ready:
            self._close()
            raise WinnowError(f"{self._program.name} cannot be started: run `winnow doctor`")
        return jobs


def _end(
    process: "subprocess.Popen[bytes]", line: Connection, jobs: unnamed.Caller, held: contextlib.ExitStack
) -> None:
    line.close()
    jobs.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    held.close()
