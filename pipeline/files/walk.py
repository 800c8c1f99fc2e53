"""Names of all files in a folder and below it, in blocks: a folder of ten million files is never held as a whole."""

import os
from collections.abc import Iterator
from pathlib import Path

BLOCK = 65_536
"""Names of a block."""

_LEFT_OUT = frozenset({"__macosx", "thumbs.db", "desktop.ini"})
"""What other systems put beside pictures, in lower case. Names that begin with a dot are left out, too."""


def walk(base: Path, symlinks: bool) -> Iterator[list[str]]:
    """Paths relative to `base`, with / between folders, in the order of the disk, at most `BLOCK` at a time.

    A link is a name as any other; with `symlinks` those to folders are entered, but for a folder that the link is in. A
    folder below that cannot be read is one name, so that it becomes a row. Bytes that are not UTF-8 are U+FFFD. Raises
    OSError if `base` cannot be read.
    """
    found: list[str] = []
    folders = [""]
    while folders:
        inside = folders.pop()
        try:
            entries = os.scandir(base / inside)
        except OSError:
            if not inside:
                raise
            found.append(_text(inside))
            continue
        with entries:
            for entry in entries:
                name = entry.name
                if name.startswith(".") or name.lower() in _LEFT_OUT:
                    continue
                path = f"{inside}/{name}" if inside else name
                if _is_entered(entry, symlinks):
                    folders.append(path)
                    continue
                found.append(_text(path))
                if len(found) == BLOCK:
                    yield found
                    found = []
    if found:
        yield found


def _is_entered(entry: os.DirEntry[str], symlinks: bool) -> bool:
    try:
        if not entry.is_symlink():
            return entry.is_dir()
        return symlinks and entry.is_dir() and not _is_within(os.path.realpath(entry.path), entry.path)
    except OSError:
        return False


def _is_within(folder: str, link: str) -> bool:
    """Whether the link is in the folder that it leads to, or below it."""
    return f"{os.path.realpath(os.path.dirname(link))}/".startswith(f"{folder.rstrip('/')}/")  # noqa: PTH120


def _text(path: str) -> str:
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", "replace")
    return path
