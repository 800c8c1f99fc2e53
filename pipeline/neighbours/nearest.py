"""The nearest of many unit vectors to one query, exactly: the inner products with all of them, block by block.

Two passes make the result exact. The first computes in float32 on all cores, with errors that depend on where a row
stands in its block. The second computes the products of the few best rows again, in float64 and each row alone, so that
equal vectors are equally near. tests/benchmarks/README.md compares the time with that of an index.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pipeline.models.device import one_thread

Vectors = npt.NDArray[np.float16]
Places = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]

ROWS = 4096
"""Vectors of a block that a worker holds as float32 at once."""


def inner_products(load: Callable[[int], Vectors], blocks: int, query: Floats, workers: int = 1) -> list[Floats]:
    """The inner products of the query [dim] with the rows of each block: float32 [rows], -inf for a row of NaN.

    `load` is called in `workers` threads, with each number below `blocks`, and returns a block [rows, dim], which may
    have gaps between its rows. As many blocks as workers are in memory. Meanwhile an operation of torch uses one core.
    """
    import torch

    against, own = torch.from_numpy(query), threading.local()

    def begin() -> None:
        own.wide = torch.empty(ROWS, len(query))  # memory that is new for every block costs more than the products

    def products(number: int) -> Floats:
        block = torch.from_numpy(load(number))
        found = torch.empty(len(block))
        for start in range(0, len(block), ROWS):
            rows = block[start : start + ROWS]
            torch.mv(own.wide[: len(rows)].copy_(rows), against, out=found[start : start + ROWS])
        return torch.nan_to_num_(found, nan=-torch.inf).numpy()

    with one_thread(), ThreadPoolExecutor(workers, "products", begin) as pool:
        return list(pool.map(products, range(blocks)))


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
