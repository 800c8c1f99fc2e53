"""The list of a folder of pictures: every file is a row, in the order of the places, whatever the order of the disk.

Captions come from one of three: tables with a column of file names, a .txt or .json beside each picture, or a template
with the name of the picture's folder.
"""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError
from pipeline.files import tables
from pipeline.files.walk import walk
from pipeline.ledger.captions_beside import captions_of
from pipeline.ledger.folder_index import TABLE_NAMES, FolderIndex, indexed
from pipeline.ledger.list_pictures import TYPED, batch_of, picture_batches, table_columns
from pipeline.ledger.list_rows import Notes, faults_of
from pipeline.ledger.picture_columns import column_types, from_template
from pipeline.schema import PLACE
from pipeline.settings.locations import FORMATS, format_of
from pipeline.settings.pairs import Pairs
from pipeline.settings.pictures import LABEL


def folder_batches(pairs: Pairs, scratch: Path, notes: Notes) -> Iterator[pa.RecordBatch]:
    """The batches of a folder: url, caption, `PLACE` and the extra columns.

    Raises SourceError for a folder without a file, without any caption, or with captions in two places.
    """
    with indexed(pairs.base, walk(pairs.base, pairs.symlinks), scratch) as index:
        if pairs.template is not None:
            batches = _from_folders(pairs, index)
        elif found := [Path(pairs.captions)] if pairs.captions else [pairs.base / place for place in index.tables()]:
            batches = _from_tables(pairs, index, found, scratch, notes)
        else:
            batches = _from_beside(pairs, index, notes)
        captions = 0
        for batch in batches:
            captions += sum(map(bool, batch.column("caption").to_pylist()))
            yield batch
        if not captions and pairs.template is not None:
            raise SourceError(f"no file of {pairs.base} is in a class folder, whose name would be its {LABEL}")
        if not captions:
            raise SourceError(
                f"no picture of {pairs.base} has a caption: put a .txt or .json beside each, or captions.csv in it, or "
                f'set template = "a photo of a {{{LABEL}}}" where folders are classes'
            )


def folder_columns(pairs: Pairs) -> pa.Schema:
    """The types of the extra columns: those of `captions`, or of a table in the folder itself, or else text.

    Folders below are not searched for a table.
    """
    usual = (pairs.base / f"{name}.{ending}" for name in TABLE_NAMES for ending in FORMATS)
    path = Path(pairs.captions) if pairs.captions else next(filter(Path.is_file, usual), None)
    if path is None or pairs.template is not None or format_of(path.name) not in TYPED:
        return pa.schema({name: pa.string() for name in pairs.extra})
    with faults_of(pairs.model_copy(update={"location": str(path)})):
        schema = tables.read_schema(path)
    table_columns(schema, pairs)
    return column_types(schema, pairs.extra)


def _from_folders(pairs: Pairs, index: FolderIndex) -> Iterator[pa.RecordBatch]:
    """Captions by the template, with the name of the folder that a picture is in."""
    assert pairs.template is not None
    twice = index.picture_beside_caption()
    if twice is not None:
        raise SourceError(f"{pairs.base} has a caption beside {twice}, and a template makes another: remove one")
    for places in index.places():
        labels = [posixpath.basename(posixpath.dirname(place)) or None for place in places]
        captions = [from_template(pairs.template, {LABEL: label}) for label in labels]
        columns = {LABEL: pa.array(labels, pa.string())}
        nothing = pa.nulls(len(places), pa.string())
        yield batch_of(places, captions, places, {name: columns.get(name, nothing) for name in pairs.extra})


def _from_beside(pairs: Pairs, index: FolderIndex, notes: Notes) -> Iterator[pa.RecordBatch]:
    """Captions by the .txt or .json of the picture's name."""
    for block in index.with_captions():
        rows: list[tuple[str | None, ...]] = []
        for place, beside in block:
            url, captions, extra = captions_of(pairs, beside, notes) if beside else (None, [""], {})
            rows += [(url or place, caption, place, *map(extra.get, pairs.extra)) for caption in captions]
        names = ("url", "caption", PLACE, *pairs.extra)
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        yield pa.record_batch(columns, names=list(names))


def _from_tables(
    pairs: Pairs, index: FolderIndex, found: Sequence[Path], scratch: Path, notes: Notes
) -> Iterator[pa.RecordBatch]:
    """The rows of each table, then the files that no table names, without a caption."""
    if not pairs.captions and (twice := index.picture_beside_caption()):
        raise SourceError(
            f"{pairs.base} has a caption beside {twice}, and the table {found[0].name}: set captions = "
            f'"{found[0].name}" to read the table'
        )
    named = scratch / "named.parquet"
    with pq.ParquetWriter(named, pa.schema({PLACE: pa.string()}), compression="zstd") as writer:
        for table in found:
            # Names in `captions` are relative to the folder of pictures, names in a table that is found to its own.
            origin = pairs.base / table.name if pairs.captions else table
            asked = pairs.model_copy(update={"location": str(table), "format": pairs.format or format_of(table.name)})
            with faults_of(asked):
                for batch in picture_batches(table, asked, pairs.base, notes, origin):
                    writer.write_batch(batch.select([PLACE]))
                    yield batch
    kinds = _types(pairs, found)
    for places in index.places_without(named):
        nothing = {name: pa.nulls(len(places), kinds.field(name).type) for name in pairs.extra}
        yield batch_of(places, [""] * len(places), places, nothing)


def _types(pairs: Pairs, found: Iterable[Path]) -> pa.Schema:
    """The types of the extra columns, by the first table that has types; text without one."""
    typed = next((path for path in found if format_of(path.name) in TYPED), None)
    if typed is None:
        return pa.schema({name: pa.string() for name in pairs.extra})
    schema = tables.read_schema(typed)
    return column_types(schema, pairs.extra)
