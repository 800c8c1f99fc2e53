"""Looks at a source beside a running `curate`, after a crash, or from another machine.

Nothing is locked and nothing is written. An object that exists is done.
"""

import platform
import time
from collections.abc import Sequence
from dataclasses import replace

from pipeline.process.machine import has_ended
from pipeline.status.progress import Progress, State, Status, progress
from pipeline.status.record import Look, Record
from pipeline.store.storage import Storage

SILENT = 15.0
"""Seconds without a beat after which the run of another machine counts as ended. A run beats every 5 s."""

RECENT = 600.0
"""Seconds of a run that its rate is computed over."""


class Watch:
    """Looks at one store, again and again. Remembers the beats of a run, to notice when they stop."""

    def __init__(self, storage: Storage, silent: float = SILENT) -> None:
        self._storage, self._silent = storage, silent
        self._beat: tuple[str, int] | None = None
        self._moved = False
        self._since = 0.0

    def settled(self) -> Status:
        """As `look`, but waits for the next beat of a run of another machine, up to `silent` seconds."""
        while (record := Record.read(self._storage)) and self._is_alive(record) is None:
            time.sleep(1)
        return self.look()

    def look(self) -> Status:
        """What is done now. Raises StorageError if nothing is there yet."""
        record = Record.read(self._storage)
        if record is None:
            from pipeline.status import published

            return published.status(self._storage)
        running = record.state == "running" and self._is_alive(record) is not False
        state: State = record.state if running or record.state != "running" else "killed"
        stages = self._stages(record)
        if running:
            stages = [replace(each, per_second=rate(record.looks, each.name)) for each in stages]
        return Status(
            source=self._storage.name,
            state=state,
            stages=tuple(stages),
            pairs=record.pairs,
            failed=record.failed,
            counted=len(record.counted),
            quarantined=record.quarantined,
            lost=() if running else self._lost(),
            manifest=record.manifest,
            phase=record.phase,
            host=record.host,
            begun=record.begun,
            error=record.error,
            seconds_left=seconds_left(stages, len(record.quarantined)) if running else None,
            gpus=record.gpus if running else (),
        )

    def _stages(self, record: Record) -> list[Progress]:
        finished = record.state == "finished"
        return [
            progress(step, len(record.shards), step.missing(self._storage, record.shards), record.quarantined, finished)
            for step in record.steps
        ]

    def _lost(self) -> tuple[str, ...]:
        from pipeline.status import published  # it loads DuckDB, which a look at a run has no need of

        return published.lost(self._storage)

    def _is_alive(self, record: Record) -> bool | None:
        """Whether the run is at work; None if it is not known yet, because it belongs to another machine."""
        if record.state != "running":
            return False
        if record.host == platform.node():
            return not has_ended({"host": record.host, "pid": record.pid, "started": record.process})
        beat = record.run, record.beat
        if beat != self._beat:
            self._moved = self._beat is not None
            self._beat, self._since = beat, time.monotonic()
        if time.monotonic() - self._since > self._silent:
            return False
        return True if self._moved else None


def rate(looks: Sequence[Look], step: str) -> float | None:
    """Shards a second in the last minutes; if none was done in them, since the run began. None if none was done."""
    timed = [(look.seconds, look.done[step]) for look in looks if step in look.done]
    if not timed:
        return None
    end, done = timed[-1]
    recent = next(each for each in timed if end - each[0] <= RECENT)
    return next(((done - before) / (end - start) for start, before in (recent, timed[0]) if done > before), None)


def seconds_left(stages: Sequence[Progress], quarantined: int) -> float | None:
    """Of the slowest stage, since all of them are at work at the same time. None if one has no rate yet."""
    left = {each: max(0, each.total - each.done - quarantined) for each in stages if not each.of_pool}
    behind = [(each, count) for each, count in left.items() if count]
    if any(not each.per_second for each, _ in behind):
        return None
    return max((count / each.per_second for each, count in behind if each.per_second), default=0.0)
