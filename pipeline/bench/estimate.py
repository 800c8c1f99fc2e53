"""Hours, bytes and money of a pool: `winnow plan`. docs/plan.md has the formula."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from pipeline.bench.rates import Machine, Prices, Rates, ScorerRates
from pipeline.errors import SourceError
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import Spec

HOUR, GB = 3600.0, 1e9

ALONE = "one machine"
"""The limit of a step that no second machine makes faster."""


class Step(NamedTuple):
    """A step of a run: its rows, the bytes that it stores, hours and money. None: nothing is known.

    `machines` is 0 for a step that needs none. `limit` says what its hours depend on.
    """

    name: str
    rows: int
    bytes: float | None
    machines: int
    hours: float | None
    money: float | None
    limit: str


@dataclass(frozen=True)
class Fleet:
    """So many machines, each with so many GPUs; `months` of storage are paid."""

    machines: int = 1
    gpus: int = 0
    months: float = 1.0


@dataclass(frozen=True)
class Work:
    """A list of `rows` pairs, in shards of `shard_size`, and the scorers of its downloaded pairs by name.

    `scorer_bytes` are those of a row, by name, where they are known. `selection` is the kind of the recipe's last step.
    """

    rows: int
    shard_size: int
    scorers: Mapping[str, Spec]
    scorer_bytes: Mapping[str, float] = field(default_factory=dict)
    selection: str | None = None


@dataclass(frozen=True)
class Estimate:
    """The steps of a run on a fleet. Sums leave out what is not known: `unknown` names those steps."""

    work: Work
    rates: Rates
    prices: Prices
    fleet: Fleet
    steps: Sequence[Step]

    @property
    def pairs(self) -> int:
        """The pairs that download."""
        return round(self.work.rows * self.rates.pool.success)

    @property
    def bytes(self) -> float:
        """All that is stored."""
        return sum(each.bytes or 0 for each in self.steps)

    @property
    def hours(self) -> float:
        """One step after another. In a run they overlap."""
        return sum(each.hours or 0 for each in self.steps)

    @property
    def money(self) -> float:
        """Machines, storage, requests and egress."""
        return sum(each.money or 0 for each in self.steps)

    @property
    def unknown(self) -> list[str]:
        """The steps whose time was never measured."""
        return [each.name for each in self.steps if each.machines and each.hours is None]

    def to_json(self) -> dict[str, Any]:
        """All of it, with the sums."""
        pool = {"rows": self.work.rows, "pairs": self.pairs, **self.rates.pool.model_dump()}
        total = {"bytes": self.bytes, "hours": self.hours, "money": self.money, "unknown": self.unknown}
        return {
            "pool": pool,
            "fleet": asdict(self.fleet),
            "steps": [each._asdict() for each in self.steps],
            "total": total,
            "rates": self.rates.model_dump(),
            "prices": self.prices.model_dump(),
        }


def estimate(work: Work, rates: Rates, prices: Prices, fleet: Fleet) -> Estimate:
    """What the work takes on this fleet."""
    steps = [*_Reckoner(work, rates, prices, fleet).steps()]
    stored, objects = sum(each.bytes or 0 for each in steps), _objects(work)
    kept = round(work.rows * rates.pool.success * rates.pool.kept)
    leaving = kept * (rates.pool.picture_bytes + rates.rows.tar)
    months = f"{fleet.months:g} month{'s' if fleet.months != 1 else ''}"
    paid = (
        ("storage", work.rows, stored / GB * prices.gb_month * fleet.months, f"of all bytes, {months}"),
        ("requests", work.rows, objects / 1000 * prices.thousand_puts, f"{objects:,} objects are written"),
        ("egress", kept, leaving / GB * prices.gb_out, f"the kept pictures leave once, {leaving / GB:,.3g} GB"),
    )
    steps += [Step(name, rows, None, 0, None, money, limit) for name, rows, money, limit in paid]
    return Estimate(work, rates, prices, fleet, steps)


def fleet_within(work: Work, rates: Rates, prices: Prices, fleet: Fleet, hours: float) -> Fleet:
    """The fewest machines that need no more hours. Raises SourceError if what one machine does alone takes longer."""
    one = estimate(work, rates, prices, replace(fleet, machines=1))
    alone = sum(each.hours or 0 for each in one.steps if each.limit == ALONE)
    if alone >= hours:
        raise SourceError(
            f"no number of machines ends within {hours:g} hours: what one machine does alone takes {alone:.3g}"
        )
    return replace(fleet, machines=max(1, math.ceil((one.hours - alone) / (hours - alone))))


class _Reckoner:
    """The steps that machines do."""

    def __init__(self, work: Work, rates: Rates, prices: Prices, fleet: Fleet) -> None:
        self._work, self._rates, self._fleet = work, rates, fleet
        self._cpu, self._gpu = prices.cpu, prices.gpu
        self._pairs = round(work.rows * rates.pool.success)

    def steps(self) -> Iterator[Step]:
        """In the order of a run."""
        rows, million, of_row = self._work.rows, self._rates.seconds_per_million, self._rates.rows
        yield self._alone("list", rows, rows * of_row.ledger, rows / 1e6 * million.list)
        yield self._download()
        for name, spec in self._work.scorers.items():
            yield self._scorer(name, spec)
        if selection := self._work.selection:  # of all downloaded pairs: how many pass the filters is not known
            yield self._alone("selection", self._pairs, 0, self._pairs / 1e6 * self._rates.selections[selection])
        yield self._alone("publish", rows, rows * of_row.published, rows / 1e6 * million.publish)

    def _download(self) -> Step:
        rows, pool, rates, machine = self._work.rows, self._rates.pool, self._rates.download, self._cpu
        failed = rows - self._pairs
        limits = {
            "the processor": (self._pairs * rates.core_seconds + failed * rates.failed_core_seconds) / machine.cores,
            "waiting for servers": rows * rates.wait_seconds / (rates.requests * machine.cores),
            "the network": self._pairs * pool.fetched_bytes * 8 / (machine.gbit * 1e9),
        }
        limit = max(limits, key=lambda name: limits[name])
        stored = self._pairs * (pool.picture_bytes + self._rates.rows.tar) + rows * self._rates.rows.download
        return self._shared("download", rows, stored, limits[limit], machine, limit)

    def _scorer(self, name: str, spec: Spec) -> Step:
        rates = self._rates.scorers.get(spec.kind, ScorerRates())
        stored = self._work.rows * self._work.scorer_bytes.get(name, rates.bytes)
        if rates.model and isinstance(spec, ClipSpec) and spec.model.removesuffix("-quickgelu") != rates.model:
            return Step(name, self._pairs, stored, self._fleet.machines, None, None, "no rate of this model")
        if rates.seconds_per_million is not None:
            seconds = rates.seconds + self._pairs / 1e6 * rates.seconds_per_million
            return self._alone(name, self._pairs, stored, seconds)
        if self._fleet.gpus and rates.gpu_pairs_per_second:
            seconds = self._pairs / rates.gpu_pairs_per_second / self._fleet.gpus
            return self._shared(name, self._pairs, stored, seconds, self._gpu, "the GPU")
        if rates.core_seconds is None:
            return Step(name, self._pairs, stored, self._fleet.machines, None, None, f"no rate of kind {spec.kind}")
        seconds = self._pairs * rates.core_seconds / self._cpu.cores
        return self._shared(name, self._pairs, stored, seconds, self._cpu, "the processor")

    def _shared(self, name: str, rows: int, stored: float, seconds: float, machine: Machine, limit: str) -> Step:
        """A step of `seconds` of one machine, which all machines share."""
        hours, machines = seconds / HOUR / self._fleet.machines, self._fleet.machines
        return Step(name, rows, stored, machines, hours, hours * machines * machine.hour, limit)

    def _alone(self, name: str, rows: int, stored: float, seconds: float) -> Step:
        return Step(name, rows, stored, 1, seconds / HOUR, seconds / HOUR * self._cpu.hour, ALONE)


def _objects(work: Work) -> int:
    """Of a shard its pairs, tar, download, and the results of each scorer; of a hundred shards rows and verdicts."""
    shards = math.ceil(work.rows / work.shard_size)
    results = sum(2 if spec.encoder else 1 for spec in work.scorers.values())
    return shards * (3 + results) + 2 * math.ceil(shards / 100)
