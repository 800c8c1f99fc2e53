"""The pairs that a dual encoder trains on, batch by batch, and its loss.

A tower that is frozen reads stored features, and one that trains reads pixels or tokens. Neither pairs nor loss know
which.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from training.data.order import Drawn, Order
from training.data.streams import Stream

if TYPE_CHECKING:
    import torch


class Batch(NamedTuple):
    """The inputs of the two towers, or of their heads, [batch, ...], and the rows that they come from.

    `pictures`, int64 [batch], numbers the pictures: pairs with the same number show the same one. `captions`, int64
    [batch], numbers the texts in the same way.
    """

    drawn: Drawn
    images: "torch.Tensor"
    texts: "torch.Tensor"
    pictures: "torch.Tensor"
    captions: "torch.Tensor"


@dataclass(frozen=True)
class Data:
    """Pairs to train or to validate on: both sides, the numbers of each row's picture and text, its uid, the order."""

    images: Stream
    texts: Stream
    pictures: npt.NDArray[np.int64]
    captions: npt.NDArray[np.int64]
    uid: Callable[[int], str]
    order: Order

    def batches(self, steps: range) -> Iterator[Batch]:
        """The batches of these steps."""
        import torch

        images, texts = (side.read(self.order.steps(steps)) for side in (self.images, self.texts))
        for drawn in self.order.steps(steps):
            shown, written = (torch.from_numpy(each[drawn.rows]) for each in (self.pictures, self.captions))
            yield Batch(drawn, next(images), next(texts), shown, written)
