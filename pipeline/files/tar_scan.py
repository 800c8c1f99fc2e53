"""Walks over the headers of a tar that somebody else wrote. Members before a break count, those after it are lost."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from pipeline.failure import RowError

_BLOCK = 512


@dataclass(frozen=True)
class Member:
    """A regular file of a tar: its name, and the place of its content in bytes."""

    name: str
    offset: int
    size: int


def scan(file: IO[bytes]) -> Iterator[Member]:
    """The regular files of a tar, in order. Only headers are read.

    Raises RowError (broken_tar) at the first byte that is no tar: of a file that was cut short, or is none.
    """
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    at = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="surrogateescape") as tar:
            for member in tar:
                at = tar.offset
                if member.offset_data + member.size > end:
                    raise _broken(member.offset)
                if member.isreg() and not member.issparse():
                    yield Member(_text(member.name), member.offset_data, member.size)
                tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            at = tar.offset
    except (tarfile.TarError, ValueError, OverflowError, EOFError):
        raise _broken(at) from None
    file.seek(at)
    if file.read(_BLOCK) != bytes(_BLOCK):
        raise _broken(at)


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _broken(at: int) -> RowError:
    return RowError("broken_tar", f"it is no tar from byte {at} on")
