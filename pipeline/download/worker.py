"""Downloads shards with img2dataset, each in a process that may be killed at any time. `fork_server` starts it.

Importing this module imports img2dataset (3 s). It is imported once, and each shard runs in a fork. So does the
throttle that all shards share. The decoders are processes of their own.
"""

import contextlib
import gc
import hashlib
import os
import struct
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Collection, Iterator
from email.message import Message
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, TypeAlias
from urllib.response import addinfourl

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # img2dataset imports it, and it would call the network

import pyarrow as pa
import pyarrow.parquet as pq
from img2dataset.downloader import Downloader

from pipeline.download.children import Children
from pipeline.download.job import COLUMNS, PARQUET, TAR, Job
from pipeline.failure import FORGOTTEN, TAKEN_DOWN, RowError, parse_row_error
from pipeline.images.sandbox import Decoders
from pipeline.process import lifeline, unnamed
from pipeline.store import tarfiles
from pipeline.web import throttle
from pipeline.web.client import Opener
from pipeline.web.throttle import Hosts
from pipeline.web.transport import tls_context
from pipeline.web.url import Url

Abort: TypeAlias = Callable[[Exception], NoReturn]
"""Reports an error to the parent and ends the process. img2dataset would catch the exception and lose the row."""


def serve(line: Connection, jobs: unnamed.Acceptor) -> None:
    """Run each job that arrives in a fork, until the parent ends, or the decoders or the throttle.

    Sends True once, then a reply for each job: None if it is done, an OSError of the disk, or an error message.
    """
    sys.path[:], limits, count, shared = line.recv()
    decoders = Decoders(limits, count)
    decoders.start()
    hosts, hosts_process = (shared, None) if shared else _start_throttle(line, jobs)
    tls_context(None)  # 30 ms, which every fork would need again
    Url.parse("http://localhost/")
    gc.collect()
    gc.freeze()  # else every fork's collector would walk, and thereby copy, all that img2dataset imports
    line.send(True)
    children = Children(jobs, lambda reply: _run(decoders, Hosts(hosts), reply))
    children.run(line, {decoders.pid, hosts_process})


def _start_throttle(line: Connection, jobs: unnamed.Acceptor) -> tuple[unnamed.Caller, int]:
    """Fork a process that knows the hosts of all jobs. Returns the way to it, and its number."""
    calling, accepting = unnamed.pair()
    process = os.fork()
    if process == 0:
        calling.close()
        line.close()
        jobs.close()
        throttle.serve(accepting)
    accepting.close()
    return calling, process


def _run(decoders: Decoders, hosts: Hosts, line: Connection) -> NoReturn:
    def abort(error: Exception) -> NoReturn:
        line.send(error if type(error) is OSError else f"{type(error).__name__}: {error}")
        os._exit(0)

    try:
        _fetch(line.recv(), decoders, hosts, abort)
        line.send(None)
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the parent handles it
        abort(error)
    finally:
        os._exit(1)


def _fetch(job: Job, decoders: Decoders, hosts: Hosts, abort: Abort) -> None:
    pairs = pq.read_table(job.pairs, columns=["uid", "url", "url_number"])
    opener = Opener(job.guard, Path(tempfile.gettempdir(), "robots"), hosts)
    urllib.request.install_opener(Pictures(opener, decoders, job.blocked.pictures, abort))
    spool = Spool(job.folder / "spool", abort)
    distinct = dict(zip(pairs["url_number"].to_pylist(), pairs["url"].to_pylist(), strict=True))
    for row in pairs.to_pylist() if job.blocked else ():
        if job.blocked.covers(row["uid"], row["url"]) and distinct.pop(row["url_number"], None) is not None:
            spool.fail(row["url_number"], RowError(FORGOTTEN, TAKEN_DOWN))
    if distinct:
        _download(job, spool, distinct)
    tarfiles.write(job.folder / TAR, spool.pictures())
    numbered = zip(pairs["uid"].to_pylist(), pairs["url_number"].to_pylist(), strict=True)
    rows = [{"uid": uid, **spool.rows[number]} for uid, number in numbered]
    pq.write_table(pa.Table.from_pylist(rows, COLUMNS), job.folder / PARQUET, compression="zstd")


def _download(job: Job, spool: "Spool", distinct: dict[int, str]) -> None:
    """Let img2dataset fetch the URLs, by number. Raises RuntimeError if it loses one."""
    listed = job.folder / "urls.arrow"
    _list(listed, distinct)
    Downloader(
        sample_writer_class=lambda *_: spool,
        resizer=as_it_is,
        thread_count=job.threads,
        save_caption=False,
        extract_exif=False,
        output_folder=str(job.folder),
        column_list=["url", "url_number"],
        timeout=None,  # the opener handles timeouts, retries and opt-outs
        number_sample_per_shard=len(distinct),
        oom_shard_count=5,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,
        user_agent_token=None,
        disallowed_header_directives=None,
    ).download_shard((0, str(listed)))
    lost = distinct.keys() - spool.rows.keys()
    if lost:
        raise RuntimeError(f"img2dataset lost {len(lost)} of {len(distinct)} URLs")


def _list(path: Path, distinct: dict[int, str]) -> None:
    table = pa.table({"url": list(distinct.values()), "url_number": list(distinct)})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)


_HEAD = struct.Struct(">32sQII")
"""Before a decoded JPEG: sha256 and bytes of the file that was downloaded, its width and height."""


class Pictures(urllib.request.OpenerDirector):
    """GETs for `urlopen` that return decoded pictures, for the `Spool`.

    img2dataset decodes in the one thread that collects what its other threads have fetched. Here each of them waits for
    a decoder itself, so that a shard has as many at work as are free.
    """

    def __init__(self, opener: Opener, decoders: Decoders, blocked: Collection[str], abort: Abort) -> None:
        super().__init__()
        self._opener, self._decoders, self._blocked, self._abort = opener, decoders, blocked, abort

    def open(self, fullurl: str | urllib.request.Request, data: Any = None, timeout: float | None = None) -> addinfourl:
        """One picture. Raises RowError."""
        try:
            body = self._opener.open(fullurl).read()
            digest = hashlib.sha256(body)
            if digest.hexdigest() in self._blocked:
                raise RowError(FORGOTTEN, TAKEN_DOWN)
            picture = self._decoders.decode(body)
        except RowError:
            raise
        except Exception as error:  # noqa: BLE001 - if a decoder does not start, the picture is not the cause
            self._abort(error)
        head = _HEAD.pack(digest.digest(), len(body), picture.width, picture.height)
        return addinfourl(BytesIO(head + picture.jpeg), Message(), "")


def as_it_is(stream: BytesIO, boxes: object = None) -> tuple[Any, ...]:
    """In the place of img2dataset's resizer: the picture, four sizes that the `Spool` reads from it, and no error."""
    return stream.getvalue(), None, None, None, None, None


class Spool:
    """Replaces img2dataset's writers, which write in order of completion. Pictures are on disk, rows by number."""

    def __init__(self, path: Path, abort: Abort) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self._file = path.open("w+b")
        self._places: dict[int, tuple[int, int]] = {}
        self._abort = abort

    def write(self, made: bytes | None, key: str, caption: object, meta: dict[str, Any]) -> None:
        """img2dataset calls it from one thread, once for each URL."""
        number = meta["url_number"]
        if made is None:
            words = meta["error_message"] or ""
            # Other errors are urllib's, which refuses some URLs before the opener sees them, and may quote them.
            self.fail(number, parse_row_error(words) or RowError("invalid_url", "this is no http or https address"))
            return
        digest, size, width, height = _HEAD.unpack_from(made)
        try:
            self._places[number] = self._file.tell(), len(made) - _HEAD.size
            self._file.write(memoryview(made)[_HEAD.size :])
        except OSError as error:
            self._abort(error)
        self.rows[number] = {
            "status": "ok",
            "sha256": digest.hex(),
            "width": width,
            "height": height,
            "bytes": size,
            "member": tarfiles.member_name(number),
        }

    def fail(self, number: int, failure: RowError) -> None:
        """Record a URL without a picture."""
        self.rows[number] = {"status": "failed", "cause": failure.cause, "error": failure.error}

    def close(self) -> None:
        """img2dataset calls it at the end."""
        self._file.flush()

    def pictures(self) -> Iterator[tuple[str, bytes]]:
        """Name and JPEG in ledger order."""
        for number, (start, size) in sorted(self._places.items()):
            self._file.seek(start)
            yield tarfiles.member_name(number), self._file.read(size)


if __name__ == "__main__":
    lifeline.hold()  # also for the forks, which are in its process group
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        serve(Connection(int(sys.argv[1])), unnamed.Acceptor.of(int(sys.argv[2])))
