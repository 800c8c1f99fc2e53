"""Some held-out pictures, decoded to be looked at."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.errors import StorageError
from pipeline.manifest.arms import Choice
from pipeline.manifest.shown_pictures import ShownPictures
from pipeline.store.storage import Storage
from training.augment.picture_policies import Pixels
from training.data import decoding, pictures
from training.data.features import NamedPicture
from training.data.heldout import HeldOut


def pixels(storage: Storage, choice: Choice, test: HeldOut, rows: Iterable[int]) -> dict[int, Pixels]:
    """By row of the test set, the pixels of its picture. Raises StorageError for one that cannot be decoded."""
    wanted = set(rows)
    listed = _listed(test, wanted) if test.paths else _split_off(storage, choice, test)
    return {row: _decoded(*named) for row, named in listed if row in wanted}


def apart(count: int, chosen: npt.NDArray[np.int64]) -> Sequence[int]:
    """At most so many of the chosen rows, evenly spaced, so that they do not show one end of a list alone."""
    places = np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)
    rows: list[int] = chosen[places].tolist()
    return rows


def _listed(test: HeldOut, wanted: set[int]) -> Iterable[tuple[int, NamedPicture]]:
    return ((row, (str(test.paths[row]), test.paths[row].read_bytes())) for row in sorted(wanted))


def _split_off(storage: Storage, choice: Choice, test: HeldOut) -> Iterable[tuple[int, NamedPicture]]:
    return enumerate(pictures.split_off(choice, ShownPictures.safe(choice.manifest), test))


def _decoded(name: str, content: bytes) -> Pixels:
    try:
        return decoding.decode_version(content, "", 0)
    except Exception as error:  # Pillow raises nearly anything on a broken file
        raise StorageError(f"{name} cannot be decoded: {error!r}") from error
