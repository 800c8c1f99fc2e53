"""The tars that `shards` of [pairs] names."""

import glob
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pipeline.settings.pictures import fixed_part

KEYS = ("key", "source_uid")
"""Columns that every list of shards has: the key of a sample, and the `uid` that its maker gave it (DataComp)."""

_MOST = 1_000_000
"""Names that braces may make."""


def list_tars(texts: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    """The absolute paths of the tars, sorted, each once. Raises ValueError for a text that names none.

    A text is a file, a folder, a glob, or has braces as webdataset writes them: `{00000..01242}`, `{train,val}`.
    """
    found = {path for text in texts for path in _expand(text, folder)}
    if not found:
        raise ValueError("name at least one tar")
    for path in sorted(found):
        if not path.endswith(".tar"):
            what = "a compressed tar: unpack it to a .tar" if re.search(r"\.(tgz|tar\.\w+)$", path) else "no .tar"
            raise ValueError(f"{path} is {what}, whose members can be read singly")
    return tuple(sorted(found))


def _expand(text: str, folder: Path) -> list[str]:
    if text.startswith("file:"):
        text = url2pathname(urlsplit(text).path)
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) or "::" in text:
        raise ValueError(f"{text} is not read, only tars on this machine: copy them, and name the folder")
    base = fixed_part(text, folder)
    path = Path(folder, Path(text).expanduser())
    if path.is_dir():
        return _inside(base)
    if path.exists():
        return [str(base / path.resolve().name)]
    rest = Path(text).expanduser().parts[_fixed_parts(text) :]
    return list(_named("/".join(rest), base)) if rest else [_there(base)]


def _fixed_parts(text: str) -> int:
    parts = Path(text).expanduser().parts
    return next((place for place, part in enumerate(parts) if re.search(r"[*?\[{]", part)), len(parts))


def _inside(folder: Path) -> list[str]:
    """The tars in a folder and below. Names that begin with a dot or an underscore are left out."""
    found = []
    for home, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        found += [str(Path(home, name)) for name in names if name.endswith(".tar") and not name.startswith((".", "_"))]
    if not found:
        raise ValueError(f"the folder {folder} has no .tar")
    return found


def _named(pattern: str, base: Path) -> Iterator[str]:
    """The files that a pattern names below a folder."""
    from braceexpand import braceexpand

    try:
        names = list(islice(braceexpand(pattern), _MOST + 1))
    except ValueError:
        raise ValueError(f"the braces of {pattern} do not close") from None
    if len(names) > _MOST:
        raise ValueError(f"{pattern} names more than {_MOST:,} tars")
    lost = []
    for name in names:
        if glob.has_magic(name):
            matches = glob.glob(name, root_dir=base, recursive=True)  # noqa: PTH207
            if not matches:
                raise ValueError(f"no file matches {base / name}")
            yield from (str(base / match) for match in matches if (base / match).is_file())
        elif (base / name).is_file():
            yield str(base / name)
        else:
            lost.append(name)
    if lost:
        first = f"there is no file {base / lost[0]}"
        raise ValueError(first if len(names) == 1 else f"{first}: {len(lost):,} of {len(names):,} are missing")


def _there(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return str(path)
