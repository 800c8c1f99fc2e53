"""Starts the download processes: one for each shard, forked from a server process, with a time limit."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from pipeline.download.job import Job
from pipeline.errors import WinnowError
from pipeline.process import lifeline
from pipeline.process.scratch import temporary_folder

_START = 120
"""The maximum time in seconds to import img2dataset."""


class ForkServer:
    """A process that imports img2dataset (3 s) and forks a process for each job. It ends with this object.

    The fork server of multiprocessing would import the caller's main program again in every fork.
    """

    def __init__(self) -> None:
        self._end: weakref.finalize[..., ForkServer] | None = None
        self._line: Connection | None = None
        self._lock = threading.Lock()

    def run(self, job: Job, seconds: float) -> OSError | str | None:
        """Run a job with a time limit.

        Returns None, an error message, or an OSError of the disk. Jobs run one at a time.
        """
        with self._lock:
            return self._run(job, seconds)

    def _run(self, job: Job, seconds: float) -> OSError | str | None:
        fault: OSError | str | None
        line = self._line or self._open()
        try:
            line.send(job)
            if line.poll(seconds):
                fault = line.recv()
                return fault
            fault = f"it took more than {seconds:g} s and was stopped"
        except (EOFError, ConnectionError):
            fault = "the process that img2dataset runs in ended"
        except BaseException:
            self.close()
            raise
        self.close()
        return fault

    def close(self) -> None:
        """End all its processes."""
        if self._end is not None:
            self._end()
        self._line = self._end = None

    def _open(self) -> Connection:
        """Start the process. Raises WinnowError if that fails, because no shard is the cause."""
        self._line, theirs = Pipe()
        held = contextlib.ExitStack()
        folder = held.enter_context(
            temporary_folder()
        )  # libraries that img2dataset imports leave temporary folders behind
        with theirs:
            process = lifeline.start(
                lifeline.python("pipeline.download.worker", str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=2,  # img2dataset prints, and standard output is for results
                pass_fds=[theirs.fileno()],
                env=os.environ | {"TMPDIR": str(folder)},
                start_new_session=True,  # its own process group, which is killed together and does not see Ctrl-C
            )
        self._end = weakref.finalize(self, _end, process, self._line, held)
        self._line.send(sys.path)
        try:
            ready = self._line.poll(_START) and self._line.recv()
        except EOFError:
            ready = False
        if not ready:
            self.close()
            raise WinnowError("img2dataset cannot be started: run `winnow doctor`")
        return self._line


def _end(process: "subprocess.Popen[bytes]", line: Connection, held: contextlib.ExitStack) -> None:
    line.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    held.close()
