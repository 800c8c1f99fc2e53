"""A team's Prefect in a folder: a server, workers, `winnow deploy` and `prefect`, each a process of its own.

Every process carries the folder in its environment, so that the process table shows what is left of them.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import served_sources
from picture_handler import PictureHandler

from flows import server

MARK = "WINNOW_TEST_TEAM"
BIN = Path(sys.executable).parent


class Gate(PictureHandler):
    """Pictures 0 to 9 are served at once, so that a shard gets done; the others wait until `open` is set."""

    asked, open = threading.Event(), threading.Event()

    def do_GET(self):
        name = self.path.strip("/")
        if name.startswith("gone"):
            self.send_error(404)
            return
        number = int(name.removesuffix(".jpg"))
        if number >= 10:
            Gate.asked.set()
            Gate.open.wait(600)
        with contextlib.suppress(OSError):
            self.answer(served_sources.picture(number))


@contextlib.contextmanager
def gated_pictures():
    """The address of a server of `Gate`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as pictures:
        threading.Thread(target=pictures.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{pictures.server_address[1]}"
        Gate.open.set()
        pictures.shutdown()


def unused_port():
    """A free port below those that the kernel hands out: it is still free when a server starts, or starts again."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def close_gate():
    Gate.asked.clear()
    Gate.open.clear()


def interruptible():
    """As in a terminal or under a service manager: a shell has its background jobs ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


CHILDREN = ("pipeline.download.worker", "pipeline.images.decode_process")


class Team:
    """A folder whose commands talk to a Prefect server on `port`."""

    def __init__(self, folder, **settings):
        self.folder, self.port = folder, unused_port()
        self.api = server.url(self.port)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = kept | {
            MARK: str(folder),
            "PWD": str(folder),
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_DEPLOYMENTS_DEFAULT_WORK_POOL_NAME": "",
            "PREFECT_SERVER_CONCURRENCY_INITIAL_DEPLOYMENT_LEASE_DURATION": "60",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }

    def start(self, name, *command):
        """A process in a session of its own. Its output goes to NAME.log."""
        with (self.folder / f"{name}.log").open("a") as file:
            return subprocess.Popen(
                list(map(str, command)),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=interruptible,
            )

    def serve(self):
        """Start the server, and wait until it answers."""
        process = self.start("server", BIN / "prefect", "server", "start", "--port", self.port)
        wait_for(lambda: self.healthy(), 180, process)
        return process

    def healthy(self):
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{self.api}/health", timeout=5, trust_env=False).is_success
        return False

    def worker(self, name, *more):
        """Start a worker of the pool."""
        return self.start(name, BIN / "prefect", "worker", "start", "--pool", "winnow", "--name", name, *more)

    def run(self, *words):
        """A command that ends, and its output."""
        done = subprocess.run(
            list(map(str, words)), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def winnow(self, *words):
        return self.run(sys.executable, "-m", "flows", *words)

    def prefect(self, *words):
        return self.run(BIN / "prefect", *words)

    def post(self, path, **body):
        return httpx.post(f"{self.api}/{path}", json=body, timeout=120, trust_env=False).raise_for_status().json()

    def flow_runs(self, name):
        """The runs of a deployment that are not merely planned, the oldest first."""
        found = self.post("flow_runs/filter", deployments={"name": {"any_": [name]}}, sort="EXPECTED_START_TIME_ASC")
        return [each for each in found if not each["auto_scheduled"]]

    def states(self, name):
        return [each["state_name"] for each in self.flow_runs(name)]

    def processes(self, *modules):
        """What runs of these modules, of all processes with this folder in their environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) != str(self.folder) or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                words = process.cmdline()
                if any(module in words for module in modules):
                    found.append(process)
        return found

    def at_work(self):
        """The processes of runs: Prefect's engine, and winnow's children."""
        return self.processes("prefect.engine", "prefect.runner._workspace_supervisor", *CHILDREN)

    def end(self):
        """Kill all that is left."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get(MARK) == str(self.folder):
                    process.kill()


def wait_for(what, seconds, of=None):
    """What is waited for, once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        if of is not None and of.poll() is not None:
            break
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds} s in vain")
