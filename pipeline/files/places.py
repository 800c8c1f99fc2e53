"""Where the bytes of a local picture are: a file, a member of a tar, or a row of a table, in the base folder of a list.

`photos/a.jpg`, `00012.tar!000120034` and `train-0.parquet!17` are places (`pipeline.schema.PLACE`). They come from
lists and tars of strangers, so that none may lead out of the base folder.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

from pipeline.failure import RowError

_INSIDE = re.compile(r"(.*?\.(?:tar|parquet|arrow|feather|ipc))!(.*)", re.IGNORECASE | re.DOTALL)
"""A container and what is inside it. A file may have a ! in its name."""

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def split(place: str) -> tuple[str, str | None]:
    """The file, and the name of a member or the number of a row inside it; None for a file that is the picture."""
    found = _INSIDE.fullmatch(place)
    return (found[1], found[2]) if found else (place, None)


def check_name(name: str) -> None:
    """Raises RowError for a name that is absolute, has a part `..`, or has a NUL."""
    if name.startswith("/") or _DRIVE.match(name):
        raise RowError("outside_folder", f"{name!r} is an absolute path")
    if ".." in re.split(r"[/\\]", name):
        raise RowError("outside_folder", f"{name!r} leads out of its folder")
    if "\0" in name:
        raise RowError("outside_folder", "the name has a NUL")


def join(base: Path, file: str, symlinks: bool = False) -> Path:
    """The path of a file in the base folder. With `symlinks`, links may lead out of it. Raises RowError."""
    check_name(file)
    path = base / file
    if not symlinks and not _is_below(base, path):
        raise RowError("outside_folder", f"{file!r} is a link out of its folder; set symlinks = true to follow it")
    return path


@lru_cache(64)
def _real(base: Path) -> str:
    return os.path.realpath(base)


def _is_below(base: Path, path: Path) -> bool:
    try:
        real, home = os.path.realpath(path), _real(base)
    except (OSError, ValueError):
        return False
    return real == home or real.startswith(home.rstrip("/") + "/")
