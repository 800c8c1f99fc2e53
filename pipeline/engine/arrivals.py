"""Shards on their way from one stage to the next."""

import threading
from collections import deque
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from pipeline.ledger.ledger import Shard


@runtime_checkable
class Supply(Protocol):
    """Where a worker takes its shards from."""

    def take(self, wait: bool = True) -> Shard | None:
        """The next shard, once. None if there is no more, or without `wait` if none is ready."""
        ...


class Arrivals:
    """Shards in the order in which they become ready. Any thread may add and take."""

    def __init__(self, shards: Iterable[Shard] = (), ended: bool = False) -> None:
        self._ready, self._seen = deque(shards), set[int]()
        self._ended = ended
        self._changed = threading.Condition()

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> "Arrivals":
        """These shards, and no others."""
        return cls(shards, ended=True)

    def add(self, shard: Shard) -> None:
        """A shard is ready. A second time it is ignored."""
        with self._changed:
            if shard.number not in self._seen:
                self._seen.add(shard.number)
                self._ready.append(shard)
                self._changed.notify()

    def end(self) -> None:
        """No more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self, wait: bool = True) -> Shard | None:
        """The next shard, once. None if there is no more, or without `wait` if none is ready."""
        with self._changed:
            while wait and not self._ready and not self._ended:
                self._changed.wait()
            return self._ready.popleft() if self._ready else None
