"""Downloads one shard with img2dataset, in a process that may be killed at any time. `fork_server` starts it.

Importing this module imports img2dataset (3 s). It is imported once, and each shard runs in a fork.
"""

import contextlib
import hashlib
import os
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # img2dataset imports it, and it would call the network

import pyarrow as pa
import pyarrow.parquet as pq
from img2dataset.downloader import Downloader

from pipeline.download.download import PARQUET, TAR
from pipeline.download.job import COLUMNS, Job
from pipeline.failure import FORGOTTEN, TAKEN_DOWN, RowError, parse_row_error
from pipeline.images.sandbox import Decoder
from pipeline.process import lifeline
from pipeline.store import tarfiles
from pipeline.web.client import Opener

Abort: TypeAlias = Callable[[Exception], NoReturn]
"""Reports an error to the parent and ends the process. img2dataset would catch the exception and lose the row."""


def serve(line: Connection) -> None:
    """Run each Job that arrives in a fork, until the connection closes.

    Sends True once, then a reply for each job: None if it is done, an OSError of the disk, or an error message.
    """
    sys.path[:] = line.recv()
    line.send(True)
    while True:
        job = line.recv()
        child = os.fork()
        if child == 0:
            _run(job, line)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            line.send(f"its process died of {signal.Signals(-status).name if status < 0 else f'status {status}'}")


def _run(job: Job, line: Connection) -> NoReturn:
    def abort(error: Exception) -> NoReturn:
        line.send(error if type(error) is OSError else f"{type(error).__name__}: {error}")
        os._exit(0)

    try:
        with Decoder(job.limits) as decoder:
            _fetch(job, decoder, abort)
        line.send(None)
        os._exit(0)
    except Exception as error:  # noqa: BLE001 - the parent handles it
        abort(error)
    finally:
        os._exit(1)


def _fetch(job: Job, decoder: Decoder, abort: Abort) -> None:
    pairs = pq.read_table(job.pairs, columns=["uid", "url", "url_number"])
    urllib.request.install_opener(Opener(job.guard, Path(tempfile.gettempdir(), "robots")))
    spool = Spool(job.folder / "spool", abort)
    distinct = dict(zip(pairs["url_number"].to_pylist(), pairs["url"].to_pylist(), strict=True))
    for row in pairs.to_pylist() if job.blocked else ():
        if job.blocked.covers(row["uid"], row["url"]) and distinct.pop(row["url_number"], None) is not None:
            spool.fail(row["url_number"], RowError(FORGOTTEN, TAKEN_DOWN))
    if distinct:
        _download(job, spool, Resizer(decoder, job.blocked.pictures, abort), distinct)
    tarfiles.write(job.folder / TAR, spool.pictures())
    numbered = zip(pairs["uid"].to_pylist(), pairs["url_number"].to_pylist(), strict=True)
    rows = [{"uid": uid, **spool.rows[number]} for uid, number in numbered]
    pq.write_table(pa.Table.from_pylist(rows, COLUMNS), job.folder / PARQUET, compression="zstd")


def _download(job: Job, spool: "Spool", resizer: "Resizer", distinct: dict[int, str]) -> None:
    """Let img2dataset fetch the URLs, by number. Raises RuntimeError if it loses one."""
    listed = job.folder / "urls.arrow"
    _list(listed, distinct)
    Downloader(
        sample_writer_class=lambda *_: spool,
        resizer=resizer,
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


@dataclass(frozen=True)
class Fetched:
    """A result of the Resizer, for the Spool. `sha256` and `size` are of the downloaded bytes."""

    jpeg: bytes
    sha256: str
    size: int


class Resizer:
    """Replaces img2dataset's resizer, which decodes in its own process and checks sizes afterwards."""

    def __init__(self, decoder: Decoder, blocked: Collection[str], abort: Abort) -> None:
        self._decoder, self._blocked, self._abort = decoder, blocked, abort

    def __call__(self, stream: BytesIO, boxes: object = None) -> tuple[Any, ...]:
        """(picture, width, height, original width, original height, error)."""
        data = stream.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            if sha256 in self._blocked:
                raise RowError(FORGOTTEN, TAKEN_DOWN)
            picture = self._decoder.decode(data)
        except RowError as failure:
            return None, None, None, None, None, str(failure)
        except Exception as error:  # noqa: BLE001 - if the decoder does not start, the picture is not the cause
            self._abort(error)
        made = Fetched(picture.jpeg, sha256, len(data))
        return made, picture.width, picture.height, picture.width, picture.height, None


class Spool:
    """Replaces img2dataset's writers, which write in order of completion. Pictures are on disk, rows by number."""

    def __init__(self, path: Path, abort: Abort) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self._file = path.open("w+b")
        self._places: dict[int, tuple[int, int]] = {}
        self._abort = abort

    def write(self, picture: Fetched | None, key: str, caption: object, meta: dict[str, Any]) -> None:
        """img2dataset calls it from one thread, once for each URL."""
        number = meta["url_number"]
        if picture is None:
            words = meta["error_message"] or ""
            # Other errors are urllib's, which refuses some URLs before the opener sees them, and may quote them.
            self.fail(number, parse_row_error(words) or RowError("invalid_url", "this is no http or https address"))
            return
        try:
            self._places[number] = self._file.tell(), len(picture.jpeg)
            self._file.write(picture.jpeg)
        except OSError as error:
            self._abort(error)
        self.rows[number] = {
            "status": "ok",
            "sha256": picture.sha256,
            "width": meta["width"],
            "height": meta["height"],
            "bytes": picture.size,
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
        serve(Connection(int(sys.argv[1])))
