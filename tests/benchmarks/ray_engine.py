"""What a Ray cluster costs and brings: PYTHONPATH=.:tests python tests/benchmarks/ray_engine.py [PART ...]

Clusters are real ones of several nodes on this machine, and pictures come from a server of its own process on loopback.
The start of a cluster, of its actors and of img2dataset is in no figure: a first shard for each worker is not timed.

wait      1 node against 2, each with one shard of 64 pairs and 32 requests at once, and a server that waits for 1 s
overhead  the Ray engine on one node against the local engine: download and score of shards of 1,000 pairs, in turn
memory    resident MiB of the driver after 100 and after 10,000 shards, each of which puts one small object
"""

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median

import psutil
import ray_clusters
import served_sources

from pipeline.engine.arrivals import Arrivals
from pipeline.engine.engine import LocalEngine
from pipeline.engine.ray_engine import RayEngine
from pipeline.ledger import ingest
from pipeline.process import lifeline
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.store.storage import Storage

REPEATS = 3


@contextlib.contextmanager
def server(folder, delay):
    """The address of a picture server."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(64):
        (pictures / f"{number}.jpg").write_bytes(served_sources.picture(number))
    command = lifeline.python("pipeline.bench.picture_server", str(pictures), str(delay))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def source(folder, place, pairs, size, threads):
    """A source of so many pairs, scored without a model."""
    lines = "".join(f"a thing of number {n}\thttp://{place}/{n}/\n" for n in range(pairs))
    (folder / "list.tsv").write_text(lines)
    (folder / "timed.toml").write_text(
        f"""
        [pairs]
        location = "list.tsv"
        columns = ["caption", "url"]
        [download]
        shard_size = {size}
        allow_hosts = ["{place}"]
        threads = {threads}
        per_host = 512
        robots = []
        [scorers.pixels]
        kind = "pixels"
        [scorers.captions]
        kind = "captions"
        """
    )
    return loading.load(folder / "timed.toml")


def seconds_of(made, engine, storage, warm):
    """Seconds of all shards but the first `warm`, downloaded, and scored meanwhile."""
    ledger = ingest.update(made, storage)
    first, timed = ledger.shards[:warm], ledger.shards[warm:]
    with engine(made, storage) as used:
        plan = used.agree(partial(Plan.of, made))
        for shards in (first, timed):
            begun, arrivals = time.perf_counter(), Arrivals()

            def download(shards=shards, arrivals=arrivals):
                for shard, error in used.download(shards):
                    assert error is None, error
                    arrivals.add(shard)
                arrivals.end()

            thread = threading.Thread(target=download)
            thread.start()
            outcomes = list(used.score(partial(Scoring, plan, storage), arrivals))
            thread.join()
            assert [error for _, error in outcomes] == [None] * len(shards)
        return time.perf_counter() - begun


def wait(folder):
    """Seconds on one node and on two, and their ratio, for each repeat."""
    ratios = []
    with server(folder, 1) as place, contextlib.ExitStack() as held:
        made = source(folder, place, 64 * 14, 64, 32)
        alone, both = (held.enter_context(ray_clusters.cluster(nodes))[0] for nodes in (1, 2))
        for repeat in range(REPEATS):
            taken = [
                seconds_of(made, partial(RayEngine, address=each.address), Storage(folder / f"{repeat}-{nodes}"), 2)
                for nodes, each in ((1, alone), (2, both))
            ]
            ratios.append(taken[0] / taken[1])
            print(f"wait: 1 node {taken[0]:.1f} s, 2 nodes {taken[1]:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"wait: median ratio {median(ratios):.2f}")


def overhead(folder):
    """Seconds of both engines and their ratio, for each repeat."""
    ratios = []
    with server(folder, 0) as place, ray_clusters.cluster(1) as (cluster, _):
        made = source(folder, place, 6000, 1000, 64)
        for repeat in range(REPEATS):
            local = seconds_of(made, partial(LocalEngine, devices=[]), Storage(folder / f"{repeat}-local"), 2)
            ray = seconds_of(made, partial(RayEngine, address=cluster.address), Storage(folder / f"{repeat}-ray"), 2)
            ratios.append(ray / local)
            print(f"overhead: local {local:.1f} s, ray {ray:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
    print(f"overhead: median ratio {median(ratios):.2f}")


def memory(folder):
    """Resident memory of this process after so many shards."""
    made = source(folder, "127.0.0.1:1", 1, 1, 1)
    storage = Storage(folder / "root")
    with (
        ray_clusters.cluster(1) as (cluster, _),
        RayEngine(made, storage, cluster.address) as used,
    ):
        for count in (100, 10_000):
            begun = time.perf_counter()
            done = sum(
                error is None
                for _, error in used.score(partial(ray_clusters.Tiny, storage), ray_clusters.shards(count))
            )
            assert done == count
            resident = psutil.Process().memory_info().rss / 2**20
            print(
                f"memory: {count} shards, {time.perf_counter() - begun:.1f} s, {resident:.1f} MiB resident", flush=True
            )


if __name__ == "__main__":
    for name in sys.argv[1:] or ("wait", "overhead", "memory"):
        with tempfile.TemporaryDirectory() as temporary:
            {"wait": wait, "overhead": overhead, "memory": memory}[name](Path(temporary))
