"""Worker processes of multiprocessing, which end with this process and do not run its main program again.

A worker that is spawned imports the program of its parent. A script that calls winnow without
`if __name__ == "__main__":` would begin anew in each of them.
"""

import os
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any

from pipeline.process import lifeline

_hiding = threading.Lock()


class _Process(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - its name there
        with _hiding:
            main = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")  # neither a file nor a module that could be imported
            try:
                return SpawnProcess._Popen(process_obj)
            finally:
                sys.modules["__main__"] = main


class Context(SpawnContext):
    """Starts processes that import only what they are given. CUDA does not work after a fork."""

    Process = _Process


def pool(count: int | None = None) -> ProcessPoolExecutor:
    """So many workers, by default one for each core."""
    return ProcessPoolExecutor(count or os.cpu_count(), Context(), lifeline.hold)
