"""Takes local pictures of shards, each shard in a process that may be killed at any time. `fork_server` starts it."""

import contextlib
import gc
import hashlib
import os
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.download.children import Children
from pipeline.download.job import COLUMNS, PARQUET, TAR, TakingJob
from pipeline.errors import WinnowError
from pipeline.failure import FORGOTTEN, TAKEN_DOWN, RowError
from pipeline.files.read import Found, Reader
from pipeline.images.sandbox import Decoders
from pipeline.process import lifeline, unnamed
from pipeline.schema import ORIGIN, PLACE
from pipeline.store import tarfiles
from pipeline.store.references import Reference

_DECODED, _AHEAD = 4, 8
"""Pictures of a shard that are decoded at the same time, and that are read ahead."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Taken:
    """What becomes of the picture of a URL: its part of the rows, and what the tar holds; None if it failed."""

    row: Row
    stored: bytes | None = None


def serve(line: Connection, jobs: unnamed.Acceptor) -> None:
    """Run each job that arrives in a fork, until the parent ends, or the decoders.

    Sends True once, then a reply for each job: None if it is done, an OSError of the disk, or an error message.
    """
    sys.path[:], limits, count, _ = line.recv()
    decoders = Decoders(limits, count)
    decoders.start()
    gc.collect()
    gc.freeze()
    line.send(True)
    Children(jobs, lambda reply: _run(decoders, reply)).run(line, {decoders.pid})


def _run(decoders: Decoders, line: Connection) -> NoReturn:
    try:
        take(line.recv(), decoders)
        line.send(None)
        os._exit(0)
    except WinnowError as error:
        line.send(str(error))
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the parent handles it
        line.send(error if type(error) is OSError else f"{type(error).__name__}: {error}")
        os._exit(0)
    finally:
        os._exit(1)


def take(job: TakingJob, decoders: Decoders) -> None:
    """Write the tar and the rows of a shard. Raises StorageError if a tar changes while it is read."""
    listed = _listed(job.pairs)
    blocked = {row["url_number"] for row in listed if job.blocked.covers(row["uid"], row["url"])}
    taken = dict.fromkeys(blocked, _failed(RowError(FORGOTTEN, TAKEN_DOWN)))
    wanted: dict[int, list[Row]] = {}
    for row in listed:
        if row["url_number"] not in blocked and row["caption"].strip():
            wanted.setdefault(row["url_number"], []).append(row)

    def pictures() -> Iterator[tuple[str, bytes]]:
        for number, each in _ordered(job, wanted, decoders):
            taken[number] = each.row
            if each.stored is not None:
                each.row["member"] = tarfiles.member_name(number)
                yield each.row["member"], each.stored

    tarfiles.write(job.folder / TAR, pictures())
    rows = [_outcome(row, taken, wanted) for row in listed]
    pq.write_table(pa.Table.from_pylist(rows, COLUMNS), job.folder / PARQUET, compression="zstd")


def _listed(pairs: Path) -> list[Row]:
    table = pq.read_table(pairs)
    names = [name for name in ("uid", "url", "caption", "url_number", PLACE, ORIGIN) if name in table.column_names]
    listed: list[Row] = table.select(names).to_pylist()
    return listed


def _outcome(row: Row, taken: Mapping[int, Row], wanted: Mapping[int, Sequence[Row]]) -> Row:
    """The row of a pair: as its picture, unless it has no caption. A pair that was taken down has none, either."""
    number = row["url_number"]
    wordless = not row["caption"].strip() and (number in wanted or number not in taken)
    return {"uid": row["uid"], **(_failed(RowError("no_caption", "it has no caption")) if wordless else taken[number])}


def _ordered(job: TakingJob, wanted: Mapping[int, Sequence[Row]], decoders: Decoders) -> Iterator[tuple[int, Taken]]:
    """The pictures in ledger order. This thread reads, so that files are read one after the other; others decode."""
    cache = Path(tempfile.gettempdir(), "tars")
    readers = {
        origin: Reader(each.base, job.max_bytes, each.symlinks, each.image, cache) for origin, each in job.lists.items()
    }
    ahead: deque[tuple[int, Future[Taken]]] = deque()
    with ThreadPoolExecutor(_DECODED) as pool:
        for number, rows in sorted(wanted.items()):
            ahead.append((number, pool.submit(_taken, _first_found(readers, rows), decoders, job)))
            if len(ahead) >= _AHEAD:
                first, outcome = ahead.popleft()
                yield first, outcome.result()
        for first, outcome in ahead:
            yield first, outcome.result()


def _first_found(readers: Mapping[str, Reader], rows: Sequence[Row]) -> Found | RowError:
    """The picture of a URL at the first of its places that can be read; why not at the first, if none can."""
    first: RowError | None = None
    places = {(row.get(ORIGIN) or "", row[PLACE]): None for row in rows}
    for origin, place in places:
        found = _found(readers[origin], place)
        if isinstance(found, Found):
            return found
        first = first or found
    assert first is not None
    return first


def _found(reader: Reader, place: str | None) -> Found | RowError:
    if not place:
        return RowError("missing_file", "the row names no file")
    try:
        return reader.find(place)
    except RowError as failure:
        return failure


def _taken(found: Found | RowError, decoders: Decoders, job: TakingJob) -> Taken:
    if isinstance(found, RowError):
        return Taken(_failed(found))
    content = found.content
    digest = hashlib.sha256(content).hexdigest()
    if digest in job.blocked.pictures:
        return Taken(_failed(RowError(FORGOTTEN, TAKEN_DOWN)))
    try:
        picture = decoders.decode(content)
    except RowError as failure:
        return Taken(_failed(failure))
    stored = picture.jpeg
    if not stored:
        stored = (
            content if found.file is None else Reference(str(found.file), found.offset, len(content), digest).encode()
        )
    row = {
        "status": "ok",
        "sha256": digest,
        "width": picture.width,
        "height": picture.height,
        "bytes": len(content),
    }
    return Taken(row, stored)


def _failed(failure: RowError) -> Row:
    return {"status": "failed", "cause": failure.cause, "error": failure.error}


if __name__ == "__main__":
    lifeline.hold()  # also for the forks, which are in its process group
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        serve(Connection(int(sys.argv[1])), unnamed.Acceptor.of(int(sys.argv[2])))
