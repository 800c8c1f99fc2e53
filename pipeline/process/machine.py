"""The machine that a benchmark ran on: its memory and processors."""

import contextlib
import os
import platform
import resource
import sys
from pathlib import Path

_MAXRSS = 1 << (20 if sys.platform == "darwin" else 10)
"""Units of the system's peak memory in a MiB."""


def peak_memory_mb() -> int:
    """The peak memory of this process, in MiB."""
    status = Path("/proc/self/status")  # getrusage also counts the memory of the parent before it started this one
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MAXRSS)


def reset_peak_memory() -> None:
    """Let the peak memory begin anew, where the system can do that: Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def processor() -> str:
    """The name of the processor, as the system reports it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.is_file() else []
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor()


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
