"""A stage over shards in actors of Ray. Only shards and errors travel; results go from the actors to the storage.

Ray starts an actor again when its process or its node is lost, where it finds room. The shards that the actor had go to
other actors at once: a node may never come back, and a stage is safe to run twice.
"""

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.engine.local import Outcome, Prefetching, Shards, Work, supply_of, try_twice
from pipeline.errors import ShardError, WinnowError
from pipeline.ledger.ledger import Shard

LOSSES = 3
"""Workers that may be lost with one shard before it is quarantined: it could be what ends them.

The last of them works on this shard alone, so that its neighbours are not taken for it.
"""

_POLL, _PATIENCE = 0.05, 1.0
"""Seconds between looks for new shards, and for the end of the run."""


class Worker:
    """A stage inside an actor, which works on `at_once` shards at the same time. It is loaded with the first shard.

    Each of its threads keeps the same: libraries such as torch have a pool of their own for each thread.
    """

    def __init__(self, make_stage: Callable[[], Work], at_once: int) -> None:
        self._make = make_stage
        self._stage: Work | None = None
        self._loading = threading.Lock()
        self._threads = ThreadPoolExecutor(at_once)
        self._busy = 0

    def ready(self) -> None:
        """Answered once the actor is up."""

    def work(self, shard: Shard) -> ShardError | None:
        """Store the result of a shard. Returns its error if it fails twice, and raises any other error."""
        stage: object = self._stage
        if self._busy and isinstance(stage, Prefetching):
            stage.prefetch(shard)  # it is next
        return self._threads.submit(self._run, shard).result()

    def _run(self, shard: Shard) -> ShardError | None:
        self._busy += 1
        try:
            return try_twice(self._load(), shard)
        except WinnowError as error:
            from ray.util import get_node_ip_address

            error.args = (f"{error} (on node {get_node_ip_address()})",)
            raise
        finally:
            self._busy -= 1

    def _load(self) -> Work:
        with self._loading:
            if self._stage is None:
                self._stage = self._make()
            return self._stage


@dataclass(eq=False)
class _Actor:
    """An actor, how many shards it may have and has, whether one of them is alone with it, and whether it is up."""

    handle: Any
    depth: int
    shards: int = 0
    alone: bool = False
    up: bool = False


class Pool:
    """Actors of `Worker`, each with the number of shards that it may have at a time. It gets none before it is up.

    One thread at a time calls `run`. After `stop` it raises WinnowError.
    """

    def __init__(self, stage: str, actors: Iterable[tuple[Any, int]]) -> None:
        self._stage = stage
        self._actors = [_Actor(handle, depth) for handle, depth in actors]
        self._starting: dict[Any, _Actor] = {}
        self._losses = Counter[int]()
        self._stopping, self._calling = threading.Event(), threading.Lock()
        for actor in self._actors:
            self._await(actor)

    def stop(self) -> None:
        """Kill the actors with what they do. Afterwards no other thread is inside Ray, which may be shut down."""
        import ray

        self._stopping.set()
        for actor in self._actors:
            ray.kill(actor.handle)
        with self._calling:
            pass

    def run(self, shards: Shards) -> Iterator[Outcome]:
        """The outcome of each shard, as they are finished. Raises the first error that is no ShardError."""
        supply, waiting = supply_of(shards), deque[Shard]()
        at_work: dict[Any, tuple[Shard, _Actor]] = {}
        while True:
            while actor := self._free(waiting):
                shard = waiting.popleft() if waiting else supply.take(wait=False)
                if shard is None:
                    break
                actor.shards += 1
                actor.alone = self._is_suspect(shard)
                with self._inside():
                    at_work[actor.handle.work.remote(shard)] = shard, actor
            if not at_work and not waiting:
                shard = supply.take()
                if shard is None:
                    return
                waiting.append(shard)
            elif (finished := self._wait(at_work, waiting)) is not None:
                shard, actor = at_work.pop(finished)
                actor.shards -= 1
                actor.alone = False
                outcome = self._outcome(finished, shard, actor)
                if outcome is None:
                    waiting.append(shard)
                else:
                    yield outcome

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """A call of Ray. Raises WinnowError after `stop`."""
        with self._calling:
            if self._stopping.is_set():
                raise WinnowError("the run was stopped; run the same command to resume")
            yield

    def _is_suspect(self, shard: Shard) -> bool:
        return self._losses[shard.number] == LOSSES - 1

    def _free(self, waiting: Sequence[Shard]) -> _Actor | None:
        """The actor that is up and has the fewest shards, if it can have the next one, which may need it alone."""
        alone = bool(waiting) and self._is_suspect(waiting[0])
        free = [
            each for each in self._actors if each.up and not each.alone and each.shards < (1 if alone else each.depth)
        ]
        return min(free, key=lambda actor: actor.shards / actor.depth, default=None)

    def _wait(self, at_work: Mapping[Any, object], waiting: Sequence[Shard]) -> Any:
        """A call that has ended; None if there is none yet, or if instead an actor has come up."""
        import ray

        patience = _POLL if self._free(waiting) else _PATIENCE
        with self._inside():
            for ended in ray.wait([*at_work, *self._starting], timeout=patience)[0]:
                if ended in at_work:
                    return ended
                self._arrive(ended)
        return None

    def _outcome(self, call: Any, shard: Shard, actor: _Actor) -> Outcome | None:
        """The outcome of a call; None if the actor was lost, and another one must do it."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            with self._inside():
                return shard, ray.get(call)
        except RayTaskError as error:
            raise error.cause or error from None
        except RayError:
            if actor.up:
                self._await(actor)
            self._losses[shard.number] += 1
            if self._losses[shard.number] < LOSSES:
                return None
            return shard, ShardError(self._stage, shard.number, f"{LOSSES} workers were lost while they had it")

    def _await(self, actor: _Actor) -> None:
        """Give it no shard before it answers, which Ray retries until the actor is started again."""
        actor.up = False
        self._starting[actor.handle.ready.options(max_task_retries=-1).remote()] = actor

    def _arrive(self, answer: Any) -> None:
        """An actor is up. Raises WinnowError if it can never be."""
        import ray
        from ray.exceptions import RayError

        actor = self._starting.pop(answer)
        try:
            ray.get(answer)
        except RayError as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise WinnowError(f"a worker for {self._stage} cannot be started on the Ray cluster: {reason}") from None
        actor.up = True
