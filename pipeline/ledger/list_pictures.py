"""Lists of local pictures in tables: a column has the pictures themselves, or the names of their files.

A table of pictures is Parquet or Arrow, and its pictures are not read here: a row gets the place of its picture, the
number of the row. A table of names may also be text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.files import tables
from pipeline.files.table_rows import file_place
from pipeline.ledger.list_parquet import as_rows, check_text
from pipeline.ledger.list_rows import Notes
from pipeline.ledger.list_text import column_names, text_batches
from pipeline.ledger.picture_columns import (
    FILE_NAMES,
    PictureColumns,
    choose,
    class_names,
    file_name_column,
    from_template,
    with_class_names,
)
from pipeline.schema import PLACE
from pipeline.settings.pairs import Pairs
from pipeline.store.parquet import ROW_GROUP

TYPED = ("parquet", "arrow")
"""Formats whose columns have types."""


def picture_batches(
    path: Path, pairs: Pairs, base: Path, notes: Notes, origin: Path | None = None
) -> Iterator[pa.RecordBatch]:
    """The batches of one table: url, caption, `PLACE` and the extra columns. A row of several captions is several rows.

    The URL is the place where the table has no other. Names of files are relative to the folder of `origin`, which is
    the table itself by default. Raises SourceError for a table without the columns.
    """
    origin = origin or path
    if pairs.file_format not in TYPED:
        names = column_names(path, pairs, (pairs.image,) if pairs.image else FILE_NAMES)
        columns = choose(names, pairs, file_name_column(names, pairs, pairs.safe_location))
        named = _text_columns(path, pairs, columns, notes)
        yield from _finished(named, columns, pairs, notes, partial(_file_place, base, origin))
        return
    schema = tables.read_schema(path)
    columns = table_columns(schema, pairs)
    if columns.caption is not None:
        check_text(columns.caption, schema.field(columns.caption).type, pairs, lists=True)
    if tables.holds_names(schema.field(columns.image).type):
        batches = tables.read_batches(path, list(dict.fromkeys((columns.image, *columns.words))), ROW_GROUP)
        place: Callable[[str], str] = partial(_file_place, base, origin)
    else:
        if columns.image in columns.words:
            where = f"{pairs.safe_location}: {columns.image!r}"
            raise SourceError(f"{where} has the pictures: name other columns in caption, url and extra")
        batches, place = _numbered(path, columns, base), _as_it_is
    yield from _finished(_named(batches, schema), columns, pairs, notes, place)


def table_columns(schema: pa.Schema, pairs: Pairs) -> PictureColumns:
    """What the columns of a Parquet or Arrow table mean. Raises SourceError."""
    if pairs.folder is not None:
        image = file_name_column(schema.names, pairs, pairs.safe_location)
    else:
        image = tables.picture_column(schema, pairs.image, pairs.safe_location)
    return choose(schema.names, pairs, image)


def _numbered(path: Path, columns: PictureColumns, base: Path) -> Iterator[pa.RecordBatch]:
    """The words of a table of pictures, after the place of each row, in the column of pictures."""
    inside = file_place(base, path, path.name)
    row = 0
    for batch in tables.read_batches(path, columns.words, ROW_GROUP):
        places = pa.array([f"{inside}!{number}" for number in range(row, row + len(batch))], pa.string())
        yield pa.record_batch([places, *batch.columns], names=[columns.image, *columns.words])
        row += len(batch)


def _text_columns(path: Path, pairs: Pairs, columns: PictureColumns, notes: Notes) -> Iterator[pa.RecordBatch]:
    """The columns of a text list, read as any other list is: the name of the file takes the place of the URL."""
    names = [columns.image, columns.caption or columns.image]
    names += [name for name in columns.words if name != columns.caption]
    asked = {"url": names[0], "caption": names[1], "extra": tuple(names[2:])}
    for batch in text_batches(path, pairs.model_copy(update=asked), notes):
        found = {name: batch.column(place) for place, name in enumerate(names)}
        yield pa.record_batch(list(found.values()), names=list(found))


def _named(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches with the names of classes in place of their numbers."""
    classes = class_names(schema)
    for batch in batches:
        for name in classes.keys() & set(batch.schema.names):
            place = batch.schema.get_field_index(name)
            batch = batch.set_column(place, name, with_class_names(batch.column(place), classes[name]))
        yield batch


def _finished(
    batches: Iterator[pa.RecordBatch],
    columns: PictureColumns,
    pairs: Pairs,
    notes: Notes,
    place: Callable[[str], str],
) -> Iterator[pa.RecordBatch]:
    """The columns as lists have them: text that is valid, a row a caption, places relative to the base folder."""
    for batch in batches:
        first = [batch.column(columns.image), _captions(batch, columns, pairs)]
        urls = [batch.column(columns.url)] if columns.url else []
        images, captions, *others = as_rows(
            [*first, *urls, *map(batch.column, columns.extra)], notes, texts=2 + len(urls)
        )
        places = [place(name) for name in images.to_pylist()]
        urls = [url or where for url, where in zip(others[0].to_pylist(), places, strict=True)] if urls else places
        extra = others[1:] if columns.url else others
        yield batch_of(urls, captions, places, dict(zip(columns.extra, extra, strict=True)))


def batch_of(
    urls: Sequence[str], captions: pa.Array | Sequence[str], places: Sequence[str], extra: Mapping[str, pa.Array]
) -> pa.RecordBatch:
    """A batch of a list of local pictures."""
    texts = {"url": pa.array(urls, pa.string()), "caption": captions, PLACE: pa.array(places, pa.string())}
    if not isinstance(captions, pa.Array):
        texts["caption"] = pa.array(captions, pa.string())
    columns = {**texts, **extra}
    return pa.record_batch(list(columns.values()), names=list(columns))


def _captions(batch: pa.RecordBatch, columns: PictureColumns, pairs: Pairs) -> pa.Array:
    if columns.caption is not None:
        return batch.column(columns.caption)
    assert pairs.template is not None
    rows = batch.select(list(columns.fields)).to_pylist()
    texts = ({name: None if value is None else str(value) for name, value in row.items()} for row in rows)
    return pa.array([from_template(pairs.template, each) for each in texts], pa.string())


def _as_it_is(place: str) -> str:
    return place


def _file_place(base: Path, table: Path, name: str) -> str:
    """The place of a file, as people of every system write its name."""
    return file_place(base, table, name.replace("\\", "/")) if name else ""
