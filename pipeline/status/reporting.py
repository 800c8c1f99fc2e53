"""Keeps the record of a run while it is at work, from a thread, by looking at what is stored."""

import contextlib
import os
import platform
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import WinnowError
from pipeline.ledger.ledger import Ledger
from pipeline.manifest.manifest import Manifest
from pipeline.process.machine import started
from pipeline.scoring.plan import Plan
from pipeline.status import gpus
from pipeline.status.published import failures_by_cause
from pipeline.status.record import Gpu, Look, Record, Step
from pipeline.store.storage import Storage

EVERY = 5.0
"""Seconds between two beats."""

LOOKED = 10.0
"""Seconds between two looks that are kept, at least."""

LOOKS = 60
"""Looks that are kept, besides the first one."""

READ = 200
"""Shards whose failures are counted in one beat, so that a run that resumes with thousands is not slowed down."""


class Reporting:
    """The record of one run of a plan. `begin` starts the thread."""

    def __init__(self, plan: Plan, storage: Storage, ledger: Ledger) -> None:
        self._plan, self._storage, self._ledger = plan, storage, ledger
        self._start, self._ended = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True, name="status")
        self._looks: deque[Look] = deque(maxlen=LOOKS)
        self._shares: dict[str, deque[float]] = {}
        self._changing = threading.Lock()
        before = Record.read(storage)
        self._record = Record(
            run=uuid.uuid4().hex,
            host=platform.node(),
            pid=os.getpid(),
            process=started(os.getpid()),
            begun=datetime.now(UTC).isoformat(timespec="seconds"),
            beat=0,
            state="running",
            phase="download and score",
            shards=tuple(sorted(shard.number for shard in ledger.shards)),
            pairs=sum(shard.rows for shard in ledger.shards),
            steps=steps(plan, ledger, {}),
            looks=(),
            failed={},
            counted=(),
            quarantined={},
            gpus=(),
        )
        self._resume(before)
        self._first = self._look(self._missing())
        self._idle = self._nothing_to_do(before)
        self._before = before.manifest if before else None

    def _resume(self, before: Record | None) -> None:
        """Take over the failures that the run before has counted in shards of this one."""
        if before and before.steps[:1] == self._record.steps[:1] and set(before.counted) <= set(self._record.shards):
            self._record = replace(self._record, failed=before.failed, counted=before.counted)

    def _nothing_to_do(self, before: Record | None) -> bool:
        """Whether the last run finished the same work. Then nothing is written, as by all of a run without work."""
        now = self._record
        same = before and (before.state, before.shards, before.steps) == ("finished", now.shards, now.steps)
        return bool(same) and all(done == len(now.shards) for done in self._first.done.values())

    def begin(self) -> None:
        """Write the record, and go on with it in a thread."""
        self.beat()
        self._thread.start()

    def quarantine(self, reasons: Mapping[int, str]) -> None:
        """These shards were given up."""
        with self._changing:
            self._record = replace(self._record, quarantined=dict(reasons))

    def publishing(self, quarantined: Mapping[int, str]) -> None:
        """Every shard is downloaded and scored, or given up."""
        found = steps(self._plan, self._ledger, quarantined)
        with self._changing:
            self._record = replace(self._record, phase="publish", steps=found, quarantined=dict(quarantined))

    def finish(self, manifest: str) -> None:
        """The manifest is published."""
        failed = failures_by_cause(Manifest.open(self._storage, manifest))
        counted = tuple(number for number in self._record.shards if number not in self._record.quarantined)
        self._idle = self._idle and manifest == self._before
        self._end(replace(self._record, state="finished", manifest=manifest, failed=failed, counted=counted))

    def fail(self, error: BaseException) -> None:
        """The run ends with an error."""
        why = f"{type(error).__name__}: see its log" if isinstance(error, Exception) else "it was stopped"
        why = str(error) if isinstance(error, WinnowError) else why
        self._end(replace(self._record, state="failed", error=why))

    def _end(self, record: Record) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._record = record
        self.beat()

    def beat(self) -> None:
        """Look at what is stored, and write the record. An error of the store is the run's own to raise."""
        if self._idle:
            return
        with self._changing, contextlib.suppress(WinnowError, OSError):
            missing = self._missing()
            now = self._look(missing)
            if self._record.manifest is None:
                self._count(missing["download"])
            looks = (self._first, *self._looks, now)
            beat = self._record.beat + 1
            self._record = replace(self._record, beat=beat, looks=looks, gpus=self._busy())
            self._record.write(self._storage)
            if not self._looks or now.seconds - self._looks[-1].seconds >= LOOKED:
                self._looks.append(now)

    def _beat_on(self) -> None:
        while not self._ended.wait(EVERY):
            self.beat()

    def _missing(self) -> dict[str, dict[int, str]]:
        return {step.name: step.missing(self._storage, self._record.shards) for step in self._record.steps}

    def _look(self, missing: Mapping[str, Mapping[int, str]]) -> Look:
        count = len(self._record.shards)
        return Look(
            round(time.monotonic() - self._start, 2), {name: count - len(keys) for name, keys in missing.items()}
        )

    def _count(self, missing: Collection[int]) -> None:
        """Count the failures of some shards that are downloaded and not counted yet."""
        counted, failed = set(self._record.counted), Counter(self._record.failed)
        new = [number for number in self._record.shards if number not in counted and number not in missing][:READ]
        keys = [self._plan.shards.item(number, ".parquet") for number in new]
        for path in self._storage.fetch_all(keys):
            causes = pq.read_table(path, columns=["cause"], partitioning=None)["cause"].drop_null()
            failed.update({each["values"]: each["counts"] for each in pc.value_counts(causes).to_pylist()})
        self._record = replace(self._record, failed=dict(failed), counted=tuple(sorted(counted | set(new))))

    def _busy(self) -> tuple[Gpu, ...]:
        """The GPUs, each with the mean of what was seen in the last minute."""
        found = gpus.busy()
        for gpu in found:
            self._shares.setdefault(gpu.name, deque(maxlen=round(60 / EVERY))).append(gpu.busy)
        return tuple(replace(gpu, busy=_mean(self._shares[gpu.name])) for gpu in found)


@contextlib.contextmanager
def reporting(plan: Plan, storage: Storage, ledger: Ledger) -> Iterator[Reporting]:
    """Keep the record of a run in the block, which calls `finish` at its end. The caller holds the store's lock."""
    report = Reporting(plan, storage, ledger)
    report.begin()
    try:
        yield report
    except BaseException as error:
        report.fail(error)
        raise


def steps(plan: Plan, ledger: Ledger, quarantined: Mapping[int, str]) -> tuple[Step, ...]:
    """The download, the scorers of shards, and those of the whole pool."""
    found = [Step("download", {plan.shards.folder: [".tar", ".parquet"]})]
    for name, stage in plan.scores.items():
        objects: dict[str, Sequence[str]] = {stage.folder: [".parquet"]}
        if embeddings := plan.embeddings.get(name):
            objects[embeddings.folder] = [".npy"]
        found.append(Step(name, objects))
    pool = plan.pool(ledger, quarantined)
    return (*found, *(Step(name, {stage.folder: [".parquet"]}, True) for name, stage in pool.items()))


def _mean(values: deque[float]) -> float:
    return round(sum(values) / len(values), 3)
