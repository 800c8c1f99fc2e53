"""A team's Prefect: a real server and process workers, kill -9 and SIGTERM in the middle, a server that goes away.

The pictures of a source are held back until a test opens the gate, so that every kill comes amid a download.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import httpx
import main_job
import pytest
import served_sources
import team_server
from team_server import Gate, Team, close_gate, wait_for

from flows import register
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a source whose pictures are behind the gate, and the manifest's id of an undisturbed run."""
    folder = tmp_path_factory.mktemp("team")
    with team_server.gated_pictures() as address:
        (folder / "pictures").mkdir()
        served = folder / "pictures", address
        toml = served_sources.described(folder / "data_manifests", served, more='schedule = "0 6 * * *"', timeout=700)
        Gate.open.set()
        yield folder, toml, main_job.run(toml, folder / "undisturbed").id


@pytest.fixture(scope="module")
def team(source):
    """The server of the folder with the source's deployments. Dead runs are found sooner than by default."""
    found = Team(source[0])
    try:
        found.serve()
        found.winnow("deploy", "tiny", "--root", "results")
        hasten(found)
        yield found
    finally:
        found.end()


@pytest.fixture
def run(team, source):
    """Start a run with an empty store, and wait until it stands in the middle. Returns the store and the run."""
    started = []

    def start():
        close_gate()
        shutil.rmtree(source[0] / "results", ignore_errors=True)
        before = {each["id"] for each in team.flow_runs("tiny")}
        team.prefect("deployment", "run", "curate/tiny")
        wait_for(Gate.asked.is_set, 300)
        started.extend(each for each in team.flow_runs("tiny") if each["id"] not in before)
        return Storage(source[0] / "results" / "tiny"), started[-1]["id"]

    yield start
    Gate.open.set()


@pytest.fixture
def worker(team):
    """Start workers, of which nothing is left."""
    workers = []

    def start(name):
        workers.append(team.worker(name))
        return workers[-1]

    yield start
    for each in workers:
        each.kill()
        each.wait()
    for each in team.at_work():
        each.kill()


def automations(team):
    return team.post("automations/filter", limit=100)


def hasten(team):
    """Have dead runs found sooner. SQLite may be locked for a while on a busy machine."""
    for automation in automations(team):
        body = {name: automation[name] for name in ("name", "description", "enabled", "trigger", "actions")}
        body["trigger"]["within"] = min(body["trigger"]["within"], 35)
        address = f"{team.api}/automations/{automation['id']}"
        wait_for(lambda: httpx.put(address, json=body, timeout=60).is_success, 300)  # noqa: B023 - called at once


def registered(team):
    """What is registered, without ids and times."""
    wanted = ("name", "tags", "parameters", "concurrency_options", "job_variables", "work_pool_name", "entrypoint")
    deployments = {
        each["name"]: {name: each[name] for name in wanted}
        | {
            "limit": (each["global_concurrency_limit"] or {}).get("limit"),
            "schedules": [(one["active"], times(one["schedule"])) for one in each["schedules"]],
        }
        for each in team.post("deployments/filter")
    }
    rules = sorted((each["name"], rule(each["trigger"])) for each in automations(team))
    return deployments, rules


def times(schedule):
    return schedule.get("cron") or schedule.get("interval")


def rule(trigger):
    kept = ("posture", "match", "match_related", "after", "expect", "for_each", "threshold")
    values = {name: sorted(trigger[name]) if isinstance(trigger[name], list) else trigger[name] for name in kept}
    return json.dumps(values, sort_keys=True)


def state(team, run):
    return httpx.get(f"{team.api}/flow_runs/{run}", timeout=120).raise_for_status().json()


def ended(team, run, name, seconds):
    wait_for(lambda: state(team, run)["state_name"] == name, seconds)


def check_whole(team, storage, expected):
    """The manifest is that of an undisturbed run, published once, and every object can be read."""
    assert Manifest.open(storage).id == expected
    assert len(commits(storage)) == 1
    found = json.loads(team.winnow("doctor", "--deep", "--root", "results", "--json").splitlines()[-1])["findings"]
    assert [each for each in found if each["state"] == "fault"] == []


def test_without_a_server_deploying_is_one_line(tmp_path):
    team = Team(tmp_path)
    with pytest.raises(AssertionError) as failed:
        team.winnow("deploy")
    [line] = str(failed.value).splitlines()[:1]
    assert line.startswith("winnow: no Prefect server answers: start one with `prefect server start`")
    assert "Traceback" not in str(failed.value)


def test_deploying_again_changes_nothing(team):
    first = registered(team)
    team.winnow("deploy", "tiny", "--root", "results")
    assert registered(team) == first
    hasten(team)
    deployments, rules = first
    assert sorted(deployments) == ["hourly", "on-manifest", "tiny"]
    assert sorted(name for name, _ in rules) == sorted(
        ["winnow: a manifest was published", *(each.name for each in register.automations())]
    )
    tiny = deployments["tiny"]
    assert (tiny["limit"], tiny["concurrency_options"]["collision_strategy"]) == (1, "ENQUEUE")
    assert tiny["schedules"] == [(True, "0 6 * * *")]
    assert tiny["tags"] == ["winnow", "tiny"]
    assert tiny["parameters"]["root"] == str(team.folder / "results")


def test_a_flow_that_is_killed_runs_again(team, run, worker, source):
    worker("first")
    storage, started = run()
    [engine] = team.processes("prefect.engine")
    engine.kill()
    ended(team, started, "Crashed", 120)
    Gate.open.set()
    ended(team, started, "Completed", 300)
    assert state(team, started)["run_count"] == 2
    check_whole(team, storage, source[2])


def test_a_flow_and_its_worker_that_are_killed_run_again(team, run, worker, source):
    first = worker("second")
    storage, started = run()
    first.kill()
    for engine in team.processes("prefect.engine"):
        engine.kill()
    wait_for(lambda: not team.at_work(), 60)
    assert state(team, started)["state_name"] == "Running"
    Gate.open.set()
    worker("third")
    ended(team, started, "Completed", 300)
    assert state(team, started)["run_count"] == 2
    check_whole(team, storage, source[2])


def test_a_cancelled_run_stops_and_the_next_one_resumes(team, run, worker, source):
    worker("fourth")
    storage, started = run()
    begun = time.monotonic()
    team.prefect("flow-run", "cancel", started)
    ended(team, started, "Cancelled", 300)
    wait_for(lambda: not team.at_work(), 120)
    assert time.monotonic() - begun < 500  # the gate would hold it for 600
    assert commits(storage) == []
    Gate.open.set()
    team.prefect("deployment", "run", "curate/tiny")
    wait_for(lambda: commits(storage), 300)
    check_whole(team, storage, source[2])
    assert state(team, started)["state_name"] == "Cancelled"


def test_a_second_run_of_a_source_waits_for_the_first(team, run, worker, source):
    worker("fifth")
    storage, started = run()
    team.prefect("deployment", "run", "curate/tiny")
    second = team.flow_runs("tiny")[-1]["id"]
    wait_for(lambda: state(team, second)["state_name"] == "AwaitingConcurrencySlot", 300)
    Gate.open.set()
    ended(team, started, "Completed", 300)
    ended(team, second, "Completed", 300)
    check_whole(team, storage, source[2])


def test_sigterm_to_a_worker_ends_its_run_and_another_resumes_it(team, run, worker, source):
    first = worker("sixth")
    storage, started = run()
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) is not None
    wait_for(lambda: not team.at_work(), 60)
    assert commits(storage) == []
    Gate.open.set()
    worker("seventh")
    ended(team, started, "Completed", 300)
    check_whole(team, storage, source[2])


def test_a_server_that_goes_away_in_the_middle_loses_nothing(team, run, worker, source):
    worker("eighth")
    storage, started = run()
    for each in team.processes(str(team_server.BIN / "prefect"), "prefect.server.api.server:create_app"):
        if "server" in " ".join(each.cmdline()):
            each.kill()
    wait_for(lambda: not team.healthy(), 60)
    Gate.open.set()
    time.sleep(20)  # the run ends meanwhile, or waits for the server
    team.serve()
    ended(team, started, "Completed", 300)
    check_whole(team, storage, source[2])


def test_ctrl_c_ends_a_command_whose_server_went_away(source, tmp_path):
    team = Team(tmp_path)
    try:
        server = team.serve()
        close_gate()
        command = team.start("curate", sys.executable, "-m", "flows", "curate", source[1], "--root", "results")
        wait_for(lambda: Gate.asked.is_set(), 300, command)
        os.killpg(server.pid, signal.SIGKILL)
        wait_for(lambda: not team.healthy(), 60)
        command.send_signal(signal.SIGINT)
        assert command.wait(60) == 130
        assert f"winnow: stopped; Prefect's server at {team.api} went away" in (tmp_path / "curate.log").read_text()
        wait_for(lambda: not team.at_work(), 60)
        Gate.open.set()
        assert main_job.run(source[1], tmp_path / "results").id == source[2]
    finally:
        team.end()


def test_prefect_s_own_command_registers_the_same(team):
    names = ("demo", "cc3m", "cc12m")
    shutil.copy(ROOT / "prefect.yaml", team.folder)
    team.winnow("deploy", *names)
    deployments, rules = registered(team)
    for each in team.post("deployments/filter"):
        httpx.delete(f"{team.api}/deployments/{each['id']}", timeout=60).raise_for_status()
    for each in automations(team):
        httpx.delete(f"{team.api}/automations/{each['id']}", timeout=60)
    team.prefect("--no-prompt", "deploy", "--all")
    team.prefect("automation", "create", "--from-file", ROOT / "flows" / "automations.yaml")
    found, found_rules = registered(team)
    assert found_rules == rules
    assert sorted(found) == sorted({*deployments} - {"tiny"})
    for name in names:  # the file has names of sources, and the command paths
        assert deployments[name]["parameters"].pop("source") == str(ROOT / "data_manifests" / f"{name}.toml")
        assert found[name]["parameters"].pop("source") == name
    assert found == {name: deployments[name] for name in found}
