"""What a benchmark says of the machine that it ran on."""

import os
import platform
import resource
import sys
from pathlib import Path

_MAXRSS = 1 << (20 if sys.platform == "darwin" else 10)
"""Units of the system's peak memory in a MiB."""


def peak_memory_mb() -> int:
    """MiB that this process held at most since it started."""
    told = Path("/proc/self/status")  # where getrusage also counts what the process that started this one held
    lines = told.read_text().splitlines() if told.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MAXRSS)


def processor() -> str:
    """As the system calls it."""
    told = Path("/proc/cpuinfo")
    names = [line for line in told.read_text().splitlines() if line.startswith("model name")] if told.is_file() else []
    return names[0].partition(": ")[2] if names else platform.processor()


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
