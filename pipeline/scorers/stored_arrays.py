"""Arrays of embeddings on disk, mapped into memory: .npy files, and members of .npz files.

`numpy.savez` stores arrays as they are. Those of `numpy.savez_compressed` are unpacked into a temporary file first.
"""

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError

_LOCAL_HEADER = 30
"""Bytes of a zip's header before the name of a member and its extra field; the lengths of both are its last four."""

_BLOCK = 1 << 20


def mapped(path: Path, name: str | None) -> npt.NDArray[Any]:
    """Floats [rows, numbers]: a .npy file, or the array `name` of a .npz.

    Raises ModelError for a file that is none or was cut short, and for an array that is missing or is something else.
    """
    with _explained(path, name):
        if name is None:
            found: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return found
        with zipfile.ZipFile(path) as archive:
            member = _member(archive, path, name)
            if member.compress_type == zipfile.ZIP_STORED:
                with path.open("rb") as file:
                    _to_content(file, member)
                    return _map(file, path)
            with archive.open(member) as packed, tempfile.TemporaryFile() as file:
                while block := packed.read(_BLOCK):
                    file.write(block)
                file.seek(0)
                return _map(file, file)


def shape(path: Path, name: str | None) -> tuple[int, int]:
    """Rows and numbers of such an array; nothing is unpacked. Raises ModelError as `mapped` does."""
    with _explained(path, name):
        if name is None or not _is_packed(path, name):
            found = mapped(path, name)
            return _checked(found.shape, found.dtype)
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive, path, name)) as packed:
            sizes, _, kind = _header(packed)
            return _checked(sizes, kind)


def _is_packed(path: Path, name: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        return _member(archive, path, name).compress_type != zipfile.ZIP_STORED


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> zipfile.ZipInfo:
    members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
    if name not in members:
        raise ModelError(f"{path.name} has no array {name!r}; it has {', '.join(sorted(members)[:20]) or 'none'}")
    return members[name]


def _to_content(file: IO[bytes], member: zipfile.ZipInfo) -> None:
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    file.seek(int.from_bytes(header[-4:-2], "little") + int.from_bytes(header[-2:], "little"), 1)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the order is Fortran's, and type, from the beginning of a .npy file."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    sizes, fortran, kind = read(file)
    return sizes, fortran, kind


def _map(file: IO[bytes], target: Any) -> npt.NDArray[Any]:
    """The array whose .npy header begins at the position of the file."""
    sizes, fortran, kind = _header(file)
    _checked(sizes, kind)
    return np.memmap(target, kind, "r", file.tell(), sizes, "F" if fortran else "C")


def _checked(sizes: tuple[int, ...], kind: np.dtype[Any]) -> tuple[int, int]:
    """Raises ValueError for anything but floats [rows, numbers]."""
    if len(sizes) != 2 or kind.kind != "f":
        raise ValueError(f"embeddings are floats [rows, numbers], and these are {kind} {list(sizes)}")
    return sizes[0], sizes[1]


@contextlib.contextmanager
def _explained(path: Path, name: str | None) -> Iterator[None]:
    try:
        yield
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{path.name}{f', {name}' if name else ''} cannot be read as embeddings: {reason}") from None
