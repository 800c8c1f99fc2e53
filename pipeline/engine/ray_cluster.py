"""A connection to a Ray cluster, and its nodes."""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ClusterError

_SECONDS = 5
"""Until a cluster that does not answer is reported."""


@dataclass(frozen=True)
class Node:
    """A node that is alive: its id and address, and what Ray may use of it."""

    id: str
    address: str
    cores: int
    gpus: int


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be a driver of the cluster at `address`: HOST:PORT of its head, or "auto" for the one of this machine.

    Without an address it is that of the environment variable RAY_ADDRESS, which a job of Ray has, or else "auto". A
    driver that is connected stays so. Raises ClusterError.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise ClusterError("engine ray needs the package ray: install winnow with the extra `ray`") from None
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    _reach(address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise ClusterError(_refusal(address, error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def own_address() -> str:
    """The address at which the nodes reach this process."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def nodes() -> list[Node]:
    """The nodes that are alive and may be used: those with a core."""
    import ray

    found = [
        Node(each["NodeID"], each["NodeManagerAddress"], int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))
        for each in ray.nodes()
        if each["Alive"]
        for resources in [each["Resources"]]
    ]
    return sorted((node for node in found if node.cores), key=lambda node: node.id)


def on_node(node: Node, soft: bool) -> dict[str, Any]:
    """Options of a task or an actor that belongs to a node; if `soft`, it goes to another one when that is lost."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=soft)}


def _reach(address: str) -> None:
    """Raise ClusterError unless something listens at the address. Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal():
        raise ClusterError(
            f"{address} is no address of a Ray cluster: write HOST:PORT of its head, as in 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _SECONDS).close()
    except OSError as error:
        raise ClusterError(f"no Ray cluster answers at {address}: {error.strerror or error}") from None


def _refusal(address: str, error: Exception) -> str:
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    if address == "auto" and isinstance(error, ConnectionError):
        return "no Ray cluster runs on this machine: start one with `ray start --head`, or give --address HOST:PORT"
    if "Version mismatch" in str(error):
        return f"the Ray cluster at {address} has another Python or another Ray: {' '.join(lines)}"
    return f"the Ray cluster at {address} cannot be used: {lines[0] if lines else type(error).__name__}"
