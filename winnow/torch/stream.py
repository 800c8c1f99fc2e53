"""Pairs in a stream that reads each tar from its beginning to its end."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.errors import CompareError
from training.data import copies
from winnow.torch import ranks
from winnow.torch.epochs import EpochNumber
from winnow.torch.items import Item, Items
from winnow.torch.order import Epoch, Share
from winnow.torch.tars import Pictures, integers


@dataclass(frozen=True)
class Settings:
    """What decides the order of a stream. Rank and world are those of torch.distributed if `world` is 0.

    `pairs` is the digest of the selection.
    """

    manifest: str
    pairs: str
    seed: int
    shuffle: bool
    buffer: int
    share: Share


class PairStream(IterableDataset[Item]):
    """Items in an order that depends only on the seed and the epoch, split over ranks and over workers of a loader.

    Make one with `Pairs.stream`. Iterators have `state_dict` and `load_state_dict`, as torchdata's StatefulDataLoader
    expects. `len` is the number of pairs of this rank in this epoch.
    """

    def __init__(self, items: Items, pictures: Pictures, settings: Settings) -> None:
        self._items, self._pictures, self._settings = items, pictures, settings
        self._epoch = EpochNumber()

    def set_epoch(self, epoch: int) -> None:
        """Take another order, from the next iterator on. Without it, each epoch has the same one."""
        self._epoch.set(epoch)

    def __len__(self) -> int:
        start, stop = self._share().of_rank(self.order(self._epoch.get()).total)
        return stop - start

    def __iter__(self) -> "Reading":
        return Reading(self, self._epoch.get(), self._share_of_worker())

    def order(self, epoch: int) -> Epoch:
        """The order of an epoch, of all ranks."""
        settings, selection = self._settings, self._items.selection
        counts = selection.counts(settings.seed, epoch)
        return Epoch(selection, counts, settings.seed, epoch, settings.shuffle, settings.buffer)

    def read(self, epoch: int, share: Share, done: int) -> Iterator[Item]:
        """The items of one worker in an epoch, without the first `done` ones. Raises StorageError."""
        order, selection = self.order(epoch), self._items.selection
        start, stop = share.of_worker(order.total)
        arrivals = order.arrivals(start, stop)
        rows = order.departures(arrivals, start)
        if order.counts is not None and order.shuffle:
            rows = copies.apart(rows, share.batch_size)
        rows = rows[done:]
        shards = selection.shards[selection.pictures[arrivals]]
        shards = shards[np.sort(np.unique(shards, return_index=True)[1])]
        pictures = self._pictures.read_in_order(selection.pictures[rows].astype(np.int64), shards)
        for row, jpeg in zip(integers(rows), pictures, strict=True):
            yield self._items.make(row, jpeg)

    def identity(self, share: Share) -> Mapping[str, Any]:
        """What must be the same where a worker resumes."""
        settings: dict[str, Any] = asdict(replace(self._settings, share=share))
        parts: dict[str, Any] = settings.pop("share")
        return settings | parts

    def _share(self) -> Share:
        return ranks.present(self._settings.share)

    def _share_of_worker(self) -> Share:
        worker = get_worker_info()
        return replace(self._share(), worker=worker.id, workers=worker.num_workers) if worker else self._share()

    def __getstate__(self) -> dict[str, Any]:
        """A spawned worker knows nothing of torch.distributed: the rank is that of the process that starts it."""
        return self.__dict__ | {"_settings": replace(self._settings, share=self._share())}


class Reading(Iterator[Item]):
    """An iterator over a stream. Its state is the epoch and how many items were read."""

    def __init__(self, stream: PairStream, epoch: int, share: Share) -> None:
        self._stream, self._share = stream, share
        self._begin(epoch, 0)

    def __next__(self) -> Item:
        item = next(self._items)
        self._done += 1
        return item

    def state_dict(self) -> dict[str, Any]:
        """The place in the stream, and what the stream is."""
        return {"epoch": self._epoch, "done": self._done, "of": dict(self._stream.identity(self._share))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises CompareError for the state of another stream."""
        here = self._stream.identity(self._share)
        there = state.get("of", {})
        other = [name for name, value in here.items() if there.get(name) != value]
        if other:
            was = ", ".join(f"{name} {there.get(name)!r}, here {here[name]!r}" for name in other)
            raise CompareError(f"the state is of another stream: it has {was}")
        self._begin(state["epoch"], state["done"])

    def _begin(self, epoch: int, done: int) -> None:
        self._epoch, self._done = epoch, done
        self._items = self._stream.read(epoch, self._share, done)
