"""What a user's scorer does to the process does not reach the answer of a command: prints, exits, threads, folders."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import downloaded_sources
import pytest
import test_user_scorer
from PIL import Image

from pipeline.errors import ShardError
from pipeline.process.user_code import ExitError, contained
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading

ROOT = Path(__file__).parents[1]

RESTLESS = """
import logging, os, signal, subprocess, sys, threading, time, warnings
columns = {"one": "float32"}
print("on the way in")
os.write(1, b"straight to the descriptor")
subprocess.run(["echo", "a child"])
logging.basicConfig(stream=sys.stdout, level=logging.DEBUG, force=True)
os.chdir("/")
heard = threading.Event()
def talk():
    while True:
        print("still here", end=" ", flush=True)
        heard.set()
        time.sleep(0.001)
threading.Thread(target=talk, daemon=False).start()
heard.wait()
def score(batch):
    return {"one": [1.0] * len(batch)}
"""


def test_stdout_has_the_answer_alone_and_the_command_ends(tmp_path):
    test_user_scorer.written(tmp_path, "columns = {'one': 'float32'}\ndef score(batch):\n    return {}\n")
    (tmp_path / "my_scorer.py").write_text(RESTLESS)
    command = [sys.executable, "-P", "-m", "flows", "funnel", "mine.toml", "--root", "results", "--json"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1  # nothing is published there
    assert done.stdout == ""
    assert "nothing is published in" in done.stderr
    assert "still here" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "exits",
    ["sys.exit(3)", "os._exit(3)", "raise SystemExit(3)", "from os import _exit; _exit(3)", "exit(3)"],
)
def test_an_exit_in_score_is_one_line_that_names_the_scorer(tmp_path, exits):
    code = f"import os, sys\ncolumns = {{'one': 'float32'}}\ndef score(batch):\n    {exits}\n"
    scorers = test_user_scorer.written(tmp_path / "mine", code)
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, test_user_scorer.rows("red"), scorers)
    with pytest.raises(ShardError, match="scorer 'mine', rows 0 to 0: ExitError: .* exit status 3$"):
        Scoring(Plan.of(described), storage)(shard)


def test_an_exit_in_prepare_is_one_line_that_names_the_scorer(tmp_path):
    code = "import os\ncolumns = {'one': 'float32'}\ndef score(batch):\n    return {}\n"
    code += "def prepare(image):\n    os._exit(4)\n"
    scorers = test_user_scorer.written(tmp_path / "mine", code)
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, test_user_scorer.rows("red"), scorers)
    with pytest.raises(ShardError, match=r"scorer 'mine' fails on .*ExitError\(.*exit status 4"):
        Scoring(Plan.of(described), storage)(shard)


def test_the_process_is_as_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM), list(warnings.filters), sys.stdout, sys.stderr
    with contained():
        os.chdir("/")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        warnings.simplefilter("error")
        sys.stdout = sys.stderr = None
    assert Path.cwd() == tmp_path
    assert (signal.getsignal(signal.SIGTERM), list(warnings.filters), sys.stdout, sys.stderr) == before
    time.sleep(0.1)  # no alarm


def test_folders_of_threads_that_run_at_one_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    barrier = threading.Barrier(4)

    @contained()
    def wander(folder):
        barrier.wait()
        os.chdir(folder)
        barrier.wait()

    threads = [threading.Thread(target=wander, args=(folder,)) for folder in ("/", "/usr", "/tmp", "/")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert Path.cwd() == tmp_path


def test_errors_and_ctrl_c_pass():
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), contained():
            raise error
    with pytest.raises(ExitError, match="GeneratorExit"), contained():
        raise GeneratorExit


def test_a_child_of_a_fork_may_exit():
    with contained():
        child = os.fork()
        if not child:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


HELPED = (
    "import tools, filters\nfrom deep import one\ncolumns = {'one': 'float32'}\ndef score(batch):\n    import late\n"
)
HELPED += "    return {'one': [tools.ONE + filters.TWO + one.THREE + late.FOUR] * len(batch)}\n"


def helpers(folder, one=1.0):
    (folder / "deep").mkdir(parents=True)
    (folder / "tools.py").write_text(f"ONE = {one}\n")
    (folder / "filters.py").write_text("TWO = 2.0\n")
    (folder / "late.py").write_text("import tools\nFOUR = tools.ONE + 3.0\n")
    (folder / "deep/__init__.py").write_text("")
    (folder / "deep/one.py").write_text("THREE = 3.0\n")


def test_modules_beside_a_scorer_are_found_and_are_part_of_its_identity(tmp_path):
    import filters as own

    helpers(tmp_path / "a")
    helpers(tmp_path / "b", one=11.0)
    first, second = (test_user_scorer.written(tmp_path / name, HELPED) for name in "ab")
    assert first["mine"].identity() != second["mine"].identity()
    assert set(first["mine"].identity()["helpers"]) == {"tools", "filters", "late", "deep", "deep.one"}
    for name, scorers, expected in (("a", first, 10.0), ("b", second, 30.0), ("a again", first, 10.0)):
        found = downloaded_sources.scored(
            tmp_path / f"for {name}", [("http://host/x.jpg", "x", Image.new("RGB", (9, 9)))], scorers
        )
        assert found["mine"]["one"] == [expected]
    assert sys.modules["filters"] is own
    (tmp_path / "a/late.py").write_text("FOUR = 40.0\n")
    changed = loading.load(tmp_path / "a/mine.toml").scorers
    assert changed["mine"].identity() != first["mine"].identity()


def test_a_file_of_the_working_folder_takes_no_module_of_winnow(tmp_path, monkeypatch):
    from pipeline.process import lifeline

    (tmp_path / "filters.py").write_text("raise SystemExit('the wrong file')\n")
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong file')\n")
    monkeypatch.chdir(tmp_path)
    command = lifeline.python("pipeline.query.answering")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=json.dumps({}), env=env, capture_output=True, text=True, timeout=60)
    assert "the wrong file" not in done.stderr
    assert "Job" in done.stderr
