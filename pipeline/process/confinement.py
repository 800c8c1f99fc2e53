"""Limits that a process sets on itself before it runs what a person typed. They cannot be lifted again."""

import contextlib
import ctypes
import os
import resource
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""Linux's system calls of Landlock (https://docs.kernel.org/userspace-api/landlock.html), the same on every machine."""

_NO_NEW_PRIVILEGES = 38
_VERSION = 1

_WRITES = ((1 << 1) | sum(1 << bit for bit in range(4, 13)), 0, 1 << 13, 1 << 14)
"""Rights to write, create and remove; then those that later versions know: to move across folders, to truncate."""

_TCP = 0b11  # bind and connect, from version 4 on


def environment() -> dict[str, str]:
    """Of a process that is about to be limited: numpy would reserve 40 MB of addresses for each core."""
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1"}


def limit(memory: int, written: int, processor: int | None = None) -> None:
    """At most `memory` bytes of addresses, `written` bytes a file, and seconds of processor time; no core dumps.

    macOS has no limit of memory.
    """
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_FSIZE: written, resource.RLIMIT_CORE: 0}
    if processor is not None:
        limits[resource.RLIMIT_CPU] = processor
    for kind, most in limits.items():
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (most, most))


def forbid_writing(but: Sequence[Path]) -> bool:
    """Forbid this process to change any file outside these folders, root included, and to open TCP connections.

    Call it before any other thread starts. Returns False where the kernel cannot do it: outside Linux, and on Linux
    without Landlock (before 5.13, or switched off).
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    rights = sum(_WRITES[:version])
    attributes = struct.pack("=QQ", rights, _TCP) if version >= 4 else struct.pack("=Q", rights)
    rules = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if rules < 0:
        return False
    try:
        for folder in but:
            descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            try:
                below = struct.pack("=Qi", rights, descriptor)
                if libc.syscall(_ADD, rules, 1, below, 0):
                    return False
            finally:
                os.close(descriptor)
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        return bool(libc.syscall(_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)
