"""Groups of nodes that edges connect."""

import numpy as np
import numpy.typing as npt


def connected(nodes: int, low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For each node the number of its connected component, from 0. `low` and `high` are the ends of the edges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(low), np.int8), (low, high)), shape=(nodes, nodes))
    component: npt.NDArray[np.int64] = connected_components(edges, directed=False)[1]
    return component
