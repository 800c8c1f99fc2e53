"""The job of a download process: one shard and its limits; and the columns of its result."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline.images.decode_process import Limits
from pipeline.ledger.blocklist import Blocked
from pipeline.schema import MADE
from pipeline.web.guard import Guard

COLUMNS = pa.schema(
    map(MADE.field, ("uid", "status", "cause", "error", "sha256", "width", "height", "bytes", "member"))
)
"""The schema of a shard's Parquet file."""


@dataclass(frozen=True)
class Job:
    """The job of one process: results of the pairs file `pairs` go to `folder`; `blocked` is the block list."""

    pairs: Path
    folder: Path
    guard: Guard
    limits: Limits
    threads: int
    blocked: Blocked
