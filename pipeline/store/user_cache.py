"""Small JSON objects in the user's cache, which save time and may be lost at any moment."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def place(folder: str, name: str) -> Path:
    """The file of an object of this name in a folder of winnow's part of the cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "winnow" / folder / f"{name}.json"


def read(path: Path) -> dict[str, Any]:
    """The object; {} if there is none, or if it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, value: dict[str, Any]) -> None:
    """Write the object whole, if the cache can be written."""
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_text(json.dumps(value))
        part.replace(path)
