"""Embeddings that others computed, in files aligned row by row with a Parquet: those of DataComp and clip-retrieval.

DataComp's metadata has, beside each `NAME.parquet` with a column `uid`, a `NAME.npz` with the arrays `b32_img`,
`b32_txt`, `l14_img` and `l14_txt` (Gadre et al. 2023, arXiv 2304.14108; `download_upstream.py --download_npz` and
`baselines/apply_filter.py` of mlfoundations/datacomp). clip-retrieval writes `img_emb/img_emb_N.npy`,
`text_emb/text_emb_N.npy` and `metadata/metadata_N.parquet` (`clip_inference/writer.py` of rom1504/clip-retrieval).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.scorers import stored_arrays
from pipeline.store.kept_digests import digest_of

OPENED = 256
"""Files whose arrays stay mapped."""


@dataclass(frozen=True)
class Part:
    """A Parquet with keys, and the files of the embeddings of its rows, with the array's name in a .npz."""

    keys: Path
    images: tuple[Path, str | None]
    texts: tuple[Path, str | None]

    @property
    def files(self) -> Sequence[Path]:
        """The files, each once."""
        return list(dict.fromkeys((self.keys, self.images[0], self.texts[0])))


def of_datacomp(folder: Path, images: str, texts: str) -> list[Part]:
    """The parts of a folder of DataComp's metadata, with those in folders below it. Raises ModelError."""
    tables = sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith("."))
    if not tables:
        raise ModelError(f"{folder} has no .parquet: name the folder of DataComp's metadata")
    alone = [path for path in tables if not path.with_suffix(".npz").is_file()]
    if alone:
        raise ModelError(
            f"{folder}: {len(alone):,} of {len(tables):,} .parquet have no .npz of the same name beside them, "
            f"{alone[0].name} first: fetch them with download_upstream.py --download_npz"
        )
    arrays = [path.with_suffix(".npz") for path in tables]
    return [Part(table, (array, images), (array, texts)) for table, array in zip(tables, arrays, strict=True)]


def of_clip_retrieval(folder: Path) -> list[Part]:
    """The parts of an output folder of clip-retrieval. Raises ModelError if a file of one is missing."""
    metadata = _numbered(folder, "metadata", "metadata", "parquet")
    images, texts = (_numbered(folder, f"{side}_emb", f"{side}_emb", "npy") for side in ("img", "text"))
    numbers = {*metadata, *images, *texts}
    if not numbers:
        raise ModelError(f"{folder} has no img_emb/, text_emb/ and metadata/: name the output folder of clip-retrieval")
    for name, found in (("metadata", metadata), ("img_emb", images), ("text_emb", texts)):
        if lost := sorted(numbers - found.keys()):
            raise ModelError(
                f"{folder}: {name}/ lacks {len(lost):,} of {len(numbers):,} files, number {lost[0]} first: images, "
                "texts and metadata are all needed"
            )
    return [Part(metadata[each], (images[each], None), (texts[each], None)) for each in sorted(numbers, key=_order)]


def _numbered(folder: Path, inside: str, stem: str, ending: str) -> dict[str, Path]:
    pattern = re.compile(rf"{stem}_(\d+)\.{ending}", re.ASCII)
    there = sorted((folder / inside).iterdir()) if (folder / inside).is_dir() else []
    return {found[1]: path for path in there if (found := pattern.fullmatch(path.name))}


def _order(number: str) -> tuple[int, str]:
    return int(number), number


def digests(parts: Sequence[Part]) -> list[list[str]]:
    """The digests of all files, in the order in which rows are counted."""
    known: dict[Path, str] = {}
    for part in parts:
        for path in part.files:
            known[path] = digest_of(path)
    return [[known[path] for path in part.files] for part in parts]


class Embeddings:
    """The embeddings of all parts as one table of rows; only what is looked up is read."""

    def __init__(self, parts: Sequence[Part], counts: Sequence[int]) -> None:
        self._parts = parts
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._opened = lru_cache(OPENED)(self._open)
        self.dim = self._widths(counts)

    def _widths(self, counts: Sequence[int]) -> int:
        """The numbers in an embedding. Raises ModelError where an array does not fit its Parquet, or another array."""
        width: int | None = None
        for part, rows in zip(self._parts, counts, strict=True):
            for path, array in (part.images, part.texts):
                name = path.name + (f", {array}" if array else "")
                length, numbers = stored_arrays.shape(path, array)
                if length != rows:
                    raise ModelError(f"{name} has {length:,} rows and {part.keys.name} {rows:,}: they belong together")
                width = numbers if width is None else width
                if numbers != width:
                    raise ModelError(f"{name} has vectors of {numbers} numbers, and others of {width}")
        if not width:
            raise ModelError("there are no embeddings: the vectors have no numbers")
        return width

    def _open(self, number: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        part = self._parts[number]
        return stored_arrays.mapped(*part.images), stored_arrays.mapped(*part.texts)

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """float32 [rows, 2, dim], image then text, as they are in the files."""
        found = np.empty((len(rows), 2, self.dim), np.float32)
        numbers = np.searchsorted(self._starts, rows, "right") - 1
        for number in np.unique(numbers):
            here = np.flatnonzero(numbers == number)
            places = rows[here] - self._starts[number]
            for side, stored in enumerate(self._opened(int(number))):
                found[here, side] = stored[places]
        return found
