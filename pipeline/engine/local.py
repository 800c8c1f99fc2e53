"""Running a stage over shards. A shard that fails is tried once more, then left out of this run: quarantined."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import zip_longest
from typing import Any, Protocol, TypeAlias, runtime_checkable

from pipeline.errors import ShardError
from pipeline.ledger.ledger import Shard


class Work(Protocol):
    """A stage at work; it must be safe to run twice on a shard."""

    def __call__(self, shard: Shard, /) -> None:
        """Leave the shard's result. Raises ShardError for a shard that is to blame itself."""
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A stage that can begin with a shard while it is at work on the one before."""

    def expect(self, shard: Shard) -> None:
        """Told before each shard which one comes after it."""
        ...


Outcome: TypeAlias = tuple[Shard, ShardError | None]
"""A shard with its error, None if its result is there now."""


def run(make_stage: Callable[[], Work], shards: Sequence[Shard]) -> Iterator[Outcome]:
    """Yield what became of each shard, in their order.

    `make_stage` is called once, so that what it loads serves all shards. Only ShardError is survived: anything else (a
    full disk, a wrong model) would fail the next shard too. The next run tries a quarantined shard again, because
    nothing is there under its key.
    """
    stage = make_stage()
    for shard, following in zip_longest(shards, shards[1:]):
        if following and isinstance(stage, LooksAhead):
            stage.expect(following)
        yield shard, _tried(stage, shard)


def _tried(stage: Work, shard: Shard) -> ShardError | None:
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
    """As `run`, by a worker process for each device, as `CUDA_VISIBLE_DEVICES` names it; with one device, right here.

    Shards come as they are finished. `make_stage` is pickled; each worker calls it once. A worker sees no device but
    its own, and has its share of the processors. If one fails, no new shard is begun, and its error is raised.
    """
    if len(devices) < 2 or len(shards) < 2:
        yield from run(make_stage, shards)
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with context.Manager() as manager, ProcessPoolExecutor(len(devices), mp_context=context) as pool:
        finished, halted = manager.Queue(), manager.Event()
        running = {
            pool.submit(_work, make_stage, shards[place :: len(devices)], device, place, len(devices), finished, halted)
            for place, device in enumerate(devices)
        }
        try:
            while running:
                done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
                while not finished.empty():
                    yield finished.get()
                for worker in done:
                    worker.result()
        finally:
            halted.set()


def _work(
    make_stage: Callable[[], Work],
    shards: Sequence[Shard],
    device: str,
    place: int,
    workers: int,
    finished: Any,
    halted: Any,
) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = device
    if hasattr(os, "sched_setaffinity") and (own := sorted(os.sched_getaffinity(0))[place::workers]):
        os.sched_setaffinity(0, own)
    for outcome in run(make_stage, shards):
        finished.put(outcome)
        if halted.is_set():
            return
