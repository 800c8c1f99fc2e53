"""A subset for trainers elsewhere: webdataset tars, Parquet that Hugging Face's `datasets` reads, a CSV for open_clip.

Pictures are copied out of the shards as they are stored. The folder appears whole or not at all: until then its pieces
lie beside it, in one whose name begins with a dot and where a run that was stopped goes on.
"""

import contextlib
import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from filters.core import Recipe
from pipeline.errors import BusyError, StorageError
from pipeline.manifest.manifest import Manifest
from pipeline.progress import Progress, silent
from pipeline.schema import EXPORTED
from pipeline.store import tarfiles
from pipeline.store.disk import disk_errors
from pipeline.store.parquet import rechunk

VERSION = 1
"""Raised whenever the same subset would be written otherwise."""

PIECE = 1000
"""Pairs of a tar, of a Parquet file, or of a folder of pictures."""

CARD = "export.json"
"""What the folder holds, and what made it."""

_UNTOLD = frozenset({"status", "cause", "error", "bytes", "shard", "member", "kept", "dropped_by", "unknown"})
"""Columns of rows that are winnow's own bookkeeping."""

_MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
"""What pandas, with which open_clip reads a CSV, takes for no value."""

_LOCK = ".lock"

_IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


@dataclass(frozen=True)
class Form:
    """A way to write pairs: what a piece is called, how it is written, and what is written at the end.

    `piece` and `pieces` in the name are its number and how many there are. `write` is given the path, the pairs and
    their pictures; `end` the unfinished folder, the finished one, and the pairs by the name of their piece.
    """

    name: str
    write: Callable[[Path, pa.Table, Iterator[bytes]], None]
    end: Callable[[Path, Path, Iterator[tuple[str, pa.Table]]], None] = lambda folder, to, pieces: None


@dataclass(frozen=True)
class Exported:
    """Where the subset lies, how many pairs it has, in how many pieces, and whether this run wrote it."""

    path: Path
    pairs: int
    pieces: int
    new: bool


def write(
    manifest: Manifest, recipe: Recipe | None, form: str, to: Path, progress: Progress = silent, piece: int = PIECE
) -> Exported:
    """Write what a recipe keeps of the manifest's pairs, or without one what was published, in a form of FORMS.

    Pairs go by shard, those that share a picture one after the other. An export that is there already and would be the
    same is left as it is. Raises StorageError where something else lies there or a picture is missing, and RecipeError.
    """
    to = to.expanduser().resolve()
    uids = manifest.select(recipe)
    if not len(uids):
        raise StorageError("there is nothing to export: no pair is kept")
    pieces = -(-len(uids) // piece)
    card = _card(manifest, recipe or manifest.recipe, form, len(uids)) | {"piece": piece}
    if to.exists():
        if _read(to / CARD) != card:
            raise StorageError(
                f"{to} is there already, and nothing is overwritten: choose another folder, or remove it"
            )
        return Exported(to, len(uids), pieces, new=False)
    part = to.with_name(f".{to.name}.part")
    with disk_errors(to.parent, "--to"), _alone(part):
        if _read(part / CARD) not in (None, card):
            raise StorageError(f"{part} holds another export, unfinished: finish that one, or remove the folder")
        (part / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
        made = FORMS[form]
        tars = tarfiles.Tars(manifest.storage, manifest.document["stages"]["shards"])
        names = [made.name.format(piece=number, pieces=pieces) for number in range(pieces)]
        done = 0
        for name, table in zip(names, _pairs(manifest, uids, piece), strict=True):
            progress("pairs", done, len(uids))
            if not (part / name).exists():
                _put(part / name, lambda path: made.write(path, table, _pictures(tars, table)))  # noqa: B023 at once
            done += len(table)
        made.end(part, to, zip(names, _pairs(manifest, uids, piece), strict=True))
        os.sync()  # the name is to mean that the content is there, even after a power cut
        (part / _LOCK).unlink()
        part.rename(to)
        progress("pairs", done, len(uids))
    return Exported(to, len(uids), pieces, new=True)


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Be the only one to write there, or raise BusyError at once."""
    from filelock import FileLock, Timeout

    part.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(part / _LOCK, timeout=0):
            yield
    except Timeout:
        raise BusyError(f"another run writes in {part}: wait for it, or stop it, then try again") from None


def _card(manifest: Manifest, recipe: Recipe, form: str, pairs: int) -> dict[str, Any]:
    """All that decides what is written."""
    return {
        "version": VERSION,
        "format": form,
        "source": manifest.document["source"],
        "manifest": manifest.id,
        "recipe": recipe.name,
        "filters": {each.name: each.sql for each in recipe.filters},
        "distinct": asdict(recipe.distinct) if recipe.distinct else None,
        "pairs": pairs,
    }


def _read(card: Path) -> Any:
    """The card, None where there is none, or only half of one."""
    try:
        return json.loads(card.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _put(target: Path, write: Callable[[Path], None]) -> None:
    """Write a file or a folder under another name, and give it its own when it is whole."""
    half = target.with_name(f".{target.name}")
    half.parent.mkdir(parents=True, exist_ok=True)
    if half.is_dir():
        shutil.rmtree(half)
    write(half)
    half.rename(target)


def _pairs(manifest: Manifest, uids: pa.Table, piece: int) -> Iterator[pa.Table]:
    """Tables of `piece` pairs, the last with fewer: every column of rows."""
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


def _told(pairs: pa.Table) -> pa.Table:
    """Less winnow's own bookkeeping."""
    return pairs.select([name for name in pairs.column_names if name not in _UNTOLD])


def _tar(path: Path, pairs: pa.Table, pictures: Iterator[bytes]) -> None:
    """Of each pair, named by its uid: .jpg, .txt, the caption, and .json, all that is known of it."""

    def members() -> Iterator[tuple[str, bytes]]:
        for row, picture in zip(_told(pairs).to_pylist(), pictures, strict=True):
            yield f"{row['uid']}.jpg", picture
            yield f"{row['uid']}.txt", (row["caption"] or "").encode()
            yield f"{row['uid']}.json", json.dumps(row, ensure_ascii=False, default=str).encode()

    tarfiles.write(path, members())


def _sizes(part: Path, to: Path, pieces: Iterator[tuple[str, pa.Table]]) -> None:
    """How many pairs each tar has, where open_clip looks for it."""
    (part / "sizes.json").write_text(json.dumps({name: len(table) for name, table in pieces}, indent=1))


def _parquet(path: Path, pairs: pa.Table, pictures: Iterator[bytes]) -> None:
    """`image` holds the picture as `datasets` does, and says so; a column `image` of the source is `source_image`."""
    told = _told(pairs).replace_schema_metadata(None)
    told = told.rename_columns([EXPORTED.get(name.lower(), name) for name in told.column_names])
    images = pa.array(
        [
            {"bytes": picture, "path": f"{uid}.jpg"}
            for picture, uid in zip(pictures, told["uid"].to_pylist(), strict=True)
        ],
        _IMAGE,
    )
    features = json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})
    table = told.add_column(0, "image", images).replace_schema_metadata({"huggingface": features})
    pq.write_table(table, path, compression="zstd", row_group_size=100)


def _folder(path: Path, pairs: pa.Table, pictures: Iterator[bytes]) -> None:
    """The pictures; pairs that share one share its file."""
    path.mkdir()
    for name, picture in zip(_files(pairs), pictures, strict=True):
        (path / name).write_bytes(picture)


def _files(pairs: pa.Table) -> list[str]:
    places = zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True)
    return [f"{shard:05d}-{member}" for shard, member in places]


def _list(part: Path, to: Path, pieces: Iterator[tuple[str, pa.Table]]) -> None:
    """train.csv, under the names of columns and with the separator that open_clip expects; paths are absolute."""
    with (part / "train.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["filepath", "title"])
        for name, pairs in pieces:
            for picture, caption in zip(_files(pairs), pairs["caption"].to_pylist(), strict=True):
                rows.writerow([to / name / picture, present(caption or "")])


def present(caption: str) -> str:
    """The caption, with a blank before it where pandas would take it for a missing one: no tokenizer sees the blank."""
    return f" {caption}" if caption in _MISSING else caption


FORMS: Mapping[str, Form] = {
    "webdataset": Form("{piece:05d}.tar", _tar, _sizes),
    "datasets": Form("data/train-{piece:05d}-of-{pieces:05d}.parquet", _parquet),
    "csv": Form("images/{piece:05d}", _folder, _list),
}
"""By name: webdataset tars; Parquet for `datasets.load_dataset`; a folder of pictures with a CSV for open_clip."""
