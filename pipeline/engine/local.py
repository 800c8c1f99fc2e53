"""Running a stage over shards. A shard that fails is tried once more, then quarantined for this run."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pipeline.errors import ShardError
from pipeline.ledger.ledger import Shard
from pipeline.process import lifeline


class Work(Protocol):
    """A loaded stage. It must be safe to run twice on a shard."""

    def __call__(self, shard: Shard, /) -> None:
        """Store the result of a shard. Raises ShardError for a fault of this shard alone."""
        ...


@runtime_checkable
class Prefetching(Protocol):
    """A stage that can prepare the next shard while it works on the current one."""

    def prefetch(self, shard: Shard) -> None:
        """Called before each shard with the one after it."""
        ...


Outcome: TypeAlias = tuple[Shard, ShardError | None]
"""A shard and its error; None if its result is stored."""


def run(make_stage: Callable[[], Work], shards: Sequence[Shard]) -> Iterator[Outcome]:
    """Yield the outcome of each shard, in their order.

    `make_stage` is called once: what it loads serves all shards. ShardError quarantines the shard. Any other error ends
    the run, because a full disk or a wrong model would fail the next shard too. The next run tries a quarantined shard
    again, because nothing is stored under its key.
    """
    stage = make_stage()
    for shard, following in zip_longest(shards, shards[1:]):
        if following and isinstance(stage, Prefetching):
            stage.prefetch(following)
        yield shard, _try_twice(stage, shard)


def _try_twice(stage: Work, shard: Shard) -> ShardError | None:
    try:
        stage(shard)
    except ShardError:
        try:
            stage(shard)
        except ShardError as again:
            return again
    return None


def run_on_devices(
    make_stage: Callable[[], Work], shards: Sequence[Shard], devices: Sequence[str]
) -> Iterator[Outcome]:
    """As `run`, with a worker process for each device, which is a value of `CUDA_VISIBLE_DEVICES`.

    With one device or one shard it runs in this process. Outcomes come as shards are finished. `make_stage` is pickled,
    and each worker calls it once. A worker sees only its own device, and has its share of the processors. If one fails,
    no new shard is started, and its error is raised.
    """
    if len(devices) < 2 or len(shards) < 2:
        yield from run(make_stage, shards)
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not work after a fork
    with context.Manager() as manager, ProcessPoolExecutor(len(devices), context, lifeline.hold) as pool:
        outcomes, stop = manager.Queue(), manager.Event()
        workers = [
            _Worker(device, place, len(devices), shards[place :: len(devices)]) for place, device in enumerate(devices)
        ]
        running = {pool.submit(_run_worker, worker, make_stage, outcomes, stop) for worker in workers}
        try:
            while running:
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                while not outcomes.empty():
                    yield outcomes.get()
                for finished in done:
                    finished.result()
        finally:
            stop.set()


@dataclass(frozen=True)
class _Worker:
    """Worker number `place` of `count`."""

    device: str
    place: int
    count: int
    shards: Sequence[Shard]


def _run_worker(worker: _Worker, make_stage: Callable[[], Work], outcomes: Any, stop: Any) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = worker.device
    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))[worker.place :: worker.count]
        if own:
            os.sched_setaffinity(0, own)
    for outcome in run(make_stage, worker.shards):
        outcomes.put(outcome)
        if stop.is_set():
            return
