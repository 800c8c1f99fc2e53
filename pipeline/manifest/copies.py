"""How many pairs a recipe keeps how often."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.manifest.manifest import Manifest

_STARTS = (1, 2, 3, 4, 5, 6, 11, 21, 51, 101, 1001, 10_001)
"""The lowest number of copies of each class."""


@dataclass(frozen=True)
class CopiesClass:
    """`pairs` pairs are kept `least` to `most` times. They are `samples` samples."""

    least: int
    most: int
    pairs: int
    samples: int

    @property
    def label(self) -> str:
        """The numbers of copies, such as "6 to 10"."""
        return f"{self.least:,}" if self.least == self.most else f"{self.least:,} to {self.most:,}"


def count(chosen: pa.Table) -> int:
    """The number of samples of a table of `Manifest.select`: each pair as often as it is kept."""
    return int(chosen["copies"].to_numpy().sum(dtype=np.int64)) if "copies" in chosen.column_names else len(chosen)


def remarks(manifest: Manifest) -> list[str]:
    """A line on the number of samples, of a recipe that keeps some pairs more than once."""
    if not manifest.document.inputs.recipe.repeats:
        return []
    samples = count(manifest.select())
    return [f"the recipe keeps some pairs more than once: {samples:,} samples of {manifest.counts.kept:,} pairs"]


def histogram(copies: npt.NDArray[np.uint16], pool: int) -> list[CopiesClass]:
    """The kept pairs by their copies, from 0 on, without empty classes. `pool` is the number of downloaded pairs."""
    found = [CopiesClass(0, 0, pool - len(copies), 0), *_classes(copies)]
    return [each for each in found if each.pairs]


def _classes(copies: npt.NDArray[np.uint16]) -> Iterable[CopiesClass]:
    for least, following in zip(_STARTS, (*_STARTS[1:], 2**16), strict=True):
        here = copies[(copies >= least) & (copies < following)]
        yield CopiesClass(least, following - 1, len(here), int(here.sum(dtype=np.int64)))
