"""The tables of a dataset of Hugging Face's: as `save_to_disk` or `push_to_hub` wrote them, or from the hub.

The library `datasets` is needed for the hub only.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import SourceError
from pipeline.ledger.hub import choose_split, hub_tables
from pipeline.settings.locations import format_of
from pipeline.settings.pairs import Pairs

_PART = re.compile(r"(?P<split>.+?)(-\d{5}-of-\d{5})?(-[0-9a-f]{16})?\.(parquet|arrow)")
"""A file of a split as `push_to_hub` names it: train-00000-of-00012.parquet."""


def dataset_parts(pairs: Pairs) -> tuple[Pairs, ...]:
    """The settings for each table of a dataset, in its order. Raises SourceError."""
    assert pairs.dataset is not None
    files = hub_tables(pairs.dataset, pairs.split) if pairs.is_hub else tables_of(Path(pairs.dataset), pairs.split)
    return tuple(pairs.model_copy(update={"location": str(file), "format": format_of(file.name)}) for file in files)


def tables_of(folder: Path, split: str | None) -> list[Path]:
    """The tables of a split in a folder. Raises SourceError where there is none, or several splits and no name."""
    if (folder / "dataset_dict.json").is_file():
        splits = {name: folder / name for name in _json(folder / "dataset_dict.json")["splits"]}
        return _saved(splits[choose_split(splits, split, folder)])
    if (folder / "state.json").is_file():
        if split is not None and split != (known := _json(folder / "state.json").get("_split")):
            raise SourceError(f"{folder} is one split{f', {known}' if known else ''}: remove split = {split!r}")
        return _saved(folder)
    found = _configured(folder) or _named(folder)
    if not found:
        raise SourceError(
            f"{folder} is no folder of datasets: it has no dataset_dict.json, state.json or Parquet file; "
            "write folder in place of dataset for a folder of pictures"
        )
    return found[choose_split(found, split, folder)]


def _saved(folder: Path) -> list[Path]:
    """The files of `save_to_disk`, in their order."""
    state = _json(folder / "state.json")
    if state.get("_indices_data_files"):
        raise SourceError(f"{folder} has indices beside its rows: write it again with a newer datasets")
    try:
        files = [folder / str(each["filename"]) for each in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise SourceError(f"{folder / 'state.json'} is not as datasets writes it: it has no _data_files") from error
    if any(file.parent != folder for file in files):
        raise SourceError(f"{folder / 'state.json'} names files in other folders")
    return files


def _configured(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, by the head of README.md that `push_to_hub` writes; none without one."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    head = re.match(r"---\s*\n(.*?)\n---", readme.read_text("utf-8", "replace"), re.DOTALL)
    try:
        card = yaml.safe_load(head[1]) if head else None
    except yaml.YAMLError:
        return {}
    configs = card.get("configs") if isinstance(card, dict) else None
    if not isinstance(configs, list) or not all(isinstance(each, dict) for each in configs):
        return {}
    if len(configs) > 1:
        names = ", ".join(str(each.get("config_name")) for each in configs)
        raise SourceError(f"{folder} has several configurations ({names}): name the folder of one of them")
    files = configs[0].get("data_files") if configs else None
    entries = files if isinstance(files, list) else []
    return {
        str(each["split"]): found for each in entries if isinstance(each, dict) and (found := _matching(folder, each))
    }


def _matching(folder: Path, entry: Mapping[str, Any]) -> list[Path]:
    """The tables that the patterns of a split match inside the folder."""
    paths = entry.get("path")
    patterns: Sequence[Any] = paths if isinstance(paths, list) else [paths]
    inside = [each for each in patterns if isinstance(each, str) and not each.startswith("/") and ".." not in each]
    found = {path for pattern in inside for path in folder.glob(pattern)}
    return sorted(path for path in found if format_of(path.name) in ("parquet", "arrow")) if "split" in entry else []


def _named(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, by the names of the files, or of their folder."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        named = _PART.fullmatch(path.name)
        if named and path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            found.setdefault(named["split"], []).append(path)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise SourceError(f"{path} is not as datasets writes it")
    return found
