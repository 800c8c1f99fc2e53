"""Which settings of [pairs] belong to pictures that are on this machine, and the folder that their places are in."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import ValidationInfo

from pipeline.settings.fields import existing_path

HUB = "hf://"
"""How the `dataset` of [pairs] begins that is on a hub."""

LABEL = "label"
"""The column with the name of a picture's folder, where captions come from a template."""

WHERE = ("location", "shards", "folder", "dataset")
"""The keys of [pairs] that say where pairs are. A source has exactly one."""

_WITH = {
    "captions": ("folder",),
    "template": ("folder", "location", "dataset"),
    "image": ("location", "shards", "folder", "dataset"),
    "split": ("dataset",),
    "symlinks": WHERE,
}
"""Keys that need one of these beside them."""

_REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+){0,2}(@[\w./-]+)?")
"""A data set of a hub: organisation, name and revision."""

_MAGIC = re.compile(r"[*?\[{]")


def check_keys(table: Mapping[str, Any]) -> None:
    """Raises ValueError, in one line, for keys of [pairs] that do not go together."""
    given = [name for name in WHERE if table.get(name) is not None]
    if len(given) != 1:
        found = f"not {' and '.join(given)}" if given else "there is none"
        raise ValueError(f"name where the pairs are with one of {', '.join(WHERE)}: {found}")
    for name, needs in _WITH.items():
        if table.get(name) and given[0] not in needs:
            raise ValueError(f"{name} goes with {' or '.join(needs)}, not with {given[0]}")
    if given[0] == "folder" and isinstance(table.get("template"), str) and check_template(table["template"]):
        others = set(template_fields(table["template"])) - {LABEL}
        if others:
            raise ValueError(f"a folder of class folders has {{{LABEL}}} for template, no {{{min(others)}}}")
    if given[0] == "location" and table.get("template") and not table.get("image"):
        raise ValueError("template makes captions of pictures on this machine: name their column with image")
    if table.get("captions") is not None and table.get("template") is not None:
        raise ValueError("captions are in a table or made by template: remove captions or template")
    if given[0] == "folder" and table.get("image") is not None and table.get("captions") is None:
        raise ValueError("image names the column of file names in a table: name the table with captions")


def check_template(text: str) -> str:
    """The text. Raises ValueError unless it has fields in braces, all of them plain names."""
    try:
        fields = template_fields(text)
    except ValueError:
        fields = ()
    if not fields or not all(name.isidentifier() for name in fields):
        raise ValueError(
            f'{text!r} has no place for the name of a class: write {{label}}, as in "a photo of a {{label}}"'
        )
    return text


def template_fields(text: str) -> tuple[str, ...]:
    """The names in braces, each once. Raises ValueError for braces that do not close."""
    return tuple(dict.fromkeys(name for _, name, _, _ in Formatter().parse(text) if name is not None))


def check_folder(path: Path | None) -> Path | None:
    """The path. Raises ValueError if it is no folder."""
    if path is not None and not path.is_dir():
        raise ValueError(f"{path} is no folder")
    return path


def find_captions(name: str | None, info: ValidationInfo) -> str | None:
    """The absolute path of a table of captions: relative to the source file, or inside the folder of pictures."""
    if name is None:
        return None
    folders = [Path((info.context or {}).get("folder", Path())), info.data.get("folder")]
    found = {path.resolve() for each in folders if each and (path := Path(each, Path(name).expanduser())).is_file()}
    if len(found) != 1:
        what = f"there are two files {name}" if found else f"there is no file {name}"
        raise ValueError(f"{what} in {' and '.join(str(each) for each in folders if each)}: write its whole path")
    return str(found.pop())


def find_dataset(name: str | None, info: ValidationInfo) -> str | None:
    """The absolute path of a dataset, or its name on a hub. Raises ValueError for another name."""
    if name is None:
        return None
    if not name.startswith(HUB):
        return str(check_folder(existing_path(Path(name), info)))
    if not _REPOSITORY.fullmatch(name.removeprefix(HUB)):
        raise ValueError(f"{name!r} is no dataset of a hub: write hf://ORGANISATION/NAME")
    return name


def hub_cache() -> Path:
    """The folder of what Hugging Face's libraries fetched: HF_HOME, by default ~/.cache/huggingface."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("HF_HOME") or f"{cache}/huggingface").expanduser().resolve()


def common_folder(location: object, folder: Path) -> Path:
    """The folder that all files of a location are in, whichever files it matches today.

    It is the part of a path before a glob, or the folder of a file. It does not change when files are added.
    """
    texts = [location] if isinstance(location, str) else list(location) if isinstance(location, list | tuple) else []
    return Path(os.path.commonpath([fixed_part(text, folder) for text in texts])) if texts else folder


def fixed_part(text: str, folder: Path) -> Path:
    """The folder that all files of one text are in: the part before a glob or braces."""
    if text.startswith("file:"):
        text = url2pathname(urlsplit(text).path)
    path = Path(folder, Path(text).expanduser())
    if path.is_dir():
        return path.resolve()
    if path.exists():
        return path.resolve().parent
    fixed = Path(folder)
    for part in Path(text).expanduser().parts:
        if _MAGIC.search(part):
            break
        fixed /= part
    return fixed.resolve()
