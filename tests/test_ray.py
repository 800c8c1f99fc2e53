"""The Ray engine on real clusters of several nodes on this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer

import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

import psutil
import ray_clusters
import served_sources
import webdataset_tars
from picture_handler import PictureHandler
from ray_clusters import Noted, calls, done, shards

from pipeline.engine.engine import LocalEngine
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.ray_pool import LOSSES
from pipeline.errors import SourceError, StorageError
from pipeline.ledger import ingest
from pipeline.progress import silent
from pipeline.sources import loading
from pipeline.store.storage import Storage
from winnow.curation import bring_up_to_date

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pair():
    """Two nodes of two cores, for the tests that lose no node."""
    with ray_clusters.cluster(2) as (made, nodes):
        yield made, nodes


@pytest.fixture
def tiny(tmp_path, httpserver_folder):
    return loading.load(served_sources.described(tmp_path / "lists", httpserver_folder))


@pytest.fixture
def scored(pair, tiny, tmp_path):
    """Runs a stage in the place of the scorers of a source."""

    def run(count, **settings):
        folder = tmp_path / "noted"
        folder.mkdir()
        with RayEngine(tiny, Storage(tmp_path / "root"), pair[0].address) as used:
            outcomes = used.score(partial(Noted, folder, **settings), shards(count))
            return {shard.number: error and str(error) for shard, error in outcomes}, folder

    return run


def curate(source, storage, chosen):
    return bring_up_to_date(source, storage, chosen, silent)


def test_the_manifest_is_the_one_of_a_single_machine(pair, tiny, tmp_path):
    here = curate(tiny, Storage(tmp_path / "local"), partial(LocalEngine, devices=[]))
    there = curate(tiny, Storage(tmp_path / "ray"), partial(RayEngine, address=pair[0].address))
    assert (there.id, there.counts) == (here.id, here.counts)
    assert here.counts.quarantined == 0


def test_local_pictures_need_a_folder_that_every_node_sees(pair, tmp_path):
    webdataset_tars.img2dataset_folder(tmp_path / "in", shards=4, size=10, failed={3})
    (tmp_path / "mine.toml").write_text('filters = []\n[pairs]\nshards = "in"\n[download]\nshard_size = 10\n')
    source = loading.load(tmp_path / "mine.toml")
    on_ray = curate(source, Storage(tmp_path / "ray"), partial(RayEngine, address=pair[0].address))
    assert on_ray == curate(source, Storage(tmp_path / "local"), partial(LocalEngine, devices=[]))
    assert on_ray.counts.kept == 39
    storage = Storage(tmp_path / "elsewhere")
    ledger = ingest.update(source, storage)
    (tmp_path / "in").rename(tmp_path / "away")
    with RayEngine(source, storage, pair[0].address) as used:
        with pytest.raises(SourceError, match=r"has no folder .*/in, where the pictures of mine are \(on node"):
            list(used.download(ledger.shards))


def test_a_stage_is_loaded_once_a_node_and_a_bad_shard_is_tried_twice(scored):
    outcomes, folder = scored(12, seconds=0.1, bad=5, processes=2)
    assert outcomes == dict.fromkeys(range(12)) | {5: "test, shard 00005: it is bad"}
    assert calls(folder) == dict.fromkeys(range(12), 1) | {5: 2}
    assert set(done(folder).values()) == {int(path.name.split("-")[1]) for path in folder.glob("loaded-*")}
    assert len(set(done(folder).values())) == 2


def test_what_would_fail_every_shard_ends_the_run(scored):
    with pytest.raises(StorageError, match=r"^the disk is full \(on node [0-9.]+\)$"):
        scored(4, fatal=2)


def test_an_actor_that_dies_is_started_again(scored):
    outcomes, folder = scored(8, seconds=0.1, deadly=3, once=True)
    assert set(outcomes.values()) == {None}
    assert done(folder).keys() == set(range(8))


def test_a_shard_that_ends_its_workers_is_quarantined(scored):
    outcomes, folder = scored(6, deadly=2)
    assert outcomes.pop(2) == f"score, shard 00002: {LOSSES} workers were lost while they had it"
    assert set(outcomes.values()) == {None}
    assert calls(folder)[2] == LOSSES


class Slow(PictureHandler):
    """A picture after a while. The server counts requests at once."""

    def do_GET(self):
        server = self.server
        with server.lock:
            server.now += 1
            server.most = max(server.most, server.now)
            server.asked += 1
        time.sleep(server.seconds)
        with server.lock:
            server.now -= 1
        number = int(self.path.strip("/").removesuffix(".jpg").removeprefix("gone-"))
        self.answer(served_sources.picture(number))


@pytest.fixture
def slow():
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.now, server.most, server.asked, server.seconds, server.lock = 0, 0, 0, 0.1, threading.Lock()
        server.place = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def of_slow(tmp_path, slow, count=60, download="", more=""):
    """A source of that many pictures of the slow server, in shards of 10."""
    pictures = tmp_path / "pictures"
    pictures.mkdir(exist_ok=True)
    toml = served_sources.described(tmp_path / "lists", (pictures, slow.place), count, more=more)
    toml.write_text(toml.read_text().replace("[download]", f'[download]\nrobots = ["noai"]\n{download}'))
    return toml


def test_a_host_gets_no_more_requests_at_once_from_two_nodes_than_from_one(pair, tmp_path, slow):
    source, storage = loading.load(of_slow(tmp_path, slow, download="per_host = 3")), Storage(tmp_path / "root")
    ledger = ingest.update(source, storage)
    with RayEngine(source, storage, pair[0].address) as used:
        outcomes = dict(used.download(ledger.shards))
    assert set(outcomes.values()) == {None}
    assert slow.asked == 63
    assert slow.most == 3


SLEEPY = """
import time
columns = {"words": "int32"}
def score(batch):
    time.sleep(1)
    return {"words": [len(caption.split()) for caption in batch.captions]}
"""


def wait_for(what, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.05)


def test_nodes_that_are_lost_in_both_stages_change_nothing(tmp_path, slow):
    """Three nodes: one is lost during downloads, one more during scoring, and the third does the rest."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "sleepy.py").write_text(SLEEPY)
    source = loading.load(of_slow(tmp_path, slow, 90, "threads = 64", '[scorers.sleepy]\nkind = "./sleepy.py"'))
    here, there = Storage(tmp_path / "local"), Storage(tmp_path / "ray")
    slow.seconds = 0.01
    expected = curate(source, here, partial(LocalEngine, devices=[]))
    slow.seconds, on_head = 0.5, []
    with ray_clusters.cluster(3) as (made, nodes):

        def lose():
            for pattern in ("shards-*/*.parquet", "scores/*/*.parquet"):
                wait_for(lambda: there.find(pattern))  # noqa: B023
                made.remove_node(nodes.pop(), allow_graceful=False)
                time.sleep(1)
                on_head.extend(line for _, line in our_processes([made.head_node]))

        losing = threading.Thread(target=lose)
        losing.start()
        found = curate(source, there, partial(RayEngine, address=made.address))
        losing.join()
    assert len(nodes) == 1
    assert not on_head, "the head has no core"
    assert (found.id, found.counts) == (expected.id, expected.counts)


def our_processes(nodes):
    """Processes below the nodes that hold a stage, or were started by one, and their command lines."""
    found = []
    for node in nodes:
        for process in psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True):
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "ray::Worker" in line or "pipeline." in line:
                found.append((process, line))
    return found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_run_that_is_stopped_leaves_no_process_on_the_nodes(pair, tmp_path, slow, number, status):
    slow.seconds = 1
    toml = of_slow(tmp_path, slow, 200, "per_host = 2")
    command = ["curate", str(toml), "--root", str(tmp_path / "root"), "--engine", "ray", "--address", pair[0].address]
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / "prefect"), "HOME": str(tmp_path)}
    run = subprocess.Popen(
        [sys.executable, "-m", "flows", *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )

    def at_work():
        return slow.asked and any("pipeline.download.worker" in line for _, line in our_processes(pair[1]))

    wait_for(lambda: run.poll() is not None or at_work())
    assert run.poll() is None, run.communicate()[0]
    begun = [process for process, _ in our_processes(pair[1])]
    run.send_signal(number)
    words = run.communicate(timeout=120)[0]
    assert run.returncode == status, words
    if number == signal.SIGINT:
        assert words.splitlines()[-1] == "winnow: stopped; run the same command to resume"
    wait_for(lambda: not [each for each in begun if each.is_running() and each.status() != "zombie"], 30)
