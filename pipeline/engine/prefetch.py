"""Work that is made ahead of whoever waits for it: pictures are read and decoded while a model is at those before."""

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Things of an iterator, gone through once: `thread` makes the next one while this one is worked on.

    The first is begun at once, and at most one is ahead, so that memory does not grow. An error comes where its thing
    would.
    """

    def __init__(self, things: Iterator[T], thread: Executor) -> None:
        self._things, self._thread = things, thread
        self._coming = thread.submit(next, things, None)

    def __iter__(self) -> Iterator[T]:
        while (thing := self._coming.result()) is not None:
            self._coming = self._thread.submit(next, self._things, None)
            yield thing
