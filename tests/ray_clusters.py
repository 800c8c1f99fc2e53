"""Real Ray clusters of several nodes on this machine, and stages to run on them."""

import contextlib
import os
import time
from collections import Counter
from pathlib import Path

from pipeline.errors import ShardError, StorageError
from pipeline.ledger.ledger import Shard

HOME = Path(__file__).parent.parent


@contextlib.contextmanager
def cluster(nodes, cores=2):
    """A head without cores, and nodes with some. Gives the cluster and the list of its nodes."""
    from ray.cluster_utils import Cluster

    known = [str(HOME / "tests"), str(HOME), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in known if path))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield made, [made.add_node(num_cpus=cores) for _ in range(nodes)]
    finally:
        made.shutdown()


def shards(count):
    return [Shard(number, f"pairs/{number}.parquet", 1) for number in range(count)]


class Noted:
    """Leaves a file a shard, with its process. It waits, and numbers may be bad, fatal, or end the process.

    No shard is begun before as many `processes` have loaded it.
    """

    def __init__(self, folder, seconds=0.0, bad=None, fatal=None, deadly=None, once=False, processes=1):
        self.folder, self.seconds, self.processes = Path(folder), seconds, processes
        self.bad, self.fatal, self.deadly, self.once = bad, fatal, deadly, once
        (self.folder / f"loaded-{os.getpid()}").touch()

    def __call__(self, shard):
        while len(list(self.folder.glob("loaded-*"))) < self.processes:
            time.sleep(0.05)
        (self.folder / f"began-{shard.number}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        if shard.number == self.bad:
            raise ShardError("test", shard.number, "it is bad")
        if shard.number == self.fatal:
            raise StorageError("the disk is full")
        if shard.number == self.deadly and not (self.once and self._died()):
            os._exit(1)
        (self.folder / f"done-{shard.number}").write_text(str(os.getpid()))

    def _died(self):
        mark = self.folder / "died"
        died = mark.exists()
        mark.touch()
        return died


def done(folder):
    """The process that did each shard, by number."""
    return {int(path.name.removeprefix("done-")): int(path.read_text()) for path in Path(folder).glob("done-*")}


def calls(folder):
    """How often each shard was begun."""
    return Counter(int(path.name.split("-")[1]) for path in Path(folder).glob("began-*"))


class Tiny:
    """Puts a small object a shard."""

    def __init__(self, storage):
        self.storage = storage

    def __call__(self, shard):
        self.storage.put_if_absent(f"tiny/{shard.number:05d}", b"+")
