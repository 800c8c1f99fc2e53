"""A person's two terminals: `winnow serve` in one, the `prefect` command in the other; Ctrl-C, and kill -9.

Both run in a folder with a data_manifests/ and a pyproject.toml of their own, whose [tool.prefect] is ours with another
port, and nothing exported that a person would not have.
"""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import served_sources
import training_sources
from picture_handler import PictureHandler
from team_server import wait_for

from flows import server
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage

ROOT = Path(__file__).parent.parent
COUNT = 60

pytestmark = pytest.mark.slow


def environment(folder):
    """Ours, less what would tell Prefect where to go."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"PREFECT_HOME": str(folder / "prefect"), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


def interruptible():
    """A shell has its background jobs ignore Ctrl-C, and their children inherit that; a terminal's do not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def running(folder, *words):
    """A winnow command in a session of its own, of which nothing is left afterwards; its output goes to a file."""
    told = folder / f"{words[0]}.log"
    with told.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows", *map(str, words)],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=interruptible,
        )
    try:
        yield process, told
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder of both terminals, and the port of its Prefect server."""
    folder = tmp_path_factory.mktemp("place")
    port = server.free_port()
    text = (ROOT / "pyproject.toml").read_text()
    assert ":4200/" in text
    (folder / "pyproject.toml").write_text(text.replace(":4200/", f":{port}/"))
    return folder, port


@pytest.fixture(scope="module")
def source(place, tmp_path_factory):
    """A source with a task in data_manifests/, and a broken one beside it; pictures come from a loopback server."""
    lists = place[0] / "data_manifests"
    lists.mkdir()
    lies = set(range(0, COUNT, 4))

    class Pictures(PictureHandler):
        def do_GET(self):
            number = int(self.path.strip("/").removesuffix(".jpg"))
            self.answer(training_sources.picture(training_sources.truth(number), number))

    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as pictures:
        threading.Thread(target=pictures.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{pictures.server_address[1]}"
        training_sources.task(lists, COUNT, lies, steps=20)
        lines = [f"{training_sources.caption(number, lies)}\thttp://{host}/{number}.jpg\n" for number in range(COUNT)]
        (lists / "list.tsv").write_text("".join(lines))
        toml = lists / "taught.toml"
        allowed = f'schedule = "0 6 * * *"\n[download]\nallow_hosts = ["{host}"]'
        head, _, rest = toml.read_text().partition("[download]")
        toml.write_text(allowed.partition("\n")[0] + "\n" + head + allowed.partition("\n")[2] + rest)
        (lists / "broken.toml").write_text("[pairs]\nlocatoin = 3\n")
        yield toml
        pictures.shutdown()


def prefect(folder, *words):
    """The real command, in the second terminal."""
    command = [Path(sys.executable).parent / "prefect", *words]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def secret(folder):
    """The header with the secret that the folder's prefect.toml holds for the server that serves there."""
    text = tomllib.loads((folder / "prefect.toml").read_text())["api"]["auth_string"]
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def gone(port):
    return server.state(server.url(port)) is server.State.SILENT


def runs(place, flow):
    """States of the runs of a flow that are not merely planned."""
    wanted = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC"}
    folder, port = place
    api = f"{server.url(port)}/flow_runs/filter"
    answer = httpx.post(api, json=wanted, headers=secret(folder), trust_env=False).raise_for_status()
    return [each["state_type"] for each in answer.json() if not each["auto_scheduled"]]


def test_serve_deploys_curates_retrains_once_and_ends(place, source):
    folder, port = place
    root = folder / "results"
    storage = Storage(root / "taught")
    with running(folder, "serve", "--port", port, "--root", "results") as (process, told):
        wait_for(lambda: "reconcile/hourly" in told.read_text(), 240, process)
        assert "left out: broken.toml: unknown key pairs.locatoin" in told.read_text()
        wanted = ("curate/cc3m", "curate/demo", "curate/taught", "retrain/on-manifest", "reconcile/hourly")

        def listed():  # Prefect registers them one after another
            shown = prefect(folder, "deployment", "ls")
            return shown if all(name in shown for name in wanted) else None

        assert "broken" not in wait_for(listed, 120, process)

        prefect(folder, "deployment", "run", "curate/taught")
        wait_for(lambda: commits(storage), 120, process)
        manifest = Manifest.open(storage)
        assert manifest.counts.kept == COUNT - COUNT // 4
        wait_for(lambda: runs(place, "retrain") == ["COMPLETED"], 180, process)
        gains = sorted((root / "taught" / "gains").iterdir())
        assert [json.loads(path.read_bytes())["manifest"] for path in gains] == [manifest.id]
        assert "macro-F1" in (root / "taught" / "report.html").read_text()

        prefect(folder, "deployment", "run", "curate/taught")
        wait_for(lambda: runs(place, "curate") == ["COMPLETED"] * 2, 120, process)
        time.sleep(15)  # a trigger takes a few
        assert runs(place, "retrain") == ["COMPLETED"]
        assert len(commits(storage)) == 1

        for path in gains:  # as if the event had been lost with its process
            path.unlink()
        prefect(folder, "deployment", "run", "reconcile/hourly")
        wait_for(lambda: runs(place, "retrain") == ["COMPLETED"] * 2, 120, process)
        assert sorted((root / "taught" / "gains").iterdir()) == gains
        assert "Traceback" not in told.read_text()

        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        wait_for(lambda: gone(port), 20)


def test_sigterm_ends_a_run_and_the_next_start_resumes_it(place, source, tmp_path):
    folder, port = place
    Slow.asked.clear()
    Slow.go.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as pictures:
        threading.Thread(target=pictures.serve_forever, daemon=True).start()
        (tmp_path / "pictures").mkdir()
        served = tmp_path / "pictures", f"http://127.0.0.1:{pictures.server_address[1]}"
        toml = Path(served_sources.described(folder / "data_manifests", served, count=5, more=""))
        name = tomllib.loads(toml.read_text()).get("name", toml.stem)

        def states():
            answer = httpx.post(
                f"{server.url(port)}/flow_runs/filter",
                json={"deployments": {"name": {"any_": [name]}}},
                headers=secret(folder),
                trust_env=False,
            )
            return [each["state_type"] for each in answer.raise_for_status().json()]

        with running(folder, "serve", "--port", port, "--root", "stopped") as (process, told):
            wait_for(lambda: "reconcile/hourly" in told.read_text(), 240, process)
            wait_for(lambda: f"curate/{name}" in prefect(folder, "deployment", "ls"), 120, process)
            prefect(folder, "deployment", "run", f"curate/{name}")
            wait_for(Slow.asked.is_set, 120, process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert "Traceback" not in told.read_text()
            assert "RuntimeWarning" not in told.read_text()
        Slow.go.set()
        with running(folder, "serve", "--port", port, "--root", "stopped") as (process, told):
            wait_for(lambda: "reconcile/hourly" in told.read_text(), 240, process)
            wait_for(lambda: states() == ["COMPLETED"], 180, process)
        pictures.shutdown()
        toml.unlink()


def test_schedules_are_planned(place, source):
    folder, port = place
    with running(folder, "serve", "--port", port, "--root", "results") as (process, told):
        wait_for(lambda: "reconcile/hourly" in told.read_text(), 240, process)
        wanted = {
            "deployments": {"name": {"any_": ["taught"]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }

        def planned():
            api = f"{server.url(port)}/flow_runs/filter"
            answer = httpx.post(api, json=wanted, headers=secret(folder), trust_env=False)
            return [each["expected_start_time"] for each in answer.raise_for_status().json() if each["auto_scheduled"]]

        assert all("T06:00:00" in time for time in wait_for(planned, 90, process))


def test_a_server_dies_with_its_owner(tmp_path):
    port = server.free_port()
    program = f"from flows import server\nwith server.start({port}, 'temporary'): print('up', flush=True); input()"
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert owner.stdout.readline() == "up\n"
        assert server.state(server.url(port)) is server.State.LOCKED
    finally:
        owner.kill()
        owner.wait()
    wait_for(lambda: gone(port), 20)


class Slow(PictureHandler):
    """Answers when it is told to."""

    asked, go = threading.Event(), threading.Event()

    def do_GET(self):
        Slow.asked.set()
        Slow.go.wait(30)
        with contextlib.suppress(OSError):
            self.answer(served_sources.picture(1))


def test_ctrl_c_is_one_line_and_the_next_run_goes_on(tmp_path):
    Slow.asked.clear()
    Slow.go.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as pictures:
        threading.Thread(target=pictures.serve_forever, daemon=True).start()
        (tmp_path / "pictures").mkdir()
        served = tmp_path / "pictures", f"http://127.0.0.1:{pictures.server_address[1]}"
        toml = served_sources.described(tmp_path, served, count=5, more="")
        with running(tmp_path, "curate", toml) as (process, told):
            wait_for(Slow.asked.is_set, 120, process)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            last = told.read_text().splitlines()[-1]
            assert last == "winnow: stopped; run the same command to resume"
            assert "Traceback" not in told.read_text()
        Slow.go.set()
        with running(tmp_path, "curate", toml, "--json") as (process, told):
            assert process.wait(120) == 0
            assert json.loads(told.read_text().splitlines()[-1])["counts"]["kept"] == 5 + served_sources.GONE
        pictures.shutdown()
