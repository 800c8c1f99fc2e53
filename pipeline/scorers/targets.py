"""Target pictures, examples of the tasks that a model is trained for, as embeddings of the pool's own model."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    if not picture_sets.files(path):
        raise ModelError(f"there is no picture in {path}, which targets means")


def embed(path: Path, of: Callable[[], Any] | None) -> npt.NDArray[np.float32]:
    """The embeddings of all targets: float32 [targets, dim], L2-normalised. `of` returns the loaded CLIP.

    `of` is called only for pictures. Raises ModelError for a broken picture, and for a file that holds no embeddings.
    """
    if path.suffix == VECTORS:
        return _read(path)
    assert of is not None
    return _encode(path, of())


def check_width(vectors: npt.NDArray[np.float32], dim: int) -> None:
    """Raises ModelError unless the targets have `dim` numbers each, as the embeddings."""
    if vectors.shape[1] != dim:
        raise ModelError(
            f"the targets have {vectors.shape[1]} numbers each, and the embeddings {dim}: use targets of the same model"
        )


def _read(path: Path) -> npt.NDArray[np.float32]:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ModelError(f"{path} is no .npy file: {error}") from None
    if vectors.ndim != 2 or not len(vectors) or vectors.dtype.kind != "f":
        raise ModelError(f"{path} holds {vectors.dtype} {vectors.shape}: a float array [targets, dim] is needed")
    vectors = vectors.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    if not (np.abs(norms - 1) <= NORM).all():
        raise ModelError(
            f"{path}: the embeddings have norms {norms.min():.3g} to {norms.max():.3g}, not 1: normalise them"
        )
    found: npt.NDArray[np.float32] = vectors
    return found


def _encode(path: Path, clip: "Clip") -> npt.NDArray[np.float32]:
    held: list[npt.NDArray[np.uint8]] = []
    parts = []
    for prepared in _prepare(path, clip):
        held.append(prepared)
        if len(held) == WINDOW:
            parts.append(clip.encode_pictures(held))
            held = []
    if held:
        parts.append(clip.encode_pictures(held))
    return np.concatenate(parts)


def _prepare(path: Path, clip: "Clip") -> Iterator[npt.NDArray[np.uint8]]:
    for name, content in picture_sets.read(path):
        picture = picture_sets.decode(path, name, content)  # a broken picture is reported before it is encoded
        yield clip.prepare(picture)
