"""Target pictures, examples of the tasks that a model is trained for, as embeddings of the pool's own model."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.images import picture_sets
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import NORM, WINDOW, Spec

if TYPE_CHECKING:
    from pipeline.models.clip import Clip

VECTORS = ".npy"
"""The ending of a file of embeddings."""


def check(path: Path, name: str, of: Spec) -> None:
    """Raises ModelError if there is no target picture, or if `of`, the scorer `name`, cannot encode pictures."""
    if path.suffix != VECTORS and not isinstance(of, ClipSpec):
        raise ModelError(
            f"{name!r} is of kind {of.kind!r} and encodes no pictures: "
            f"give targets as {VECTORS}, embeddings of {of.encoder}"
        )
    if path.suffix == VECTORS:
        _check_shape(path, _open(path, "r"))
    elif picture_sets.is_empty(path):
        raise ModelError(f"there is no picture in {path}, which targets means")


def embed(path: Path, of: Callable[[], Any] | None) -> npt.NDArray[np.float32]:
    """The embeddings of all targets: float32 [targets, dim], L2-normalised. `of` returns the loaded CLIP.

    `of` is called only for pictures. Raises ModelError for a broken picture, and for a file that holds no embeddings.
    """
    if path.suffix == VECTORS:
        return _read(path)
    assert of is not None
    return encode(path, picture_sets.read(path), of())


def check_width(vectors: npt.NDArray[np.float32], dim: int) -> None:
    """Raises ModelError unless the targets have `dim` numbers each, as the embeddings."""
    if vectors.shape[1] != dim:
        raise ModelError(
            f"the targets have {vectors.shape[1]} numbers each, and the embeddings {dim}: use targets of the same model"
        )


def _read(path: Path) -> npt.NDArray[np.float32]:
    stored = _open(path, None)
    _check_shape(path, stored)
    vectors = stored.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    if not (np.abs(norms - 1) <= NORM).all():
        raise ModelError(
            f"{path}: the embeddings have norms {norms.min():.3g} to {norms.max():.3g}, not 1: normalise them"
        )
    found: npt.NDArray[np.float32] = vectors
    return found


def _open(path: Path, mode: Literal["r"] | None) -> npt.NDArray[Any]:
    """The array of a .npy file, mapped into memory with the mode "r". Raises ModelError."""
    try:
        found: npt.NDArray[Any] = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ModelError(f"{path} is no .npy file: {error}") from None
    return found


def _check_shape(path: Path, stored: npt.NDArray[Any]) -> None:
    if stored.ndim != 2 or not len(stored) or stored.dtype.kind != "f":
        raise ModelError(f"{path} holds {stored.dtype} {stored.shape}: a float array [targets, dim] is needed")


def encode(path: Path, pictures: Iterable[tuple[str, bytes]], clip: "Clip") -> npt.NDArray[np.float32]:
    """The embeddings of pictures, names and bytes, of a set: float32 [pictures, dim], L2-normalised.

    Raises ModelError for a broken picture, and if there is none.
    """
    held: list[npt.NDArray[np.uint8]] = []
    parts = []
    for name, content in pictures:
        picture = picture_sets.decode(path, name, content)  # a broken picture is reported before it is encoded
        held.append(clip.prepare(picture))
        if len(held) == WINDOW:
            parts.append(clip.encode_pictures(held))
            held = []
    if held:
        parts.append(clip.encode_pictures(held))
    if not parts:
        raise ModelError(f"there is no picture in {path}, which targets means")
    return np.concatenate(parts)
