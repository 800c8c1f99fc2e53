"""Export of a subset for other trainers, in one of `pipeline.manifest.formats`.

Pictures are copied out of the shards as they are stored. The folder appears whole or not at all. Until then its pieces
are in a folder beside it, whose name begins with a dot. A stopped run resumes there.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from filters.core import Recipe
from pipeline.errors import BusyError, StorageError
from pipeline.manifest.formats import FORMATS
from pipeline.manifest.manifest import Manifest
from pipeline.progress import Progress, silent
from pipeline.store import tarfiles
from pipeline.store.disk import disk_errors
from pipeline.store.parquet import rechunk

VERSION = 2

PIECE = 1000
"""The number of pairs in a tar, a Parquet file, or a folder of pictures."""

CARD = "export.json"
"""The file that describes the content of the folder and how it was made."""

_LOCK = ".lock"


@dataclass(frozen=True)
class Exported:
    """The folder of the subset, the numbers of its pairs and pieces, and whether this run wrote it."""

    path: Path
    pairs: int
    pieces: int
    new: bool


def write(
    manifest: Manifest, recipe: Recipe | None, form: str, to: Path, progress: Progress = silent, piece: int = PIECE
) -> Exported:
    """Write the manifest's pairs that a recipe keeps, or without a recipe the published ones, in a format of FORMATS.

    Pairs are in the order of shards and pictures, so that pairs that share a picture are neighbours. An existing
    identical export is left as it is. Raises StorageError if the folder holds anything else or a picture is missing,
    and RecipeError.
    """
    to = to.expanduser().resolve()
    uids = manifest.select(recipe)
    if not len(uids):
        raise StorageError("there is nothing to export: the recipe keeps no pair")
    pieces = -(-len(uids) // piece)
    card = _card(manifest, recipe or manifest.recipe, form, len(uids)) | {"piece": piece}
    if to.exists():
        if _read(to / CARD) != card:
            raise StorageError(f"{to} already exists and is not overwritten: choose another folder, or remove it")
        return Exported(to, len(uids), pieces, new=False)
    part = to.with_name(f".{to.name}.part")
    with disk_errors(to.parent, "--to"), _alone(part):
        if _read(part / CARD) not in (None, card):
            raise StorageError(f"{part} holds another export, unfinished: finish that one, or remove the folder")
        (part / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
        layout = FORMATS[form]
        tars = tarfiles.Tars(manifest.storage, manifest.stages.shards)
        names = [layout.name.format(piece=number, pieces=pieces) for number in range(pieces)]
        done = 0
        for name, table in zip(names, _pairs(manifest, uids, piece), strict=True):
            progress("pairs", done, len(uids))
            if not (part / name).exists():
                _put(part / name, lambda path: layout.write(path, table, _pictures(tars, table)))  # noqa: B023 at once
            done += len(table)
        layout.end(part, to, zip(names, _pairs(manifest, uids, piece), strict=True))
        os.sync()  # after a power cut, too, a folder with this name is complete
        (part / _LOCK).unlink()
        part.rename(to)
        progress("pairs", done, len(uids))
    return Exported(to, len(uids), pieces, new=True)


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises BusyError at once if another run holds it."""
    from filelock import FileLock, Timeout

    part.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(part / _LOCK, timeout=0):
            yield
    except Timeout:
        raise BusyError(f"another run is writing to {part}: wait for it or stop it, then try again") from None


def _card(manifest: Manifest, recipe: Recipe, form: str, pairs: int) -> dict[str, Any]:
    """Everything that decides what is written."""
    return {
        "version": VERSION,
        "format": form,
        "source": manifest.source,
        "manifest": manifest.id,
        "recipe": recipe.name,
        "filters": {each.name: each.sql for each in recipe.filters},
        "distinct": asdict(recipe.distinct) if recipe.distinct else None,
        "pairs": pairs,
    }


def _read(card: Path) -> Any:
    """The card; None if it is missing or incomplete."""
    try:
        return json.loads(card.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _put(target: Path, write: Callable[[Path], None]) -> None:
    """Write a file or a folder under a temporary name, and rename it when it is whole."""
    half = target.with_name(f".{target.name}")
    half.parent.mkdir(parents=True, exist_ok=True)
    if half.is_dir():
        shutil.rmtree(half)
    write(half)
    half.rename(target)


def _pairs(manifest: Manifest, uids: pa.Table, piece: int) -> Iterator[pa.Table]:
    """Tables of `piece` pairs with every column of rows. The last table may have fewer pairs."""
    with manifest.connection() as con:
        con.from_arrow(uids).create("chosen")
        chosen = con.sql("FROM rows SEMI JOIN chosen USING (uid) ORDER BY shard, member, uid")
        batches = (pa.Table.from_batches([batch]) for batch in chosen.to_arrow_reader(piece))
        yield from filter(len, rechunk(batches, piece))


def _pictures(tars: tarfiles.Tars, pairs: pa.Table) -> Iterator[bytes]:
    for shard, member in zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True):
        picture = tars.read(shard, member)
        if picture is None:
            raise StorageError(
                f"shard {shard:05d} has no picture {member}: remove its .tar and .parquet, and run `winnow curate`"
            )
        yield picture
