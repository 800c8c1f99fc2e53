"""Standard output belongs to the answer of a command. What libraries and the user's code print goes to stderr."""

import os
import sys
from typing import TextIO

_answers: TextIO | None = None


def reserve() -> None:
    """Keep the process's standard output for `answers`. From now on file descriptor 1 and `sys.stdout` are stderr.

    Does nothing where `sys.stdout` was replaced, as in a test.
    """
    global _answers
    stream = sys.__stdout__
    if _answers is not None or stream is None or sys.stdout is not stream:
        return
    try:
        own = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # one of them is closed
        return
    stream.flush()
    _answers = os.fdopen(own, "w", encoding=stream.encoding, errors=stream.errors, buffering=1)
    sys.stdout = sys.stderr


def answers() -> TextIO:
    """Where the answer goes."""
    return _answers or sys.stdout
