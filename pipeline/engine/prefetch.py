"""Prefetching: pictures are read and decoded while a model works on the ones before."""

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetched(Generic[T]):
    """The items of an iterator, once each: `thread` makes the next item while the caller works on the current one.

    The first item is started at once, and at most one is ahead, which bounds memory. An error is raised in place of its
    item.
    """

    def __init__(self, items: Iterator[T], thread: Executor) -> None:
        self._items, self._thread = items, thread
        self._next = thread.submit(next, items, None)

    def __iter__(self) -> Iterator[T]:
        while (item := self._next.result()) is not None:
            self._next = self._thread.submit(next, self._items, None)
            yield item
