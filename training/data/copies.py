"""Copies of a pair in different batches: for the batches of a training, and for those of `winnow.torch`."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

NEAR = 64
"""Batches on either side that are looked at for another place, so that few pictures are held for long."""


def apart(rows: Numbers, batch_size: int) -> Numbers:
    """The rows in an order in which no batch has a row twice, as far as other batches have a place for it.

    A row that a batch has already changes places with one of the nearest batch that lacks it, a later one first. All
    other rows stay where they are.
    """
    if batch_size < 2 or not len(rows):
        return rows
    found = rows.copy()
    last = (len(rows) - 1) // batch_size
    for place in _repeated(rows, batch_size).tolist():
        batch = place // batch_size
        mine = _of(found, batch, batch_size)
        if np.count_nonzero(mine == found[place]) < 2:  # an earlier change has moved the other one
            continue
        later, earlier = range(batch + 1, min(batch + NEAR, last) + 1), range(batch - 1, max(batch - NEAR, 0) - 1, -1)
        for other in (*later, *earlier):
            theirs = _of(found, other, batch_size)
            if (theirs == found[place]).any():
                continue
            at = place % len(theirs)
            if (mine == theirs[at]).any():
                free = np.flatnonzero(~np.isin(theirs, mine))
                if not len(free):
                    continue
                at = int(free[place % len(free)])
            at += other * batch_size
            found[place], found[at] = found[at], found[place]
            break
    return found


def _of(rows: Numbers, batch: int, batch_size: int) -> Numbers:
    return rows[batch * batch_size : (batch + 1) * batch_size]


def _repeated(rows: Numbers, batch_size: int) -> Numbers:
    """The places of rows that occurred before in their batch, ascending."""
    batches = np.arange(len(rows)) // batch_size
    order = np.lexsort((rows, batches))
    again = (np.diff(rows[order]) == 0) & (np.diff(batches[order]) == 0)
    return np.sort(order[1:][again])
