"""Reads a list of pairs: TSV, CSV, Parquet, Arrow or JSON lines, local files or http(s) URLs, plain or gzipped.

Pictures that are on this machine are listed here, too, and not read: a folder, tables of pictures, a dataset.

A line that cannot be parsed is not lost. It becomes a pair without a URL, with the line as its caption, and so a failed
row of the manifest. Invalid bytes become U+FFFD before anything is hashed, and their rows are counted.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.files import tables
from pipeline.ledger.asked import captioned
from pipeline.ledger.datasets import dataset_parts
from pipeline.ledger.list_folder import folder_batches, folder_columns
from pipeline.ledger.list_parquet import parquet_batches
from pipeline.ledger.list_pictures import TYPED, picture_batches, table_columns
from pipeline.ledger.list_questions import question_batches
from pipeline.ledger.list_rows import Notes, agreed_type, check_names, faults_of
from pipeline.ledger.list_shards import shard_batches, shard_columns
from pipeline.ledger.list_text import text_batches
from pipeline.ledger.picture_columns import column_types
from pipeline.schema import ORIGIN, PLACE
from pipeline.settings.pairs import Pairs
from pipeline.settings.questions import QUESTIONS
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.web import trusted
from pipeline.web.trusted import AddressError


def read(pairs: Pairs, scratch: Path, warn: Callable[[str], None] = lambda line: None) -> Iterator[pa.RecordBatch]:
    """Batches with the columns url and caption (strings, never NULL) and the extra columns.

    Those of local pictures have `PLACE` after the caption. Extra columns are strings. Those of Parquet and Arrow keep
    their type, which may differ between files. A list at a URL is downloaded into `scratch`. A folder is sorted there.
    `warn` is called with a line for each kind of suspect rows.
    Raises SourceError for a list that is empty, cannot be read, or lacks a column.
    """
    rows = 0
    for part in _parts(pairs):
        notes = Notes()
        for batch in _read(part, scratch, notes):
            rows += len(batch)
            yield captioned(batch, part) if part.question else batch
        for line in notes.lines(part):
            warn(line)
    if not rows:
        raise SourceError(f"{pairs.safe_location} has no rows")


def _parts(pairs: Pairs) -> tuple[Pairs, ...]:
    """These settings for each file of a list or of a dataset."""
    return dataset_parts(pairs) if pairs.dataset is not None else pairs.files


def _read(pairs: Pairs, scratch: Path, notes: Notes) -> Iterator[pa.RecordBatch]:
    """The batches of one file, or of a folder of pictures."""
    with faults_of(pairs):
        if pairs.folder is not None:
            yield from folder_batches(pairs, scratch, notes)
        elif pairs.shards is not None:
            yield from shard_batches(pairs, notes)
        elif pairs.is_local:
            yield from picture_batches(Path(str(pairs.location)), pairs, pairs.base, notes)
        else:
            yield from _url_batches(_local(pairs, scratch), pairs, notes)


def _url_batches(path: Path, pairs: Pairs, notes: Notes) -> Iterator[pa.RecordBatch]:
    if pairs.file_format in QUESTIONS:
        return question_batches(path, pairs)
    return (parquet_batches if pairs.file_format in TYPED else text_batches)(path, pairs, notes)


def extra_columns(source: Source) -> pa.Schema | None:
    """The extra columns and their types, before the list is read; None if this requires a download."""
    if source.pairs is not None:
        return _extra_columns(source.pairs)
    columns = [pa.schema({ORIGIN: pa.string()})] if source.union else []
    for member, _ in members(source):
        found = extra_columns(member)
        if found is None:
            return None
        columns.append(found)
    return _agreed(columns)


def _agreed(schemas: Iterable[pa.Schema]) -> pa.Schema:
    types: dict[str, list[pa.DataType]] = {}
    for field in chain.from_iterable(schemas):
        types.setdefault(field.name, []).append(field.type)
    return pa.schema({name: agreed_type(each) for name, each in types.items()})


def _extra_columns(pairs: Pairs) -> pa.Schema | None:
    if pairs.is_hub or (pairs.is_address and pairs.file_format in TYPED):
        return None
    where = [pa.schema({PLACE: pa.string()})] if pairs.is_local else []
    if pairs.folder is not None:
        return _agreed([*where, folder_columns(pairs)])
    if pairs.shards is not None:
        return _agreed([*where, *shard_columns(pairs)])
    return _agreed([*where, *map(_file_columns, _parts(pairs))])


def _file_columns(pairs: Pairs) -> pa.Schema:
    """The extra columns of one file. Raises SourceError if it lacks one."""
    if pairs.file_format not in TYPED:
        return pa.schema({name: pa.string() for name in pairs.extra})
    try:
        schema = tables.read_schema(Path(str(pairs.location)))
    except pa.ArrowInvalid as error:
        kind = pairs.file_format.capitalize()
        raise SourceError(f"{pairs.safe_location} is no {kind}: {str(error).splitlines()[0]}") from error
    if pairs.is_local:
        table_columns(schema, pairs)
    else:
        check_names(schema.names, pairs)
    return column_types(schema, pairs.extra)


def _local(pairs: Pairs, scratch: Path) -> Path:
    """The list as a local file, downloaded if necessary."""
    if not pairs.is_address:
        return Path(str(pairs.location))
    target = scratch / "list"
    try:
        with trusted.stream(str(pairs.location)) as blocks, target.open("wb") as file:
            for block in blocks:
                file.write(block)
    except AddressError as error:
        fault = f"{pairs.safe_location} cannot be fetched: {error}; check the address, or name a local copy"
        raise SourceError(fault) from None
    return target
