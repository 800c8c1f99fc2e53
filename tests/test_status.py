"""`winnow status`: what it reads beside a run, after a crash, from another machine, and of what is published."""

import json
import os
import platform
import pty
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import published_sources
import pytest
from prometheus_client.parser import text_fd_to_metric_families
from test_cli import fails, run

from flows import doctor
from pipeline.ledger import ingest
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.scoring.plan import Plan
from pipeline.status import gpus
from pipeline.status.progress import Progress
from pipeline.status.record import KEY, Look, Record, expand, ranges
from pipeline.status.reporting import Reporting, reporting
from pipeline.status.watch import Watch, rate, seconds_left
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage


@pytest.fixture
def described(tmp_path):
    """A source of 30 pairs in three shards."""
    return published_sources.listed(tmp_path / "lists", range(40, 70))


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "root" / "tiny")


def begun(described, store):
    """A run at its first beat, and no thread of it."""
    report = Reporting(Plan.of(described), store, ingest.update(described, store))
    report.beat()
    return report


def done(status):
    return {stage.name: (stage.done, stage.total) for stage in status.stages}


def test_a_run_is_seen_while_it_is_at_work(described, store):
    report = begun(described, store)
    first = Watch(store).look()
    assert (first.running, first.host, first.pairs, first.seconds_left) == (True, platform.node(), 30, None)
    assert done(first) == {"download": (0, 3), "pixels": (0, 3), "captions": (0, 3)}
    published_sources.finish(described, store, failed=(41, 65), without=(1,))
    report.beat()
    report.quarantine({1: "download, shard 00001: its process died"})
    report.beat()
    found = Watch(store).look()
    assert done(found) == {"download": (2, 3), "pixels": (2, 3), "captions": (2, 3)}
    assert (found.failed, found.counted, list(found.quarantined)) == ({"http_404": 2}, 2, [1])
    assert all(stage.per_second for stage in found.stages)
    assert found.seconds_left == 0  # the third shard was given up


def test_a_shard_with_half_of_its_objects_is_not_done(described, store):
    begun(described, store)
    published_sources.finish(described, store)
    stage = Plan.of(described).shards
    store.remove(stage.item(2, ".tar"))
    assert done(Watch(store).look())["download"] == (2, 3)


def test_the_next_run_goes_on_counting_failures(described, store):
    begun(described, store)
    published_sources.finish(described, store, failed=(41,), without=(2,))
    begun(described, store).fail(KeyboardInterrupt())
    stopped = Watch(store).look()
    assert (stopped.state, stopped.error, stopped.failed, stopped.counted) == (
        "failed", "it was stopped", {"http_404": 1}, 2,
    )  # fmt: skip
    published_sources.finish(described, store, failed=(69,))
    begun(described, store)
    assert (Watch(store).look().failed, Watch(store).look().counted) == ({"http_404": 2}, 3)


def test_a_run_that_was_killed_is_not_at_work(described, store):
    begun(described, store)
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    replace(Record.read(store), pid=int(ended.stdout)).write(store)
    found = Watch(store).look()
    assert (found.state, found.gpus, found.seconds_left) == ("killed", (), None)


@pytest.mark.slow
def test_a_run_of_another_machine_is_known_by_its_beats(described, store):
    begun(described, store)
    elsewhere = replace(Record.read(store), host="elsewhere")
    elsewhere.write(store)
    watch = Watch(store, silent=1.5)
    beats = threading.Timer(0.5, replace(elsewhere, beat=2).write, [store])
    beats.start()
    assert watch.settled().running
    assert watch.look().running
    time.sleep(1.6)
    assert watch.look().state == "killed"


def test_what_is_published_has_a_status_without_a_record(described, store):
    first = published_sources.published(described, store, failed=(41,), quarantined={2: "score, shard 00002: torn"})
    found = Watch(store).look()
    assert (found.state, found.manifest, found.pairs, found.missing) == ("published", first.id, 30, ())
    assert (done(found)["download"], found.failed) == ((2, 3), {"http_404": 1})
    assert found.quarantined == {2: "score, shard 00002: torn"}
    assert not store.done(KEY)


def finished(described, store, **results):
    """A run from its first beat to its manifest."""
    with reporting(Plan.of(described), store, ingest.update(described, store)) as report:
        published = published_sources.published(described, store, **results)
        report.publishing(results.get("quarantined", {}))
        report.finish(published.id)
    return published


def test_a_finished_run_without_work_writes_nothing(described, store):
    published = finished(described, store)
    assert (Watch(store).look().state, Watch(store).look().manifest) == ("finished", published.id)
    before = store.fetch(KEY).stat().st_mtime_ns
    finished(described, store)
    assert store.fetch(KEY).stat().st_mtime_ns == before
    described = published_sources.listed(described.path.parent, range(40, 70), filters=())
    assert finished(described, store).id != published.id
    assert Watch(store).look().manifest != published.id


def test_lost_objects_of_a_finished_run_are_named(described, store, tmp_path):
    finished(described, store)
    tar = Plan.of(described).shards.item(1, ".tar")
    score = Plan.of(described).scores["pixels"].item(2, ".parquet")
    (rows,) = store.find("rows/*.parquet")
    for key in (tar, score, rows):
        store.remove(key)
    assert Watch(store).look().missing == (rows, tar, score)
    status, out, _ = run("status", described.path, "--root", tmp_path / "root")
    assert status == 0
    assert f"3 objects are missing: {rows}, {tar}, {score}: `winnow curate tiny` makes them again" in " ".join(
        out.split()
    )


@pytest.mark.parametrize("lost", ["document", "card", "both", "rows", "verdicts"])
def test_what_a_manifest_has_lost_is_named_and_made_again(described, store, tmp_path, lost):
    first = published_sources.published(described, store)
    document, kept = f"manifests/{first.id}.json", f"manifests/{first.id}.card.json"
    (rows,), (verdicts,) = store.find("rows/*.parquet"), store.find("verdicts/*.parquet")
    keys = {"document": [document], "card": [kept], "both": [document, kept], "rows": [rows], "verdicts": [verdicts]}[
        lost
    ]
    before = {key: store.fetch(key).read_bytes() for key in keys}
    for key in keys:
        store.remove(key)
    assert Watch(store).look().missing[0] == keys[0]
    (finding,) = doctor.lost(tmp_path / "root")
    assert (finding.state, finding.found) == ("note", f"{keys[0]} missing")
    again = published_sources.published(described, store)
    assert (again.id, again.new) == (first.id, False)
    assert Watch(store).look().missing == ()
    if lost != "card" and lost != "both":  # the card has seconds
        assert {key: store.fetch(key).read_bytes() for key in keys} == before


@pytest.mark.parametrize("times", [("2031-01-01", "2020-01-01"), ("2020-01-01", "1999-01-01")])
def test_a_clock_that_is_wrong_misorders_nothing(described, store, times):
    first = published_sources.published(described, store)
    other = published_sources.published(published_sources.listed(described.path.parent, range(40, 75)), store)
    for number, (id_, parent, day) in enumerate(((first.id, None, times[0]), (other.id, first.id, times[1]))):
        key = f"log/{number:08d}.json"
        store.remove(key)
        entry = {"id": id_, "parent": parent, "time": f"{day}T00:00:00+00:00"}
        assert store.put_if_absent(key, canonical_json(entry))
    assert Manifest.open(store).id == other.id
    assert Watch(store).look().manifest == other.id
    assert not published_sources.published(published_sources.listed(described.path.parent, range(40, 75)), store).new
    back = published_sources.published(published_sources.listed(described.path.parent, range(40, 70)), store)
    assert (back.id, back.new) == (first.id, True)
    assert [commit.id for commit in commits(store)] == [first.id, other.id, first.id]


def test_an_error_of_a_run_is_its_status(described, store):
    with (
        pytest.raises(ValueError, match="secret"),
        reporting(Plan.of(described), store, ingest.update(described, store)),
    ):
        raise ValueError("a secret of somebody")
    found = Watch(store).look()
    assert (found.state, found.error) == ("failed", "ValueError: see its log")


def test_the_rate_is_that_of_the_last_minutes():
    looks = [Look(0, {"a": 0}), Look(1000, {"a": 10}), Look(1400, {"a": 11}), Look(1600, {"a": 13})]
    assert rate(looks, "a") == 3 / 600
    assert rate([*looks, Look(3000, {"a": 13})], "a") == 13 / 3000
    assert rate([Look(0, {"a": 5}), Look(9, {"a": 5})], "a") is None
    assert rate(looks, "b") is None
    slow, fast, last = Progress("a", 10, 40, 0.5), Progress("b", 39, 40, 0.001), Progress("c", 0, 40, of_pool=True)
    assert seconds_left([slow, fast, last], 0) == pytest.approx(1000)
    assert seconds_left([slow, fast, last], 1) == 29 / 0.5
    assert seconds_left([Progress("a", 1, 2)], 0) is None


def test_numbers_are_stored_as_ranges():
    assert ranges([3, 1, 2, 9, 7, 8, 5]) == [[1, 3], [5, 5], [7, 9]]
    assert expand(ranges([3, 1, 2, 9])) == (1, 2, 3, 9)
    assert expand(ranges([])) == ()


def test_a_gpu_is_what_nvidia_smi_says_of_it():
    found = gpus.parse("0, NVIDIA H100 80GB HBM3, 83, 40123, 81559")
    assert (found.name, found.busy, found.used, found.memory) == ("0 NVIDIA H100 80GB HBM3", 0.83, 40123, 81559)
    assert gpus.parse("0, NVIDIA H100 80GB HBM3, [N/A], 1, 2") is None


def test_the_metrics_are_what_prometheus_reads(described, store, tmp_path):
    report = begun(described, store)
    published_sources.finish(described, store, failed=(41,), without=(1,))
    report.beat()
    file = tmp_path / "winnow.prom"
    status, out, _ = run("status", described.path, "--root", tmp_path / "root", "--metrics", file, "--json")
    assert status == 0
    with file.open() as text:
        samples = [sample for family in text_fd_to_metric_families(text) for sample in family.samples]
    read = {(each.name, *sorted(each.labels.values())): each.value for each in samples}
    assert read["winnow_run_writing", "tiny"] == 1
    assert read["winnow_shards_done", "pixels", "tiny"] == 2
    assert read["winnow_shards", "download", "tiny"] == 3
    assert read["winnow_failed_pairs", "http_404", "tiny"] == 1
    assert read["winnow_seconds_left", "tiny"] > 0
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["winnow.prom"]
    assert json.loads(out)["stages"][1]["done"] == 2


def test_errors_of_status_are_one_line(described, tmp_path):
    assert "no source is called 'tinny'" in fails("status", "tinny", "--root", tmp_path / "root")
    assert "nothing is there yet of tiny in" in fails("status", described.path, "--root", tmp_path / "root")
    assert not (tmp_path / "root").exists()
    published_sources.published(described, Storage(tmp_path / "root" / "tiny"))
    file = tmp_path / "gone" / "a.prom"
    assert "cannot be written" in fails("status", "tiny", "--root", tmp_path / "root", "--metrics", file)
    assert run("status", "tiny", "--root", tmp_path / "root", "--metrics", tmp_path / "a.txt")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("end", ["run", "Ctrl-C"])
def test_live_ends_with_the_run_or_with_ctrl_c(described, store, tmp_path, end):
    plan, ledger = Plan.of(described), ingest.update(described, store)
    ours, theirs = pty.openpty()
    with reporting(plan, store, ledger) as report:
        command = [
            sys.executable,
            "-m",
            "flows",
            "status",
            str(described.path),
            "--root",
            str(tmp_path / "root"),
            "--live",
        ]
        process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs)
        os.close(theirs)
        shown = os.read(ours, 10_000)
        while b"a run is writing" not in shown:
            shown += os.read(ours, 10_000)
        published = published_sources.published(described, store)
        report.publishing({})
        if end == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        report.finish(published.id)
    while True:
        try:
            shown += os.read(ours, 10_000)
        except OSError:  # the other side is closed
            break
    assert process.wait(30) == (0 if end == "run" else 130)
    assert (published.id[:12].encode() in shown) == (end == "run")
    assert b"Traceback" not in shown
