"""Sets of pictures that a source file names: a folder, a tar, or a Parquet file."""

import io
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from pipeline.errors import ModelError
from pipeline.store import digests
from pipeline.store.digests import file_digest

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""The endings of picture files in folders and tars."""


def files(path: Path) -> Sequence[Path]:
    """The files of a set, relative to it: the pictures of a folder, by name, or the tar or Parquet itself."""
    if not path.is_dir():
        return [Path()]
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.suffix.lower() in ENDINGS)


def digest(path: Path, chosen: Sequence[Path] | None = None) -> str:
    """The digest of the names and bytes of its files, or of the `chosen` ones."""
    return digests.digest({str(file): file_digest(path / file) for file in (files(path) if chosen is None else chosen)})


def read_files(folder: Path, chosen: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the chosen pictures of a folder."""
    return ((file.as_posix(), (folder / file).read_bytes()) for file in chosen)


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each picture of a set. Raises ModelError for a file of another kind."""
    if path.is_dir():
        yield from read_files(path, files(path))
    elif path.suffix == ".tar":
        yield from _members(path)
    else:
        yield from _rows(path)


def is_empty(path: Path) -> bool:
    """Whether a set has no picture. Raises ModelError as `read` does."""
    return next(iter(read(path)), None) is None


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if Path(member.name).suffix.lower() in ENDINGS and (file := tar.extractfile(member)):
                    yield member.name, file.read()
    except tarfile.TarError:
        raise ModelError(f"{path} is no tar, or a damaged one") from None


def decode(path: Path, name: str, content: bytes) -> Image.Image:
    """A picture of a set, upright and RGB. Raises ModelError if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # Pillow raises a dozen kinds for broken files
        raise ModelError(f"{name} in {path} is no picture ({type(error).__name__}): remove or replace it") from error


def _rows(path: Path) -> Iterator[tuple[str, bytes]]:
    """Of a Parquet file. Its column `image` holds bytes, or structs of bytes and path as in Hugging Face datasets."""
    try:
        file = pq.ParquetFile(path)
        for batch in file.iter_batches(256, columns=["image"]):
            for number, value in enumerate(batch["image"].to_pylist()):
                held = value if isinstance(value, dict) else {"bytes": value}
                yield held.get("path") or f"row {number}", held["bytes"]
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise ModelError(f"{path} is no folder, no .tar, and no Parquet with a column image: {error}") from None
