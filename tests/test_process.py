"""Processes that winnow starts: they end with the one that started them, however it dies."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.process import scratch
from pipeline.process.calls import Limits, call

PARENT = """
import sys, time
from pipeline.process import lifeline
child = lifeline.start([sys.executable, "-c", sys.argv[1]], stdout=sys.stdout)
time.sleep(600)
"""

CHILDREN = {
    "computes": "from pipeline.process import lifeline; lifeline.hold(); print(__import__('os').getpid(), flush=True)\n"
    "while True: pass",
    "holds the interpreter": "from pipeline.process import lifeline; lifeline.hold()\n"
    "print(__import__('os').getpid(), flush=True); sum(range(10 ** 12))",
    "binds SQL": "import duckdb; from pipeline.process import lifeline; lifeline.hold()\n"
    "print(__import__('os').getpid(), flush=True)\n"
    'duckdb.sql("SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b").fetchall()',
}


@pytest.mark.parametrize("program", CHILDREN.values(), ids=CHILDREN)
def test_a_child_ends_when_its_parent_is_killed(program):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, program], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    assert lives(child)
    parent.kill()
    parent.wait()
    assert ended(child)


POOL = """
import os, sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pipeline.process import lifeline
if __name__ == "__main__":
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=lifeline.hold) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(sum, range(10 ** 12)).result()
"""


@pytest.mark.slow
def test_a_worker_of_a_pool_ends_when_its_parent_is_killed(tmp_path):
    program = tmp_path / "pool.py"
    program.write_text(POOL)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, env=environment)
    child = int(parent.stdout.readline())
    time.sleep(0.5)  # it has begun to compute
    assert lives(child)
    parent.kill()
    parent.wait()
    assert ended(child)


def lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def ended(process):
    """Within a few seconds; what did not is ended here."""
    for _ in range(200):
        if not lives(process):
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


def test_a_folder_of_a_killed_process_is_removed_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    program = (
        "import time; from pipeline.process.scratch import temporary_folder\n"
        "with temporary_folder() as folder:\n"
        "    (folder / 'spill').write_text('x'); print(folder, flush=True); time.sleep(600)"
    )
    killed, running = (subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(2))
    left, used = (Path(each.stdout.readline().decode().strip()) for each in (killed, running))
    other = tmp_path / "winnow-notes"
    other.mkdir()
    (other / "mine.txt").write_text("not winnow's")
    killed.kill()
    killed.wait()
    with scratch.temporary_folder() as own:
        assert not left.exists()
        assert (used / "spill").exists()
        assert (other / "mine.txt").exists()
        scratch.sweep(tmp_path)
        assert own.exists()
    assert not own.exists()
    running.kill()
    running.wait()


def test_a_folder_whose_lock_a_sweep_takes_first_is_given_up_for_another(tmp_path, monkeypatch):
    """The sweep of another process may come between the lock file and its lock, again and again."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    done = threading.Event()

    def sweep():
        while not done.is_set():
            scratch.sweep(tmp_path)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(300):
            with scratch.temporary_folder() as folder:
                (folder / "spill").write_text(str(number))
                assert (folder / ".lock").exists()
    finally:
        done.set()
        sweeper.join()
    assert not list(tmp_path.iterdir())


def test_a_process_with_little_memory_reserves_none_for_other_cores():
    """On 64 cores numpy alone reserves 2.7 GB."""
    cores = [call("os:getenv", "OPENBLAS_NUM_THREADS", "all", limits=Limits(60, memory << 30)) for memory in (2, 16)]
    assert cores == ["1", os.environ.get("OPENBLAS_NUM_THREADS", "all")]
