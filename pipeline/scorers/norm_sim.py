"""NormSim: the similarity of a picture to target pictures, examples of the tasks that a model is trained for.

Wang et al. 2024, arXiv 2405.19547: the p-norm of the cosines between the picture and all target pictures. It needs no
other pair of the pool, so it is a head: when the pool grows, existing scores stay.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.images import picture_sets
from pipeline.scorers import targets
from pipeline.scorers.spec import Columns, Head, HeadSpec, Spec
from pipeline.scorers.target_set import TargetSet

VERSION = 1


class NormSimSpec(TargetSet, HeadSpec):
    """NormSim of the image embeddings of a clip or recorded scorer, against target pictures."""

    kind: Literal["norm_sim"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """p2: the square root of the sum of squared cosines, 0 to the root of the number of targets; inf: the cosine
        with the nearest target, -1 to 1.
        """
        return {"p2": pa.float32(), "inf": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The targets; of embeddings, the test pictures, too. The model is part of the identity of `of`."""
        found = {"version": VERSION, "targets": picture_sets.digest(self.targets)}
        return {**found, **self.tested()} if self.are_vectors else found

    def check(self, of: Spec) -> None:
        """Raises ModelError if there is no target picture, if one is a test picture, or if `of` cannot encode any."""
        self.check_targets(of)

    def load(self, of: Callable[[], Any] | None = None) -> Head:
        """The scorer with its targets. Raises ModelError for a broken picture, and for a file without embeddings."""
        assert of is not None
        return NormSim(targets.embed(self.targets, of))


class NormSim:
    """Both norms, for targets [n, dim] that are L2-normalised."""

    def __init__(self, vectors: npt.NDArray[np.float32]) -> None:
        self._targets = vectors
        wide = vectors.astype(np.float64)
        self._squares = wide.T @ wide

    def score(self, embeddings: npt.NDArray[np.float32]) -> Columns:
        """The columns of `NormSimSpec`. Raises ModelError for embeddings of another width."""
        targets.check_width(self._targets, embeddings.shape[1])
        wide = embeddings.astype(np.float64)
        squares = np.einsum("nd,nd->n", wide @ self._squares, wide)
        nearest = (embeddings @ self._targets.T).max(axis=1)
        return {"p2": np.sqrt(squares).astype(np.float32), "inf": nearest}
