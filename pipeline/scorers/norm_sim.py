"""NormSim: how near a picture is to the pictures of the tasks that the model shall be good at.

Wang et al. 2024, arXiv 2405.19547: the p-norm of the cosines between the picture and all target pictures. It needs no
other pair of the pool, so that it is a head: a pool that grows keeps what is scored.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps
from pydantic import Field

from pipeline.errors import ModelError
from pipeline.score import NORM, WINDOW, Columns, Head, HeadSpec, Spec
from pipeline.scorers import pictured
from pipeline.scorers.clip import ClipSpec
from pipeline.settings import ExistingPath

VERSION = 1
"""Raised whenever the same embeddings and targets would get another score."""

VECTORS = ".npy"
"""The ending of a file of embeddings that somebody already computed."""


class NormSimSpec(HeadSpec):
    """NormSim of the image embeddings of a clip or recorded scorer, against target pictures."""

    kind: Literal["norm_sim"]
    of: str = Field("clip", description="the scorer whose embeddings it reads")
    targets: ExistingPath = Field(
        description="pictures (a folder, a tar, or Parquet with a column image), or their embeddings as .npy [n, dim]"
    )

    def columns(self) -> Mapping[str, pa.DataType]:
        """p2: the square root of the sum of squared cosines, 0 to the root of the number of targets; inf: the cosine
        with the nearest target, -1 to 1.
        """
        return {"p2": pa.float32(), "inf": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The targets; the model is in what it reads."""
        return {"version": VERSION, "targets": pictured.digest(self.targets)}

    def check(self, of: Spec) -> None:
        """Raises ModelError for target pictures that nobody could encode, or where there is none."""
        if self.targets.suffix != VECTORS and not isinstance(of, ClipSpec):
            raise ModelError(
                f"{self.of!r} is of kind {of.kind!r} and encodes no pictures: "
                f"give targets as {VECTORS}, embeddings of {of.encoder}"
            )
        if not pictured.files(self.targets):
            raise ModelError(f"there is no picture in {self.targets}, which targets means")

    def load(self, of: Callable[[], Any] | None = None) -> Head:
        """The targets' embeddings. Raises ModelError for a target that is no picture, or vectors that are none."""
        assert of is not None
        return NormSim(_stored(self.targets) if self.targets.suffix == VECTORS else _encoded(self.targets, of()))


class Encoder(Protocol):
    """What is needed of a loaded CLIP."""

    def prepare(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """A picture as the model takes it."""
        ...

    def pictures(self, prepared: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """float32 [pictures, dim], L2-normalised."""
        ...


class NormSim:
    """Both norms, for targets [n, dim] that are L2-normalised."""

    def __init__(self, targets: npt.NDArray[np.float32]) -> None:
        self._targets = targets
        wide = targets.astype(np.float64)
        self._squares = wide.T @ wide

    def score(self, embeddings: npt.NDArray[np.float32]) -> Columns:
        """The columns of `NormSimSpec`. Raises ValueError for embeddings of another width."""
        if embeddings.shape[1] != self._targets.shape[1]:
            raise ModelError(
                f"the targets have {self._targets.shape[1]} numbers each, and the embeddings {embeddings.shape[1]}: "
                "take those of the same model"
            )
        wide = embeddings.astype(np.float64)
        squares = np.einsum("nd,nd->n", wide @ self._squares, wide)
        nearest = (embeddings @ self._targets.T).max(axis=1)
        return {"p2": np.sqrt(squares).astype(np.float32), "inf": nearest}


def _stored(path: Path) -> npt.NDArray[np.float32]:
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


def _encoded(path: Path, clip: Encoder) -> npt.NDArray[np.float32]:
    held: list[npt.NDArray[np.uint8]] = []
    parts = []
    for prepared in _prepared(path, clip):
        held.append(prepared)
        if len(held) == WINDOW:
            parts.append(clip.pictures(held))
            held = []
    return np.concatenate([*parts, *([clip.pictures(held)] if held else [])])


def _prepared(path: Path, clip: Encoder) -> Iterator[npt.NDArray[np.uint8]]:
    for name, content in pictured.contents(path):
        try:
            with Image.open(io.BytesIO(content)) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except Exception as error:  # Pillow raises a dozen kinds for broken files
            raise ModelError(f"{name} in {path} is no picture ({type(error).__name__}): remove or mend it") from error
        yield clip.prepare(upright)
