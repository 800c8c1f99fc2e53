"""What a step of a dual encoder reads of its pairs: pictures decoded ahead, or stored features, and captions."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import StorageError
from pipeline.store.tarfiles import Tars
from training.data import features
from training.data.decoding import decode_version
from training.data.order import Drawn
from training.data.pictures import Place, stored

if TYPE_CHECKING:
    import torch


class Stream(Protocol):
    """One side of the pairs, the pictures or the captions."""

    def read(self, drawn: Iterable[Drawn]) -> Iterator["torch.Tensor"]:
        """The input of the tower, or of the head of a frozen one, for each step: [batch, ...]."""


@dataclass(frozen=True)
class Stored:
    """Rows that are in memory: `values` [distinct, ...], of which `place` [pairs, versions] tells those of each pair.

    Features of a frozen tower, float16 [distinct, ...], tokens, int32 [distinct, length], or prepared pictures, uint8
    [distinct, height, width, 3].
    """

    values: npt.NDArray[Any]
    place: npt.NDArray[np.int64]

    def read(self, drawn: Iterable[Drawn]) -> Iterator["torch.Tensor"]:
        """Features as float32, tokens as int64, pictures as they are."""
        import torch

        for step in drawn:
            versions = step.versions if self.place.shape[1] > 1 else 0
            chosen = torch.from_numpy(self.values[self.place[step.rows, versions]])
            if chosen.dtype == torch.uint8:
                yield chosen
            else:
                yield chosen.float() if chosen.is_floating_point() else chosen.long()


class _Version(NamedTuple):
    """A stored picture, and which version of it is seen; 0 is the plain one."""

    picture: features.NamedPicture
    number: int


@dataclass(frozen=True)
class Pictures:
    """Stored pictures by the `places` of the pairs, decoded by threads while the step before computes.

    At most two windows of `features.WINDOW` pictures and one batch are in memory. Versions after the plain one are
    augmented by `policy`.
    """

    tars: Tars
    places: Sequence[Place]
    prepare: Callable[[Image.Image], npt.NDArray[np.uint8]]
    resize: features.Resize
    policy: str = ""

    def read(self, drawn: Iterable[Drawn]) -> Iterator["torch.Tensor"]:
        """uint8 [batch, height, width, 3]. Raises StorageError for a picture that is missing or cannot be decoded."""
        import torch

        coming = ((str(step.step), partial(self._pictures, step.rows, step.versions)) for step in drawn)
        with features.decode(coming, self._prepared) as windows:
            for _, group in groupby(windows, itemgetter(0)):
                yield torch.from_numpy(np.stack([picture for _, window in group for picture in window]))

    def _pictures(self, rows: npt.NDArray[np.int64], versions: npt.NDArray[np.int64]) -> Iterator[_Version]:
        pictures = stored(self.tars, [self.places[row] for row in rows])
        return map(_Version, pictures, versions.tolist())

    def _prepared(self, version: _Version) -> npt.NDArray[np.uint8]:
        (name, content), number = version
        try:
            pixels = decode_version(content, self.policy, number)
            return self.prepare(self.resize(pixels))
        except Exception as error:  # Pillow raises nearly anything on a broken file
            raise StorageError(f"{name} cannot be decoded: {error!r}") from error
