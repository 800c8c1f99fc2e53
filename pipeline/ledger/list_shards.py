"""Lists of pictures in tars of webdataset, as img2dataset and DataComp write them, without reading the pictures.

A tar may have a table beside it, `00012.parquet` of `00012.tar`, with the key of each row: then the tar itself is not
read. Otherwise url, caption and extra columns are in the `.json` of each sample, or the caption is in its `.txt`.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SourceError, did_you_mean
from pipeline.failure import RowError
from pipeline.ledger.list_json import text_of
from pipeline.ledger.list_parquet import as_rows, check_text
from pipeline.ledger.list_pictures import batch_of
from pipeline.ledger.list_rows import Notes
from pipeline.ledger.tar_samples import Sample, samples
from pipeline.settings.pairs import Pairs
from pipeline.settings.shard_names import KEYS
from pipeline.store.parquet import ROW_GROUP

KEY, SOURCE_UID = KEYS

_SOURCE = "source_"
"""Begins the name of an extra column that winnow has a column of its own for."""

TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".arrow", ".feather")
"""Endings of tables beside a tar. Parquet alone is read."""

Row = tuple[str, str, str, dict[str, str | None]]
"""url, caption, place and the extra columns."""


def shard_batches(pairs: Pairs, notes: Notes) -> Iterator[pa.RecordBatch]:
    """The batches of all tars, in order: url, caption, place, key, source_uid and the extra columns.

    What a tar has beyond a break is one row more, which fails. Raises SourceError for two tables beside a tar, and for
    a column that is missing.
    """
    for tar in map(Path, pairs.shards or ()):
        table = table_of(tar)
        columns = None if table is None else _table_columns(table, pairs, notes)
        if table is not None and columns is not None:
            yield from _table_batches(table, tar, columns, pairs, notes)
        else:
            rows = _tar_rows(tar, pairs, notes)
            while block := list(islice(rows, ROW_GROUP)):
                urls, captions, places, extra = zip(*block, strict=True)
                values = {name: pa.array([each[name] for each in extra], pa.string()) for name in pairs.extra}
                yield batch_of(urls, captions, places, values)


def shard_columns(pairs: Pairs) -> list[pa.Schema]:
    """The extra columns of the tars: as their tables have them, or else text."""
    texts = pa.schema({name: pa.string() for name in pairs.extra})
    if not set(pairs.extra) - {KEY, SOURCE_UID}:
        return [texts]
    found: list[pa.Schema] = []
    for tar in map(Path, pairs.shards or ()):
        table = table_of(tar)
        columns = None if table is None else _table_columns(table, pairs, Notes())
        if table is None or columns is None:
            found.append(texts)
        else:
            schema = pq.read_schema(table)
            kinds = {name: pa.string() if name in (KEY, SOURCE_UID) else schema.field(of).type for name, of in columns}
            found.append(pa.schema({name: kinds.get(name, pa.string()) for name in pairs.extra}))
    return found


def table_of(tar: Path) -> Path | None:
    """The Parquet table beside a tar; None without one. Raises SourceError if there are two tables."""
    found = [path for ending in TABLES if (path := tar.with_suffix(ending)).exists()]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise SourceError(f"{tar} has two tables beside it, {names}: move one away")
    return found[0] if found and found[0].suffix == TABLES[0] else None


def _table_columns(table: Path, pairs: Pairs, notes: Notes) -> list[tuple[str, str]] | None:
    """The extra columns that a table has, and their names in it; None for a table that cannot be read."""
    try:
        schema = pq.read_schema(table)
    except (pa.ArrowException, OSError) as error:
        notes.unread += 1
        notes.example = notes.example or f"{table.name} ({str(error).splitlines()[0]})"
        return None
    names = schema.names
    for name in (KEY, pairs.caption):
        if name not in names:
            raise SourceError(f"{table} has no column {name!r}{did_you_mean(name, names)}")
        check_text(name, schema.field(name).type, pairs, lists=name == pairs.caption)
    return [(name, of) for name in pairs.extra if (of := _found(name, names, str(table))) is not None]


def _found(name: str, names: Sequence[str] | Mapping[str, Any], where: str) -> str | None:
    """The column of a foreign table that an extra column is read from; None of a table without uids.

    `source_NAME` may be its NAME, because winnow has a column of that name itself.
    """
    for each in (name, name.removeprefix(_SOURCE)):
        if each in names:
            return each
    if name in (KEY, SOURCE_UID):
        return None
    raise SourceError(f"{where} has no column {name!r}{did_you_mean(name, names)}")


def _table_batches(
    table: Path, tar: Path, columns: list[tuple[str, str]], pairs: Pairs, notes: Notes
) -> Iterator[pa.RecordBatch]:
    place = partial(_place, tar, pairs)
    with pq.ParquetFile(table) as file:
        url = [pairs.url] if pairs.url in file.schema_arrow.names else []
        wanted = [KEY, pairs.caption, *url, *(of for _, of in columns)]
        for batch in file.iter_batches(ROW_GROUP, columns=list(dict.fromkeys(wanted))):
            keys, captions, *rest = as_rows([batch.column(name) for name in wanted], notes, texts=2 + len(url))
            places = [place(key) for key in keys.to_pylist()]
            urls = [found or where for found, where in zip(rest[0].to_pylist(), places, strict=True)] if url else places
            extra = dict(zip((name for name, _ in columns), rest[len(url) :], strict=True)) | {KEY: keys}
            if SOURCE_UID in extra:
                extra[SOURCE_UID] = extra[SOURCE_UID].cast(pa.string())
            nothing = pa.nulls(len(keys), pa.string())
            yield batch_of(urls, captions, places, {name: extra.get(name, nothing) for name in pairs.extra})


def _tar_rows(tar: Path, pairs: Pairs, notes: Notes) -> Iterator[Row]:
    """The rows of a tar's samples: one for each caption. A sample without a caption is one row."""
    checked = False
    try:
        for sample in samples(tar):
            if sample.values and not checked:
                for name in pairs.extra:
                    _found(name, sample.values, f"{tar}: the .json of sample {sample.key!r}")
                checked = True
            place = _place(tar, pairs, sample.key)
            extra = {name: text_of(_value(name, sample.values)) for name in pairs.extra} | {KEY: sample.key}
            url = text_of(sample.values.get(pairs.url)) or place
            for caption in _captions(sample, pairs, notes):
                yield url, caption, place, extra
    except RowError as error:
        place = _place(tar, pairs, "")
        yield place, f"(the rest of {tar.name}: {error.error})", place, dict.fromkeys(pairs.extra)


def _value(name: str, values: Mapping[str, Any]) -> Any:
    return values[name] if name in values else values.get(name.removeprefix(_SOURCE))


def _captions(sample: Sample, pairs: Pairs, notes: Notes) -> list[str]:
    found = sample.values.get(pairs.caption)
    if found is None:
        texts = [each.decode("utf-8", "replace") for each in sample.texts]
        notes.invalid += any(
            "\ufffd" in text and text.encode() != each for text, each in zip(texts, sample.texts, strict=True)
        )
        return [text.strip("\r\n") for text in texts] or [""]
    return [text_of(each) or "" for each in (found if isinstance(found, list) else [found])] or [""]


def _place(tar: Path, pairs: Pairs, key: str) -> str:
    """The place of a sample's picture, by its key: whether a table was read does not change it."""
    name = f"{key}.{pairs.image}" if pairs.image and key else key
    return f"{tar.relative_to(pairs.base).as_posix()}!{name}"
