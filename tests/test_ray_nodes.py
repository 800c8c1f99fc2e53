"""Bad clusters and bad nodes: one clear line before work starts."""

import sys
from functools import partial

import pytest

pytest.importorskip("ray", reason="the extra ray is not installed")

import ray_clusters
import served_sources

from pipeline.engine import ray_cluster
from pipeline.engine.ray_cluster import Node
from pipeline.engine.ray_engine import RayEngine
from pipeline.engine.ray_nodes import check_hosts, facts
from pipeline.errors import ClusterError, SourceError
from pipeline.scoring.plan import Plan
from pipeline.sources import loading, owner
from pipeline.store.storage import Storage


@pytest.fixture
def tiny(tmp_path, httpserver_folder):
    return loading.load(served_sources.described(tmp_path / "lists", httpserver_folder))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match="install winnow with the extra `ray`"), ray_cluster.connected(None):
        pass


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("127.0.0.1:1", "^no Ray cluster answers at 127.0.0.1:1: Connection refused$"),
        ("ray://head:10001", "^ray://head:10001 is no address of a Ray cluster: write HOST:PORT"),
        ("head", "^head is no address of a Ray cluster"),
    ],
)
def test_a_cluster_that_is_not_there(address, line):
    with pytest.raises(ClusterError, match=line), ray_cluster.connected(address):
        pass


def test_pictures_on_loopback_need_a_cluster_of_this_machine():
    here, there = Node("a", "10.0.0.1", 2, 0), Node("b", "10.0.0.2", 2, 0)
    check_hosts(["127.0.0.1:8377"], [here], "10.0.0.1")
    check_hosts(["intranet:80"], [here, there], "10.0.0.1")
    for host in ("127.0.0.1:8377", "localhost:80", "[::1]:80"):
        with pytest.raises(ClusterError, match="node 10.0.0.2 is another one: use --engine local"):
            check_hosts([host], [here, there], "10.0.0.1")


def test_a_node_that_does_not_see_the_root(tiny, tmp_path):
    """The driver has put no such object where this process looks."""
    found = facts(partial(Plan.of, tiny), Storage(tmp_path / "root"), "cluster/none")
    assert (
        found.fault == f"it does not see {tmp_path / 'root'}: put --root on a disk that all nodes share, or in a bucket"
    )


class Elsewhere:
    """A plan in one place, and a node without its weights."""

    def __init__(self, source, weights):
        self.source, self.weights = source, weights

    def __call__(self):
        self.weights.read_bytes()
        return Plan.of(self.source)


def test_a_job_that_is_submitted_again_owns_its_results(tiny, tmp_path):
    """Ray unpacks each upload of a working directory to a folder of its own, and keeps the earlier ones."""
    storage, text = Storage(tmp_path / "root" / "tiny"), tiny.path.read_text()

    def unpacked(package, below):
        path = tmp_path / package / below / "tiny.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
        return tiny.model_copy(update={"path": path})

    owner.claim(unpacked("_ray_pkg_0a", "."), storage)
    owner.claim(unpacked("_ray_pkg_1b", "."), storage)
    with pytest.raises(SourceError, match="holds the results of"):
        owner.claim(unpacked("_ray_pkg_2c", "other"), storage)


@pytest.mark.slow
def test_nodes_that_cannot_do_the_work_are_named(tiny, tmp_path):
    """Real nodes: one without the weights, then one with another package."""
    storage = Storage(tmp_path / "root")
    with ray_clusters.cluster(1) as (made, _):
        with RayEngine(tiny, storage, made.address) as used:
            with pytest.raises(ClusterError, match=r"^node [0-9.]+: .*No such file.*head\.safetensors"):
                used.agree(Elsewhere(tiny, tmp_path / "head.safetensors"))
            assert used.agree(partial(Plan.of, tiny)) == Plan.of(tiny)
        assert storage.keys("cluster") == []
        other = tmp_path / "other" / "pillow-99.0.dist-info"
        other.mkdir(parents=True)
        (other / "METADATA").write_text("Metadata-Version: 2.1\nName: pillow\nVersion: 99.0\n")
        made.add_node(
            num_cpus=1, env_vars={"PYTHONPATH": f"{other.parent}:{ray_clusters.HOME}:{ray_clusters.HOME / 'tests'}"}
        )
        with RayEngine(tiny, storage, made.address) as used:
            with pytest.raises(
                ClusterError, match=r"^node [0-9.]+: it has pillow 99\.0, and this machine [0-9.]+: install"
            ):
                used.agree(partial(Plan.of, tiny))
        assert storage.keys("cluster") == []
