"""The jobs of the processes that make shards: one shard and its limits; and the files and columns of the result."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from pipeline.ledger.blocklist import Blocked
from pipeline.schema import MADE
from pipeline.web.guard import Guard

COLUMNS = pa.schema(
    map(MADE.field, ("uid", "status", "cause", "error", "sha256", "width", "height", "bytes", "member"))
)
"""The schema of a shard's Parquet file."""

TAR, PARQUET = "shard.tar", "shard.parquet"
"""The files that a job writes to its folder."""

SECONDS = struct.Struct(">d")
"""The first message of a job: how long it may take."""


@dataclass(frozen=True)
class Job:
    """The job of one process: results of the pairs file `pairs` go to `folder`; `blocked` is the block list.

    `threads` is the number of requests at once.
    """

    pairs: Path
    folder: Path
    guard: Guard
    threads: int
    blocked: Blocked


@dataclass(frozen=True)
class Local:
    """Where the pictures of one list are: the settings of `pipeline.files.read.Reader`."""

    base: Path
    symlinks: bool
    image: str | None


@dataclass(frozen=True)
class TakingJob:
    """The job of one process that takes local pictures. `lists` are those of a union by `ORIGIN`, or the one of ""."""

    pairs: Path
    folder: Path
    lists: Mapping[str, Local]
    max_bytes: int
    blocked: Blocked


AnyJob: TypeAlias = Job | TakingJob
