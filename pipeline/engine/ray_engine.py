"""The engine that runs on a Ray cluster. This process is the driver: it hands out shards and collects outcomes.

Downloads run in an actor for each node, with as many shards at once as the node has cores. If the cluster has GPUs, the
scorers run in an actor for each GPU, and the nodes with GPUs are left to them as long as there are others to download.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property, partial
from typing import Any, Self

from pipeline.download import by_source
from pipeline.engine import ray_cluster
from pipeline.engine.engine import P
from pipeline.engine.local import Outcome, Shards, Work
from pipeline.engine.ray_cluster import Node, on_node
from pipeline.engine.ray_nodes import agree, check_hosts
from pipeline.engine.ray_pool import Pool, Worker
from pipeline.errors import ClusterError
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.web import throttle_network
from pipeline.web.throttle_network import NetworkThrottle

_AHEAD = 2
"""Shards of a scoring actor: one is scored, and the next is announced, so that its pictures are decoded meanwhile."""

_CORE = 0.001
"""The share of a core that an actor takes in Ray's account."""


class RayEngine:
    """`pipeline.engine.engine.Engine` on the cluster at `address`, or that of the source's [ray].

    What makes a stage is pickled, and each actor calls it once.
    """

    def __init__(self, source: Source, storage: Storage, address: str | None = None) -> None:
        self._source, self._storage = source, storage
        self._address = address or source.ray.address
        self._held = ExitStack()
        self._nodes: list[Node] = []
        self._throttle: NetworkThrottle
        self._scorers: Pool | None = None

    def __enter__(self) -> Self:
        with ExitStack() as held:
            held.enter_context(ray_cluster.connected(self._address))
            self._nodes = ray_cluster.nodes()
            if not self._nodes:
                raise ClusterError("the Ray cluster has no node with a core that may be used")
            own = ray_cluster.own_address()
            check_hosts(self._source.download.allow_hosts, self._nodes, own)
            self._throttle = held.enter_context(throttle_network.started(own))
            self._held = held.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._held.__exit__(None, None, None)

    def agree(self, make_plan: Callable[[], P]) -> P:
        """The plan of the nodes that score. Raises ClusterError for a node that cannot do the work."""
        scoring = [node for node in self._nodes if node.gpus] or self._nodes
        return agree(self._nodes, scoring, make_plan, self._storage)

    def download(self, shards: Shards) -> Iterator[Outcome]:
        """On each node that downloads, several shards at once."""
        return self._downloaders.run(shards)

    def score(self, make_scoring: Callable[[], Work], shards: Shards) -> Iterator[Outcome]:
        """On each GPU of the cluster, or without any on each node. `make_scoring` counts at the first call."""
        if self._scorers is None:
            self._scorers = self._pool("score", self._scoring_actors(make_scoring))
        return self._scorers.run(shards)

    @cached_property
    def _downloaders(self) -> Pool:
        free = [node for node in self._nodes if not node.gpus]
        return self._pool("download", [self._downloader(node) for node in free or self._nodes])

    def _scoring_actors(self, make: Callable[[], Work]) -> list[tuple[Any, int]]:
        gpus, wanted = sum(node.gpus for node in self._nodes), self._source.ray.score_workers
        if gpus:
            return [(_actor(make, 1, _AHEAD, num_gpus=1), _AHEAD) for _ in range(wanted or gpus)]
        places = [self._nodes[place % len(self._nodes)] for place in range(wanted or len(self._nodes))]
        return [_scorer_on(node, make, places.count(node)) for node in places]

    def _pool(self, stage: str, actors: list[tuple[Any, int]]) -> Pool:
        pool = Pool(stage, actors)
        self._held.callback(pool.stop)
        return pool

    def _downloader(self, node: Node) -> tuple[Any, int]:
        make = partial(by_source.fetching, self._source, self._storage, cores=node.cores, throttle=self._throttle)
        at_once = by_source.shards_at_once(self._source, node.cores)
        return _actor(make, at_once, at_once, **on_node(node, soft=True)), at_once


def _scorer_on(node: Node, make: Callable[[], Work], neighbours: int) -> tuple[Any, int]:
    """A scoring actor that has its share of the node's cores."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, node.cores // neighbours))
    environment = {"env_vars": {"OMP_NUM_THREADS": threads}}
    return _actor(make, 1, _AHEAD, runtime_env=environment, **on_node(node, soft=True)), _AHEAD


def _actor(make: Callable[[], Work], at_once: int, depth: int, **options: Any) -> Any:
    """Start an actor. Ray starts it again as often as it is lost.

    Actors take hardly any of a node's cores in Ray's account: a node that is left alone must have room for the actors
    of the others. They take some, so that none of them moves to a head node without cores.
    """
    import ray

    remote: Any = ray.remote(Worker)
    settings = {"max_restarts": -1, "max_concurrency": depth + 1, "num_cpus": _CORE, **options}
    return remote.options(**settings).remote(make, at_once)
