"""Shards on their way from one stage to the next."""

import threading
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from pipeline.ledger.ledger import Shard


@runtime_checkable
class Supply(Protocol):
    """Where workers take their shards from, each shard once."""

    def take(self, wait: bool = True) -> Shard | None:
        """The next shard. None if there is no more, or without `wait` if none is ready."""
        ...


class Arrivals:
    """Shards in the order in which they become ready. Any thread may add."""

    def __init__(self) -> None:
        self._ready: list[Shard] = []
        self._ended = False
        self._changed = threading.Condition()

    @classmethod
    def of(cls, shards: Iterable[Shard]) -> "Arrivals":
        """These shards, and no others."""
        made = cls()
        made._ready.extend(shards)
        made.end()
        return made

    def add(self, shard: Shard) -> None:
        """A shard is ready."""
        with self._changed:
            self._ready.append(shard)
            self._changed.notify_all()

    def end(self) -> None:
        """No more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def supply(self) -> "Supply":
        """All of them from the first on, for the workers of one stage. Another supply begins anew."""
        return _Cursor(self)

    def get(self, place: int, wait: bool) -> Shard | None:
        """The shard at a place, from 0. None if there is none, or without `wait` if it is not ready."""
        with self._changed:
            while wait and place >= len(self._ready) and not self._ended:
                self._changed.wait()
            return self._ready[place] if place < len(self._ready) else None


class _Cursor:
    """The supply of one stage."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals, self._place = arrivals, 0
        self._lock = threading.Lock()

    def take(self, wait: bool = True) -> Shard | None:
        """The next shard. None if there is no more, or without `wait` if none is ready."""
        with self._lock:
            shard = self._arrivals.get(self._place, wait)
            self._place += shard is not None
            return shard
