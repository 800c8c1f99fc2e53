"""Running a stage over shards. A shard that fails is tried once more, then left out of this run: quarantined."""

from collections.abc import Callable, Iterable, Iterator

from pipeline.errors import ShardError
from pipeline.pairs import Shard


def run(
    make_stage: Callable[[], Callable[[Shard], None]], shards: Iterable[Shard]
) -> Iterator[tuple[Shard, ShardError | None]]:
    """Yield each shard with its error, None if its result is there now.

    `make_stage` is called once, so that what it loads serves all shards; the stage it gives must be safe to run twice
    on a shard. Only ShardError is survived: anything else (a full disk, a wrong model) would fail the next shard too.
    The next run tries a quarantined shard again, because nothing is there under its key.
    """
    stage = make_stage()
    for shard in shards:
        yield shard, _tried(stage, shard)


def _tried(stage: Callable[[Shard], None], shard: Shard) -> ShardError | None:
    try:
        stage(shard)
    except ShardError:
        try:
            stage(shard)
        except ShardError as again:
            return again
    return None
