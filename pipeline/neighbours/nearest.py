"""The nearest of many unit vectors to one query, exactly: the inner products with all of them, block by block.

Two passes make the result exact. The first computes in float32 on all cores, with errors that depend on where a row
stands in its block. The second computes the products of the few best rows again, in float64 and each row alone, so that
equal vectors are equally near. tests/benchmarks/README.md compares the time with that of an index.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]

BLOCK = 4096
"""Vectors that are in memory as float32 at once."""


def inner_products(blocks: Iterable[Vectors], query: Floats) -> Iterator[Floats]:
    """The inner products of the query [dim] with the rows of each block [rows, dim]: float32 [rows], -inf for NaN.

    Blocks may be memory-mapped files, and views with gaps between rows. At most `BLOCK` rows are copied at once.
    """
    import torch

    against, copy = torch.from_numpy(query), torch.empty(BLOCK, len(query))
    for block in blocks:
        found = torch.empty(len(block))
        for start in range(0, len(block), BLOCK):
            part = torch.from_numpy(block[start : start + BLOCK])
            wide = copy[: len(part)].copy_(part)
            torch.mv(wide, against, out=found[start : start + BLOCK])
        yield torch.nan_to_num_(found, nan=-torch.inf).numpy()


def nearest(products: Floats, count: int, dim: int, exact: Callable[[Places], Exact]) -> tuple[Places, Exact]:
    """The places of the `count` largest inner products, largest first, and their exact values.

    Of equal values the lower place comes first. Places with -inf are left out, so that there may be fewer. `products`
    are those of `inner_products` for vectors of `dim` numbers; `exact` computes the products of some places in float64.
    """
    count = min(count, int(np.count_nonzero(products > -np.inf)))
    if not count:
        return np.empty(0, np.int64), np.empty(0)
    least = np.partition(products, len(products) - count)[len(products) - count]
    places = np.flatnonzero(products >= least - 2 * _error(dim))
    values = exact(places)
    order = np.lexsort((places, -values))[:count]
    return places[order], values[order]


def exact_products(vectors: Vectors, query: Floats) -> Exact:
    """The inner products of the query [dim] with vectors [rows, dim], in float64. Equal rows have equal products."""
    products: Exact = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1)
    return products


def _error(dim: int) -> float:
    """A bound of the error of a float32 inner product of two unit vectors: twice dim * 2^-24 (Higham 2002, 3.1)."""
    return dim * 2.0**-23
