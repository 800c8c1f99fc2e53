"""The status of a source: values that a table, JSON and Prometheus show alike."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.status.record import Gpu, Step

State = Literal["running", "finished", "failed", "killed", "published"]
"""Of the last run. "published" if none is recorded, only a manifest."""


@dataclass(frozen=True)
class Progress:
    """A stage: the shards that are done, of how many, and how many more are done in a second, lately.

    One `of_pool` needs all rows, and is done at once at the end. `missing` has, for a run that has finished, keys of
    objects that should exist.
    """

    name: str
    done: int
    total: int
    per_second: float | None = None
    of_pool: bool = False
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """A source. `pairs` are those of all shards; `failed` counts them by cause, in `counted` shards.

    `seconds_left` is for downloads and scorers of shards; None if nothing runs, or too little is done to tell. `lost`
    has keys of the newest manifest that do not exist.
    """

    source: str
    state: State
    stages: tuple[Progress, ...]
    pairs: int
    failed: Mapping[str, int]
    counted: int
    quarantined: Mapping[int, str]
    lost: tuple[str, ...] = ()
    manifest: str | None = None
    phase: str = ""
    host: str = ""
    begun: str = ""
    error: str | None = None
    seconds_left: float | None = None
    gpus: tuple[Gpu, ...] = ()

    @property
    def running(self) -> bool:
        """Whether a run is writing now."""
        return self.state == "running"

    @property
    def shards(self) -> int:
        """The number of shards."""
        return max((stage.total for stage in self.stages), default=0)

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys of objects that a finished run has stored, and that do not exist."""
        return (*self.lost, *(key for stage in self.stages for key in stage.missing))


def progress(
    step: Step, shards: int, missing: Mapping[int, str], quarantined: Mapping[int, str], finished: bool
) -> Progress:
    """The progress of a step, without its rate. A quarantined shard has no results, and misses none."""
    lost = tuple(key for number, key in missing.items() if number not in quarantined) if finished else ()
    return Progress(step.name, shards - len(missing), shards, of_pool=step.of_pool, missing=lost)
