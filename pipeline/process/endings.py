"""The ends of child processes: a way to wait for them beside other things, and how one ended, in words."""

import signal
import socket


class Endings:
    """Readable, for `select`, when a child of this process has ended. One for a process, made in its main thread."""

    def __init__(self) -> None:
        self._woken, self._alarm = socket.socketpair()
        for end in (self._woken, self._alarm):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._alarm.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        """For `select`."""
        return self._woken.fileno()

    def clear(self) -> None:
        """Readable no more until the next child ends. Call it before the children are asked for their status."""
        self._woken.recv(1 << 10)

    def leave(self) -> None:
        """In a fork: its own children are none of this."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._woken.close()
        self._alarm.close()


def name(status: int) -> str:
    """SIGKILL, or status 1: of an exit code as `os.waitstatus_to_exitcode` gives it."""
    return signal.Signals(-status).name if status < 0 else f"status {status}"
