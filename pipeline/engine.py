"""Running a stage over shards. A shard that fails is tried once more, then left out of this run: quarantined."""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Protocol, runtime_checkable

from pipeline.errors import ShardError
from pipeline.pairs import Shard


class Work(Protocol):
    """A stage at work; it must be safe to run twice on a shard."""

    def __call__(self, shard: Shard, /) -> None:
        """Leave the shard's result. Raises ShardError for a shard that is to blame itself."""
        ...


@runtime_checkable
class LooksAhead(Protocol):
    """A stage that can begin with a shard while it is at work on the one before."""

    def expect(self, shard: Shard) -> None:
        """Told before each shard which one comes after it."""
        ...


def run(make_stage: Callable[[], Work], shards: Sequence[Shard]) -> Iterator[tuple[Shard, ShardError | None]]:
    """Yield each shard with its error, None if its result is there now.

    `make_stage` is called once, so that what it loads serves all shards. Only ShardError is survived: anything else (a
    full disk, a wrong model) would fail the next shard too. The next run tries a quarantined shard again, because
    nothing is there under its key.
    """
    stage = make_stage()
    for shard, following in zip_longest(shards, shards[1:]):
        if following and isinstance(stage, LooksAhead):
            stage.expect(following)
        yield shard, _tried(stage, shard)


def _tried(stage: Work, shard: Shard) -> ShardError | None:
    try:
        stage(shard)
    except ShardError:
        try:
            stage(shard)
        except ShardError as again:
            return again
    return None
