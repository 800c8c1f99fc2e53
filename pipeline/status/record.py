"""What a run tells about itself while it writes: one small object of the store, replaced every few seconds.

Results alone say what is done. The record adds what only the run knows: its stages, its shards, how fast it goes, why
pairs failed, which shards it gave up, how busy its GPUs are, and whether it is at work. No two clocks are compared: all
`seconds` are of the run's own clock, which is never set back.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal, Self

from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

KEY = "run.json"

State = Literal["running", "finished", "failed"]


@dataclass(frozen=True)
class Step:
    """A stage, and where its results are: the suffixes of a shard's objects, by folder.

    One `of_pool` needs all rows, and is done at once at the end.
    """

    name: str
    objects: Mapping[str, Sequence[str]]
    of_pool: bool = False

    def missing(self, storage: Storage, shards: Collection[int]) -> dict[int, str]:
        """For each of these shards without all its objects, the key of one that it lacks. Lists the folders alone."""
        found: dict[int, str] = {}
        for folder, suffixes in self.objects.items():
            there = set(storage.keys(folder))
            for suffix in suffixes:
                keys = ((number, f"{folder}/{number:05d}{suffix}") for number in shards)
                found |= {number: key for number, key in keys if key not in there}
        return found


@dataclass(frozen=True)
class Look:
    """How many shards each step had done after so many seconds of the run."""

    seconds: float
    done: Mapping[str, int]


@dataclass(frozen=True)
class Gpu:
    """A GPU of the machine of a run: the share of time in which it computed, lately, and its memory in MiB."""

    name: str
    busy: float
    used: int
    memory: int


@dataclass(frozen=True)
class Record:
    """A run as it was at its last beat.

    `process` is its start time in the format of its system. `begun` is UTC by the clock of its machine, for a person
    to read. `failed` counts pairs by cause, in the download of the shards `counted`; in those of the manifest if there
    is one. `quarantined` has a reason for each shard, by its number. `error` is why it failed.
    """

    run: str
    host: str
    pid: int
    process: str | None
    begun: str
    beat: int
    state: State
    phase: str
    shards: tuple[int, ...]
    pairs: int
    steps: tuple[Step, ...]
    looks: tuple[Look, ...]
    failed: Mapping[str, int]
    counted: tuple[int, ...]
    quarantined: Mapping[int, str]
    gpus: tuple[Gpu, ...]
    manifest: str | None = None
    error: str | None = None

    @classmethod
    def read(cls, storage: Storage) -> Self | None:
        """The record of the last run; None if no run has left one that this winnow can read."""
        if not storage.done(KEY):
            return None
        value = json.loads(storage.fetch(KEY).read_bytes())
        try:
            return cls._parse(value)
        except (KeyError, TypeError):  # of another winnow
            return None

    def write(self, storage: Storage) -> None:
        """Replace the record."""
        with storage.making(KEY) as path:
            path.write_bytes(canonical_json(self._json()))

    @classmethod
    def _parse(cls, value: dict[str, Any]) -> Self:
        return cls(
            **{
                **value,
                "shards": expand(value["shards"]),
                "counted": expand(value["counted"]),
                "steps": tuple(Step(**each) for each in value["steps"]),
                "looks": tuple(Look(**each) for each in value["looks"]),
                "quarantined": {int(number): reason for number, reason in value["quarantined"].items()},
                "gpus": tuple(Gpu(**each) for each in value["gpus"]),
            }
        )

    def _json(self) -> dict[str, Any]:
        value = asdict(self)
        spans = {"shards": ranges(self.shards), "counted": ranges(self.counted)}
        return value | spans | {"quarantined": {str(number): reason for number, reason in self.quarantined.items()}}


def ranges(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending runs of numbers, each as [first, last]: ten thousand shards are one pair of numbers."""
    ordered = enumerate(sorted(set(numbers)))
    runs = ([number for _, number in run] for _, run in groupby(ordered, lambda each: each[1] - each[0]))
    return [[run[0], run[-1]] for run in runs]


def expand(spans: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """The reverse of `ranges`."""
    return tuple(number for first, last in spans for number in range(first, last + 1))
