"""The job of a download process: one shard and its limits; and the columns of its result."""

import struct
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.ledger.blocklist import Blocked
from pipeline.schema import MADE
from pipeline.web.guard import Guard

COLUMNS = pa.schema(
    map(MADE.field, ("uid", "status", "cause", "error", "sha256", "width", "height", "bytes", "member"))
)
"""The schema of a shard's Parquet file."""


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
