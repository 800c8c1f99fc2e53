"""Pictures with a right caption and wrong ones: what a model must see to tell them apart is the kind."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""RGB [height, width, 3]."""


@dataclass(frozen=True)
class Contrast:
    """A `picture` by its number, a `right` caption, and `wrong` ones.

    Contrasts of one `group` belong together: a model has understood it if all of them are right. Groups of one `draw`
    share what is shown, so that intervals are over draws.
    """

    kind: str
    picture: int
    right: str
    wrong: tuple[str, ...]
    group: int
    draw: int


@dataclass(frozen=True)
class Contrasts:
    """Contrasts, and their pictures in the order of their numbers. `digest` identifies all of it.

    `spatial` are the kinds that need the place of a thing. `protocol` says what differs from how a published list is
    measured elsewhere.
    """

    items: Sequence[Contrast]
    pictures: Callable[[], Iterator[Pixels]]
    count: int
    digest: str
    spatial: frozenset[str] = frozenset()
    protocol: str = ""
