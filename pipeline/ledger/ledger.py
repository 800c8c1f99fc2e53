"""The ledger: all pairs of a source that were ever read, and the shard of each pair.

It only grows. A run appends shards with new pairs in one commit. Inserting a line anywhere in the source moves no other
pair. A pair is appended again if its extra columns changed, or for another download. The newest shard with an entry
counts. Only a takedown removes words: it commits a shard's number again, with another object
(`pipeline.takedown.purge`).
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import BusyError, StorageError
from pipeline.store import duck
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

SHARD_NUMBER = rf"regexp_extract({duck.FILE}, '(\d+)-[0-9a-f]+\.parquet$', 1)::INTEGER"
"""SQL for the number of the shard that a row of `duck.parquet(..., "filename")` was read from."""


@dataclass(frozen=True)
class Shard:
    """Pairs that are downloaded and scored together: `rows` pairs in the Parquet object `key`.

    Columns: uid, entry (uid, or a digest of uid and the extra columns), url, caption, url_number (of the distinct URLs
    of the shard, from 0 in order of appearance), and the extra columns. `revised` shards hold entries that were in the
    ledger before: for another download, or without the words of pairs that were taken down.
    """

    number: int
    key: str
    rows: int
    revised: Literal["retried", "forgotten"] | None = None


@dataclass(frozen=True)
class Ledger:
    """The pairs that are in a source now. input = repeated + rows; `shards` are those with at least one of these pairs.

    `current` is the key of a Parquet object with the column `entry` of these pairs, or None if they are all pairs of
    `shards`. `new` pairs were appended by this run, of which `amended` differ only in extra columns. `gone` pairs have
    left the source. `digest` does not depend on the order of the pairs.
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
        """A digest of the shards with retried or forgotten entries, which `digest` does not cover; None without any."""
        keys = [shard.key for shard in self.shards if shard.revised]
        return hashlib.sha256("\n".join(keys).encode()).hexdigest() if keys else None


def replace_shard(storage: Storage, shard: Shard, pairs: pa.Table) -> None:
    """Commit other rows under a shard's number: the same entries, without the words of some pairs.

    The object with the former rows remains until a takedown removes it.
    """
    with storage.scratch() as scratch:
        commit(storage, [put_shard(storage, scratch, shard.number, pairs, shard.revised or "forgotten")])


def past_ledger(storage: Storage, digest: str, input: int, repeated: int, numbers: Collection[int]) -> Ledger:  # noqa: A002
    """The ledger of an earlier run, from its digest, its counts and the numbers of its shards.

    None of its pairs is new.
    """
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
    """Every shard as it was last committed, including shards whose pairs have all left the source."""
    files = storage.fetch_all(storage.keys("ledger"))
    commits: list[dict[str, Any]] = [json.loads(path.read_bytes()) for path in files]
    return list({each["number"]: Shard(**each) for commit in commits for each in commit["shards"]}.values())


def pairs_files(storage: Storage, shards: Iterable[Shard]) -> list[Path]:
    """The Parquet files of these shards. Raises StorageError if one is missing, because nothing else has its words."""
    shards = list(shards)
    for shard in shards:
        if not storage.done(shard.key):
            raise StorageError(
                f"{shard.key} is missing from {storage.root}, and with it the URLs and captions of {shard.rows} pairs: "
                f"put it back from a backup; without one, move {storage.root} away and run `winnow curate`, which "
                "fetches all pairs of the list again"
            )
    return storage.fetch_all(shard.key for shard in shards)


def put_shard(
    storage: Storage, scratch: Path, number: int, pairs: pa.Table, revised: Literal["retried", "forgotten"] | None
) -> Shard:
    """Store the pairs of a shard under its number and their digest. The shard is used once it is committed."""
    local = scratch / "shard.parquet"
    pq.write_table(pairs, local, compression="zstd")
    sha = hashlib.sha256(local.read_bytes()).hexdigest()
    shard = Shard(number, f"pairs/{number:05d}-{sha[:8]}.parquet", len(pairs), revised)
    storage.put_file(shard.key, local)
    return shard


def commit(storage: Storage, shards: Sequence[Shard]) -> None:
    """Add shards to the ledger, all or none. Raises BusyError if another run added some meanwhile."""
    commit = canonical_json({"shards": [asdict(shard) for shard in shards]})
    if not storage.put_if_absent(f"ledger/{len(storage.keys('ledger')):08d}.json", commit):
        raise BusyError("another run appended to the ledger meanwhile; run the same command again")


def current_key(digest: str) -> str:
    """The key of the entries that are in the source now, for a ledger that also has other entries."""
    return f"pairs/current-{digest[:16]}.parquet"
