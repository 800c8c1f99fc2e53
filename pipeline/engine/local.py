"""Running a stage over shards. A shard that fails is tried once more, then quarantined for this run."""

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pipeline.engine.arrivals import Arrivals, Supply
from pipeline.errors import ShardError
from pipeline.ledger.ledger import Shard
from pipeline.process import spawning


class Work(Protocol):
    """A loaded stage. It must be safe to run twice on a shard."""

    def __call__(self, shard: Shard, /) -> None:
        """Store the result of a shard. Raises ShardError for a fault of this shard alone."""
        ...


@runtime_checkable
class Prefetching(Protocol):
    """A stage that can prepare the next shard while it works on the current one."""

    def prefetch(self, shard: Shard) -> None:
        """Called before each shard with the one after it, if that is ready."""
        ...


class Wide(Work, Protocol):
    """A stage that works on `at_once` shards at the same time, each in a thread of its caller."""

    at_once: int

    def close(self) -> None:
        """End what it is at, so that calls that run end with an error. Later calls begin anew."""
        ...


Shards: TypeAlias = Supply | Arrivals | Iterable[Shard]
"""Shards to work on: all at once, or as they arrive."""

Outcome: TypeAlias = tuple[Shard, ShardError | None]
"""A shard and its error; None if its result is stored."""


def run(make_stage: Callable[[], Work], shards: Shards) -> Iterator[Outcome]:
    """Yield the outcome of each shard, in their order.

    `make_stage` is called once: what it loads serves all shards. ShardError quarantines the shard. Any other error ends
    the run, because a full disk or a wrong model would fail the next shard too. The next run tries a quarantined shard
    again, because nothing is stored under its key.
    """
    stage, supply = make_stage(), supply_of(shards)
    shard = supply.take()
    while shard is not None:
        following = supply.take(wait=False)
        if following and isinstance(stage, Prefetching):
            stage.prefetch(following)
        yield shard, try_twice(stage, shard)
        shard = following or supply.take()


def run_wide(stage: Wide, shards: Shards) -> Iterator[Outcome]:
    """As `run`, with several shards at the same time. Outcomes come as shards are finished.

    If one raises another error than ShardError, or the caller ends early, the stage is closed.
    """
    supply, stopping = supply_of(shards), threading.Event()
    outcomes: queue.SimpleQueue[Outcome | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not stopping.is_set() and (shard := supply.take()) is not None:
                outcomes.put((shard, try_twice(stage, shard, stopping)))
            outcomes.put(None)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            outcomes.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(stage.at_once)]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            while (outcome := outcomes.get()) is not None:
                if isinstance(outcome, BaseException):
                    raise outcome
                yield outcome
    except BaseException:
        stopping.set()
        stage.close()
        raise


def supply_of(shards: Shards) -> Supply:
    """The shards for the workers of one stage."""
    if isinstance(shards, Supply):
        return shards
    return (shards if isinstance(shards, Arrivals) else Arrivals.of(shards)).supply()


def try_twice(stage: Work, shard: Shard, stopping: threading.Event | None = None) -> ShardError | None:
    """The error of a shard that failed twice; None if its result is stored."""
    try:
        stage(shard)
    except ShardError as first:
        if stopping and stopping.is_set():
            return first
        try:
            stage(shard)
        except ShardError as again:
            return again
    return None


def run_on_devices(make_stage: Callable[[], Work], shards: Shards, devices: Sequence[str]) -> Iterator[Outcome]:
    """As `run`, with a worker process for each device, which is a value of `CUDA_VISIBLE_DEVICES`.

    With one device it runs in this process. Outcomes come as shards are finished. `make_stage` is pickled, and each
    worker calls it once. A worker sees only its own device, and has its share of the processors. It takes a shard when
    it has time. If one fails, no new shard is started, and its error is raised.
    """
    if len(devices) < 2:
        yield from run(make_stage, shards)
        return
    with spawning.Context().Manager() as manager, spawning.pool(len(devices)) as pool:
        ready, outcomes, stop = manager.Queue(), manager.Queue(), manager.Event()
        running = {
            pool.submit(_run_worker, _Worker(device, place, len(devices)), make_stage, _Queued(ready), outcomes, stop)
            for place, device in enumerate(devices)
        }
        threading.Thread(target=_feed, args=(supply_of(shards), ready, len(devices)), daemon=True).start()
        try:
            yield from _collect(running, outcomes)
        finally:
            stop.set()
            for _ in devices:
                ready.put(None)


def _collect(running: set[Future[None]], outcomes: Any) -> Iterator[Outcome]:
    """The outcomes until all workers have ended. Raises the error of the first that fails."""
    while running:
        done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
        while not outcomes.empty():
            yield outcomes.get()
        for finished in done:
            finished.result()


def _feed(supply: Supply, ready: Any, workers: int) -> None:
    """Hand shards on to other processes, then None to each of them."""
    while (shard := supply.take()) is not None:
        ready.put(shard)
    for _ in range(workers):
        ready.put(None)


@dataclass(frozen=True)
class _Queued:
    """A supply for a worker process. None in the queue is its end, and stays there for the others."""

    ready: Any

    def take(self, wait: bool = True) -> Shard | None:
        try:
            shard: Shard | None = self.ready.get(wait)
        except queue.Empty:
            return None
        if shard is None:
            self.ready.put(None)
        return shard


@dataclass(frozen=True)
class _Worker:
    """Worker number `place` of `count`."""

    device: str
    place: int
    count: int


def _run_worker(worker: _Worker, make_stage: Callable[[], Work], supply: Supply, outcomes: Any, stop: Any) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = worker.device
    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))[worker.place :: worker.count]
        if own:
            os.sched_setaffinity(0, own)
    for outcome in run(make_stage, supply):
        outcomes.put(outcome)
        if stop.is_set():
            return
