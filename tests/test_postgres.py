"""A Prefect server on PostgreSQL, for several hosts: two workers run two sources at once, and both publish."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import main_job
import pytest
import served_sources
import team_server
from team_server import Gate, Team, close_gate, wait_for

from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage

NAMES = ("one", "other")

pytestmark = pytest.mark.slow


def program(name):
    """Debian keeps those of the server outside PATH."""
    found = [*Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]
    return shutil.which(name) or (str(found[-1]) if found else None)


@pytest.fixture
def database():
    """The address of a new database on loopback, which needs a password. PostgreSQL refuses to run as root, and its own
    user may not enter pytest's folders."""
    if program("initdb") is None or program("pg_ctl") is None:
        pytest.skip("PostgreSQL is not installed")
    try:
        user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp())
    data, secret, port = folder / "data", folder / "secret", team_server.unused_port()
    secret.write_text("only-for-this-test\n")
    become = {}
    if user is not None:
        for path in (folder, secret):
            os.chown(path, user.pw_uid, user.pw_gid)
        become = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def call(*words):
        subprocess.run(words, check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=120, **become)

    call(program("initdb"), "-D", data, "-U", "winnow", "--auth=scram-sha-256", f"--pwfile={secret}")
    settings = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories= -p {port}"
    call(program("pg_ctl"), "-D", data, "-l", folder / "log", "-w", "-o", settings, "start")
    try:
        yield f"postgresql+asyncpg://winnow:only-for-this-test@127.0.0.1:{port}/postgres"
    finally:
        call(program("pg_ctl"), "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_two_workers_report_to_a_server_on_postgresql(database, tmp_path):
    with team_server.gated_pictures() as address:
        (tmp_path / "pictures").mkdir()
        served = tmp_path / "pictures", address
        lists = [served_sources.described(tmp_path / "data_manifests", served, name=name) for name in NAMES]
        Gate.open.set()
        expected = [main_job.run(toml, tmp_path / "undisturbed").id for toml in lists]
        close_gate()
        team = Team(tmp_path, PREFECT_SERVER_DATABASE_CONNECTION_URL=database)
        try:
            team.serve()
            team.winnow("deploy", *NAMES, "--root", "results")
            for name in NAMES:
                team.worker(f"of-{name}", "--limit", "1")
                team.prefect("deployment", "run", f"curate/{name}")
            wait_for(lambda: [team.states(name) for name in NAMES] == [["Running"]] * 2, 180)
            Gate.open.set()
            wait_for(lambda: [team.states(name) for name in NAMES] == [["Completed"]] * 2, 180)
            runs = [team.flow_runs(name)[0] for name in NAMES]
            assert len({each["labels"]["prefect.worker.name"] for each in runs}) == 2
            found = [Manifest.open(Storage(tmp_path / "results" / name)).id for name in NAMES]
            assert found == expected
            assert not (tmp_path / "prefect" / "prefect.db").exists()
        finally:
            team.end()
