"""A region that a person draws on the map, as centres and a least similarity: a rule that also holds for new pictures.

The centres are those of k-means over the pictures inside. A picture is near the region if its cosine with one of them
reaches the threshold. That cosine is the column `inf` of a scorer of kind norm_sim whose targets are the centres.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.neighbours.cosine import normalize
from pipeline.neighbours.kmeans import k_means

COUNTS = (1, 2, 4, 8, 16)
"""Numbers of centres that are tried."""

WORTH = 0.01
"""What twice as many centres must add to F1, at least."""

Floats = npt.NDArray[np.float32]
Vectors = npt.NDArray[np.float16] | Floats


@dataclass(frozen=True)
class Region:
    """`centres` [count, dim] of length 1; the least similarity to one of them; and how well that rule is the drawing.

    `recall` is the share of the pictures inside that the rule finds, `precision` the share of what it finds that is
    inside, both on the map, 0 to 1.
    """

    centres: Floats
    threshold: float
    recall: float
    precision: float

    @property
    def agreement(self) -> float:
        """F1: the harmonic mean of both."""
        both = self.recall + self.precision
        return 2 * self.recall * self.precision / both if both else 0.0


def fit(vectors: Vectors, inside: npt.NDArray[np.bool_]) -> Region:
    """The rule for the pictures `inside`, of all pictures of the map, [n, dim]. At least one must be inside."""
    wide = normalize(vectors)
    best: Region | None = None
    for count in COUNTS:
        if count > np.count_nonzero(inside):
            break
        centres = normalize(k_means(wide[inside], count, lambda done, total: None))
        region = _with_threshold(centres, (wide @ centres.T).max(axis=1), inside)
        if best is None or region.agreement > best.agreement + WORTH:
            best = region
    assert best is not None
    return best


def _with_threshold(centres: Floats, similarity: Floats, inside: npt.NDArray[np.bool_]) -> Region:
    """The region with the threshold of the best F1, rounded down to four digits."""
    order = np.argsort(-similarity, kind="stable")
    found = np.cumsum(inside[order])
    recall, precision = found / found[-1], found / np.arange(1, len(order) + 1)
    place = int(np.argmax(recall * precision / (recall + precision + 1e-12)))
    threshold = math.floor(float(similarity[order[place]]) * 1e4) / 1e4
    near = similarity >= threshold
    both = np.count_nonzero(near & inside)
    return Region(centres, threshold, both / int(found[-1]), both / max(int(np.count_nonzero(near)), 1))
