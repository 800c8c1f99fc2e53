"""An engine runs the two stages of a source that take time: download and score, each over many shards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self, TypeVar

from pipeline.download import by_source
from pipeline.engine import local
from pipeline.engine.local import Outcome, Shards, Work
from pipeline.sources.source import Source
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from pipeline.web.guard import Guard


class Planned(Protocol):
    """The stages of a source, as a machine would compute them (`pipeline.scoring.plan.Plan`)."""

    @property
    def shards(self) -> Stage:
        """The download."""

    @property
    def scores(self) -> Mapping[str, Stage]:
        """The scorers of single shards, by name."""


P = TypeVar("P", bound=Planned)


class Engine(AbstractContextManager[Any], Protocol):
    """Runs the stages of one source in a `with` block, at whose end all its processes end.

    `download` and `score` yield an outcome for each shard, and may be at work at the same time, each in one thread.
    A ShardError is an outcome; any other error of a stage is raised.
    """

    def agree(self, make_plan: Callable[[], P]) -> P:
        """The plan of the source, made where its scorers run. Raises ClusterError if machines do not agree."""
        ...

    def download(self, shards: Shards) -> Iterator[Outcome]:
        """Download the shards."""
        ...

    def score(self, make_scoring: Callable[[], Work], shards: Shards) -> Iterator[Outcome]:
        """Compute the scores of shards that are downloaded. `make_scoring` loads the scorers."""
        ...


class LocalEngine:
    """This machine: several downloads at once, and a scoring process for each of the `devices`.

    `devices` are values of `CUDA_VISIBLE_DEVICES`. `guard` defaults to the policy of the source.
    """

    def __init__(self, source: Source, storage: Storage, devices: Sequence[str], guard: Guard | None = None) -> None:
        self._downloading, self._devices = by_source.fetching(source, storage, guard), devices

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._downloading.__exit__(*error)

    def agree(self, make_plan: Callable[[], P]) -> P:
        """The plan of this machine."""
        return make_plan()

    def download(self, shards: Shards) -> Iterator[Outcome]:
        """In processes of this machine."""
        return local.run_wide(self._downloading, shards)

    def score(self, make_scoring: Callable[[], Work], shards: Shards) -> Iterator[Outcome]:
        """In this process, or with several devices in a process for each."""
        return local.run_on_devices(make_scoring, shards, self._devices)
