"""What a download process is told: one shard, its limits, and the columns of its result."""

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
"""Of a shard's Parquet file."""


@dataclass(frozen=True)
class Job:
    """What the process of one shard is told. `pairs` is the shard's pairs file, `blocked` what must not come back."""

    pairs: Path
    folder: Path
    guard: Guard
    limits: Limits
    threads: int
    blocked: Blocked
