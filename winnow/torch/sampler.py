"""The order of an epoch for a dataset of which any pair can be read."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from training.data import copies
from winnow.torch import ranks
from winnow.torch.draws import PLACES, draws
from winnow.torch.epochs import EpochNumber
from winnow.torch.order import Share
from winnow.torch.selection import Numbers
from winnow.torch.tars import integers


class PairSampler(Sampler[int]):
    """Indices of a dataset in an order that depends only on the seed and the epoch, split over ranks.

    Make one with `Pairs.sampler`. Ranks take turns, as with torch's DistributedSampler, so that the batches that they
    see at the same time follow each other: no two of them have copies of a pair, as far as there are enough.
    """

    def __init__(self, counts: Callable[[], Numbers], epoch: EpochNumber, seed: int, share: Share) -> None:
        """`counts` gives how often each pair occurs in the present epoch, int64 [pairs]: its indices are together."""
        self._counts, self._epoch, self._seed, self._share = counts, epoch, seed, share

    def set_epoch(self, epoch: int) -> None:
        """Take another order, from the next iterator on. The same as `set_epoch` of the dataset."""
        self._epoch.set(epoch)

    def __len__(self) -> int:
        share = ranks.present(self._share)
        return len(range(share.rank, share.of_all(int(self._counts().sum())), share.world))

    def __iter__(self) -> Iterator[int]:
        share, counts = ranks.present(self._share), self._counts()
        total = int(counts.sum())
        drawn = draws(np.arange(total, dtype=np.uint64), PLACES, self._seed, self._epoch.get())
        order = np.resize(np.argsort(drawn, kind="stable"), share.of_all(total))
        pairs = np.repeat(np.arange(len(counts)), counts)[order]
        places = np.argsort(copies.apart(pairs, share.batch_size * share.world), kind="stable")
        order[places] = np.sort(order)  # indices of a pair are together, so that sorting groups both alike
        return integers(order[share.rank :: share.world])
