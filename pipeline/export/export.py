"""Export of a subset for other trainers, in one of `pipeline.export.formats`, with a card that says what it is.

Pictures are copied out of the shards as they are stored. The folder appears whole or not at all. Until then its pieces
are in a folder beside it, whose name begins with a dot. A stopped run resumes there.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import BusyError, StorageError
from pipeline.export import card, croissant
from pipeline.export.content import Content
from pipeline.export.format import Format, Written
from pipeline.export.formats import FORMATS
from pipeline.export.samples import samples_query
from pipeline.export.stored import Stored, scorer_with_embeddings
from pipeline.manifest import copies
from pipeline.manifest.manifest import Manifest
from pipeline.progress import Progress, silent
from pipeline.store.disk import disk_errors
from pipeline.store.parquet import rechunk

VERSION = 3

RECORD = "export.json"
"""The file that describes the content of the folder and how it was made, for a machine. The card is for a person."""

_LOCK = ".lock"


@dataclass(frozen=True)
class Exported:
    """The folder of the subset, the numbers of its pairs and pieces, and whether this run wrote it.

    `samples` counts a pair as often as it was written, if the recipe keeps it more than once.
    """

    path: Path
    pairs: int
    pieces: int
    new: bool
    samples: int


def write(content: Content, to: Path, progress: Progress = silent, piece: int | None = None) -> Exported:
    """Write the content to a folder, in pieces of so many pairs; by default those of the format.

    Pairs are in the order of shards and pictures, so that pairs that share a picture are neighbours. A pair that the
    recipe keeps c times is written c times, in most formats every c-th part of the export once. An existing
    identical export is left as it is. Raises StorageError if the folder holds anything else or a picture is missing,
    ModelError if there are no embeddings to write, and RecipeError.
    """
    to, content = to.expanduser().resolve(), replace(content, progress=partial(progress, "choose"))
    layout = FORMATS[content.form]
    if content.form == "embeddings":
        content = replace(content, scorer=scorer_with_embeddings(content.manifest, content.scorer))
    elif content.scorer:
        raise StorageError("--scorer names the embeddings of `--format embeddings`; no other format has one")
    stored = Stored(content.manifest, content.scorer)
    uids = _uids(content, stored)
    samples = copies.count(uids) if layout.repeats != "once" else len(uids)
    piece = (piece or layout.piece) if layout.piece else samples
    size = Written(len(uids), samples, -(-samples // piece))
    record = {"version": VERSION, **content.record(), "pairs": size.pairs, "piece": piece}
    exported = Exported(to, size.pairs, size.pieces, new=True, samples=size.samples)
    if to.exists():
        if _read(to / RECORD) != record:
            raise StorageError(f"{to} already exists and is not overwritten: choose another folder, or remove it")
        return replace(exported, new=False)
    part = to.with_name(f".{to.name}.part")
    with disk_errors(to.parent, "--to"), _alone(part):
        if _read(part / RECORD) not in (None, record):
            raise StorageError(f"{part} holds another export, unfinished: finish that one, or remove the folder")
        (part / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
        names = [layout.names(number, size.pieces) for number in range(size.pieces)]
        done = 0
        for paths, table in zip(names, _pairs(content.manifest, layout, uids, piece), strict=True):
            progress("pairs", done, samples)
            if not all((part / name).exists() for name in paths):
                _put([part / name for name in paths], lambda halves: layout.write(halves, table, stored))  # noqa: B023
            done += len(table)
        firsts = [paths[0] for paths in names]
        layout.end(part, to, zip(firsts, _pairs(content.manifest, layout, uids, piece), strict=True))
        _describe(part, content, layout, size, uids)
        os.sync()  # after a power cut, too, a folder with this name is complete
        (part / _LOCK).unlink()
        part.rename(to)
        progress("pairs", done, samples)
    return exported


def _uids(content: Content, stored: Stored) -> pa.Table:
    """The uids of the pairs to write. Raises StorageError if there are none."""
    if not len(content.uids):
        raise StorageError("there is nothing to export: the recipe keeps no pair")
    if not content.scorer:
        return content.uids
    uids = stored.embedded(content.uids)
    if not len(uids):
        raise StorageError(f"there is nothing to export: no kept pair has both embeddings of {content.scorer}")
    return uids


def _describe(part: Path, content: Content, layout: Format, size: Written, uids: pa.Table) -> None:
    """Write the card and the metadata, for people and for machines."""
    with content.manifest.connection() as con:
        con.from_arrow(uids.slice(0, 0)).create("chosen")
        rows = con.sql(samples_query(content.manifest.columns, layout, uids)).to_arrow_table().schema
    facts = (content, layout, size, rows)
    (part / card.NAME).write_text(card.card(*facts), encoding="utf-8")
    (part / croissant.NAME).write_text(croissant.metadata(*facts), encoding="utf-8")


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


def _read(record: Path) -> Any:
    """The record; None if it is missing or incomplete."""
    try:
        return json.loads(record.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _put(targets: Sequence[Path], write: Callable[[Sequence[Path]], None]) -> None:
    """Write files or folders under temporary names, and rename them when they are whole."""
    halves = [target.with_name(f".{target.name}") for target in targets]
    for half in halves:
        half.parent.mkdir(parents=True, exist_ok=True)
        if half.is_dir():
            shutil.rmtree(half)
    write(halves)
    for half, target in zip(halves, targets, strict=True):
        half.replace(target)


def _pairs(manifest: Manifest, layout: Format, uids: pa.Table, piece: int) -> Iterator[pa.Table]:
    """Tables of `piece` pairs with the columns that the format needs. The last table may have fewer pairs."""
    with manifest.connection() as con:
        con.from_arrow(uids).create("chosen")
        chosen = con.sql(samples_query(manifest.columns, layout, uids))
        batches = (pa.Table.from_batches([batch]) for batch in chosen.to_arrow_reader(min(piece, 100_000)))
        yield from filter(len, rechunk(batches, piece))
