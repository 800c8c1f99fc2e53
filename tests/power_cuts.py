"""What a power cut leaves: a model of what a file system promises, and of no more.

The bytes of a file are safe up to their last fsync, the names in a folder as they were at the folder's last fsync.
"""

import os
from collections.abc import Callable
from pathlib import Path

FOLDER = 0
"""In place of the number of a file."""


class Disk:
    """A folder that was safe as `before`, and what the calls of a trace of `disk_faults.c` have made of it by `now`."""

    def __init__(self, before: Path, now: Path, trace: Path) -> None:
        self._top = now
        self._now: dict[str, int] = {}
        self._before: dict[int, bytes] = {}
        self._safe_bytes: dict[int, int] = {}
        for number, (path, content) in enumerate(read(before).items(), 1):
            self._now[path] = FOLDER if content is None else number
            if content is not None:
                self._before[number], self._safe_bytes[number] = content, len(content)
        folders = ["", *(path for path, number in self._now.items() if number == FOLDER)]
        self._safe_names = {each: self._names(each) for each in folders}
        self._number = len(self._now)
        for line in trace.read_text().splitlines():
            call, path, to, size = line.split("\t")
            self._replay(call, path, to, int(size))

    def _names(self, folder: str) -> dict[str, int]:
        """What a program sees there."""
        return {os.path.basename(path): each for path, each in self._now.items() if os.path.dirname(path) == folder}

    def _replay(self, call: str, path: str, to: str, size: int) -> None:
        match call:
            case "create" | "empty":
                self._create(path, call == "empty")
            case "folder":
                self._now.setdefault(path, FOLDER)
            case "link" if path in self._now:
                self._now.setdefault(to, self._now[path])
            case "rename" if path in self._now:
                self._now[to] = self._now.pop(path)
            case "remove":
                self._now.pop(path, None)
            case "sync" if self._now.get(path, FOLDER) == FOLDER:
                self._safe_names[path] = self._names(path)
            case "sync":
                self._safe_bytes[self._now[path]] = size

    def _create(self, path: str, empty: bool) -> None:
        if path not in self._now:
            self._number += 1
            self._now[path] = self._number
        elif not empty:
            return
        self._safe_bytes[self._now[path]] = 0
        self._before.pop(self._now[path], None)

    def left(self, names: Callable[[], bool], data: Callable[[], bool]) -> dict[str, bytes | None]:
        """Paths and contents, None for a folder. `names` and `data` say of each thing not synced if it survives."""
        found: dict[str, bytes | None] = {}
        folders = [""]
        for folder in folders:
            now, safe = self._names(folder), self._safe_names.get(folder, {})
            for name in sorted(now.keys() | safe.keys()):
                number = (now if now.get(name) == safe.get(name) or names() else safe).get(name)
                path = os.path.join(folder, name)
                if number == FOLDER:
                    folders.append(path)
                    found[path] = None
                elif number is not None:
                    whole = self._content(number)
                    safe_bytes = self._safe_bytes[number]
                    found[path] = whole if len(whole) <= safe_bytes or data() else whole[:safe_bytes]
        return found

    def _content(self, number: int) -> bytes:
        """Of a file that was removed since then and was new, nothing is known: only temporary ones are."""
        if number in self._before:
            return self._before[number]
        paths = [self._top / path for path, each in self._now.items() if each == number]
        return paths[0].read_bytes() if paths and paths[0].exists() else b""


def read(folder: Path) -> dict[str, bytes | None]:
    """Paths and contents, None for a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in paths}


def laid(left: dict[str, bytes | None], folder: Path) -> None:
    """The reverse of `read`."""
    folder.mkdir(parents=True)
    for path, content in left.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
