"""Every block of commands in README, typed by a new user: in order, in one folder, as it stands there."""

import contextlib
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import network_watch
import pytest
import served_sources

pytestmark = pytest.mark.slow

HOME = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", (HOME / "README.md").read_text(), re.DOTALL | re.MULTILINE)
TOML = [text for language, text in BLOCKS if language == "toml"]
STAY = {"winnow serve": "reconcile/hourly", "winnow explore demo": "http://127.0.0.1:"}
"""Commands that stay until Ctrl-C, and what they say when they stand."""

SECONDS = 500


@pytest.fixture
def place(tmp_path):
    """A folder that `make` takes for an installed checkout."""
    if not (Path(sys.prefix) / ".installed").is_file():
        pytest.skip("this Python was not set up by make")
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(HOME / name, tmp_path)
        os.utime(tmp_path / name, (0, 0))  # older than what is installed, so that nothing is installed again
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "data_manifests").mkdir()
    return tmp_path


@pytest.fixture
def typed(place):
    """Runs a block in a shell, and gives what it printed."""
    kept = {name: value for name, value in network_watch.environment(place).items() if not name.startswith("PREFECT_")}
    path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
    environment = kept | {"PREFECT_HOME": str(place / "prefect"), "COLUMNS": "100", "PATH": path}

    def type_(block):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
        return done.stdout

    @contextlib.contextmanager
    def stay(block):
        """The block's command in another terminal, stopped by Ctrl-C at the end."""
        told = place / "told"
        with told.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {block}"],
                cwd=place,
                env=environment | {"PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        try:
            end = time.monotonic() + SECONDS
            while STAY[block.strip()] not in told.read_text():
                assert process.poll() is None, told.read_text()
                assert time.monotonic() < end, told.read_text()
                time.sleep(0.5)
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, told.read_text()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    type_.stay = stay
    return type_


def own_list(place, httpserver_folder):
    """data_manifests/mine.toml as README has it, but for the model, which no hub is at hand for, and the hosts."""
    pictures, address = httpserver_folder
    for number in range(served_sources.COUNT):
        (pictures / f"{number}.jpg").write_bytes(served_sources.picture(number))
    lines = "".join(f"A photo of thing number {n}\t{address}/{n}.jpg\n" for n in range(served_sources.COUNT))
    (place / "data_manifests" / "pairs.tsv.gz").write_bytes(gzip.compress(lines.encode()))
    whole = TOML[0].replace('"ViT-B-32-quickgelu"\nweights = "openai"', f'"local-dir:{HOME}/pipeline/demo/clip"')
    assert "local-dir" in whole
    host = address.removeprefix("http://")
    (place / "data_manifests" / "mine.toml").write_text(f'{whole}\n[download]\nallow_hosts = ["{host}"]\n')


def test_every_block_of_commands(place, typed, httpserver_folder):
    own_list(place, httpserver_folder)
    answers = []
    with contextlib.ExitStack() as terminals:
        for block in [text for language, text in BLOCKS if not language]:
            if block.strip() in STAY:
                terminals.close()
                terminals.enter_context(typed.stay(block))
            else:
                answers.append(typed(block))
    whole = "".join(answers)
    assert "The report: data/demo/report.html" in whole
    assert re.search(r"^ ?aligned .*% *$", whole, re.MULTILINE)
    assert "http_404" in whole
    assert (place / "data/demo/report.html").stat().st_size > 100_000
    assert f'"pool": {served_sources.COUNT}' in typed("winnow funnel mine --json")

    again = typed("winnow demo")
    assert "nothing changed" in again
    shown = re.findall(r"^  (winnow .+)$", again.partition("\nNext:\n")[2], re.MULTILINE)
    assert len(shown) >= 4
    for line in shown:
        if not line.startswith(tuple(STAY)):
            assert typed(line), line
    assert network_watch.away(network_watch.calls(place)) == []
