"""This machine: its memory, its processors, and when a process of it was started."""

import contextlib
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def identity() -> dict[str, Any]:
    """This process, for a record that other processes and machines read (`has_ended`): host, pid and started."""
    return {"host": platform.node(), "pid": os.getpid(), "started": started(os.getpid())}


def has_ended(process: Mapping[str, Any]) -> bool:
    """Whether the process of an `identity` was one of this machine, and is no more. A later one with its id is none."""
    return bool(process["host"] == platform.node() and started(process["pid"]) != process["started"])


def started(pid: int) -> str | None:
    """The start time of the process, in the format of this system; None if there is no such process."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, *rest = stat.rpartition(")")[2].split()
        return None if state in "ZX" else rest[18]
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip() or None
