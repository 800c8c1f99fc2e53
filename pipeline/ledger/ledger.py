"""The ledger: which pairs of a source were ever seen, and in which shard each of them lives.

It only grows. A run appends shards for the pairs that it has not seen, in one commit; a line inserted anywhere in the
source moves nothing. A pair whose extra columns changed is appended again, and the newer entry counts. So is a pair
that is to be fetched once more: of several shards that hold an entry the newest counts. Only a takedown takes words
away: it commits a shard's number anew, with another object behind it (`pipeline.takedown.purge`).
"""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BusyError
from pipeline.store import duck
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

SHARD_NUMBER = rf"regexp_extract({duck.FILE}, '(\d+)-[0-9a-f]+\.parquet$', 1)::INTEGER"
"""SQL for the number of the shard that a row of `duck.parquet(..., "filename")` was read from."""


@dataclass(frozen=True)
class Shard:
    """Pairs that are fetched and scored together: `rows` of them, in the Parquet object `key`.

    Its columns: uid, entry (uid, or a digest of uid and the extra columns), url, caption, url_number (the distinct URL
    inside the shard, counted from 0 in order of appearance), and the extra columns. `revised` shards hold entries that
    were in the ledger before, to be fetched once more or without what was forgotten.
    """

    number: int
    key: str
    rows: int
    revised: Literal["retried", "forgotten"] | None = None


@dataclass(frozen=True)
class Ledger:
    """What a source holds now. input = repeated + rows; `shards` are those with a pair that is in the source now.

    `current` is the key of a Parquet object with the column `entry` of those pairs, or None where it is every pair of
    `shards`. `new` were not seen before, `amended` of them differ only in extra columns, `gone` have left the source.
    `digest` is the same for the same pairs in any order.
    """

    shards: tuple[Shard, ...]
    current: str | None
    digest: str
    input: int
    repeated: int
    rows: int
    new: int
    amended: int
    gone: int

    @property
    def revision(self) -> str | None:
        """What the shards hold that the digest does not tell: retried and forgotten entries. None without any."""
        keys = [shard.key for shard in self.shards if shard.revised]
        return hashlib.sha256("\n".join(keys).encode()).hexdigest() if keys else None


def replace_shard(storage: Storage, shard: Shard, pairs: pa.Table) -> None:
    """Let other rows stand under a shard's number: as many, and the same entries, less what was forgotten of them.

    The object with what they were is nobody's then, and stays until it is removed.
    """
    with storage.scratch() as scratch:
        commit(storage, [put_shard(storage, scratch, shard.number, pairs, shard.revised or "forgotten")])


def past_ledger(storage: Storage, digest: str, input: int, repeated: int, numbers: Collection[int]) -> Ledger:  # noqa: A002
    """The ledger of an earlier run, by its digest, its counts and the numbers of its shards; nothing in it is new."""
    current = current_key(digest)
    return Ledger(
        shards=tuple(shard for shard in committed(storage) if shard.number in numbers),
        current=current if storage.done(current) else None,
        digest=digest,
        input=input,
        repeated=repeated,
        rows=input - repeated,
        new=0,
        amended=0,
        gone=0,
    )


def committed(storage: Storage) -> list[Shard]:
    """Every shard of the ledger as it was committed last, those that no pair of the source lives in any more, too."""
    commits: list[dict[str, Any]] = [json.loads(storage.fetch(key).read_bytes()) for key in storage.keys("ledger")]
    return list({each["number"]: Shard(**each) for commit in commits for each in commit["shards"]}.values())


def put_shard(
    storage: Storage, scratch: Path, number: int, pairs: pa.Table, revised: Literal["retried", "forgotten"] | None
) -> Shard:
    """Store the pairs of a shard under its number and their digest. It counts once it is committed."""
    local = scratch / "shard.parquet"
    pq.write_table(pairs, local, compression="zstd")
    sha = hashlib.sha256(local.read_bytes()).hexdigest()
    shard = Shard(number, f"pairs/{number:05d}-{sha[:8]}.parquet", len(pairs), revised)
    storage.put_file(shard.key, local)
    return shard


def commit(storage: Storage, shards: Sequence[Shard]) -> None:
    """Add shards to the ledger, all or none. Raises BusyError where another run added some meanwhile."""
    commit = canonical_json({"shards": [asdict(shard) for shard in shards]})
    if not storage.put_if_absent(f"ledger/{len(storage.keys('ledger')):08d}.json", commit):
        raise BusyError("another run appended to the ledger meanwhile; run the same command again")


def current_key(digest: str) -> str:
    """The key of the entries that are in the source now, for a ledger that holds others, too."""
    return f"pairs/current-{digest[:16]}.parquet"
