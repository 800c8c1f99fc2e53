"""Prefect's tasks: one call each into pipeline/ or training/. Prefect shows them under the names of the functions."""

import atexit
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun

from flows import artifacts
from flows.labels import labelled_pairs
from flows.progress import bars, say, track, warn
from pipeline.engine.arrivals import Arrivals
from pipeline.engine.engine import Engine
from pipeline.errors import WinnowError
from pipeline.ledger import ingest
from pipeline.ledger.ledger import Ledger, Shard
from pipeline.manifest import apart, database
from pipeline.manifest.manifest import Manifest
from pipeline.pages import report
from pipeline.process import lifeline
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.trials.trials import gain_of
from pipeline.upkeep import retry, reuse
from training.studies import composition, gain, plot
from training.studies.summary import by_learner

PLOT = "gain.svg"


lifeline.follow()  # a run that `winnow serve` started ends with it


@atexit.register
def _silence_stderr() -> None:
    """At the interpreter's end Prefect's threads hold the flow, and DuckDB would list on stderr what that leaks."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _may_pass(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """An error that winnow raises on purpose needs a person, so it is not retried."""
    return not isinstance(state.result(raise_on_failure=False), WinnowError)


SETTINGS: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 20],
    "retry_condition_fn": _may_pass,
    "cache_policy": NO_CACHE,  # storage knows what is done
    "result_serializer": "json",
}
"""Of every task. The keys of the errors of shards are text: JSON has no numbers for keys."""


@task(**SETTINGS)
def update_ledger(served: Source, storage: Storage) -> Ledger:
    """Read the list and append new pairs to the ledger."""
    with bars() as progress:
        ledger = ingest.update(served, storage, lambda rows: progress("list", rows, 0), warn)
    rows = f"{ledger.input:,} rows in the list, {ledger.repeated:,} of them repeated"
    say(f"{served.name}: {rows}; {ledger.new:,} pairs are new; {len(ledger.shards):,} shards")
    return ledger


@task(**SETTINGS)
def reuse_shards(plan: Plan, storage: Storage, ledger: Ledger) -> None:
    """Copy the results that the members of a union have, or earlier shards of another source."""
    with bars(plan.source.name) as progress:
        reuse.reuse(plan, storage, ledger.shards, lambda done, total: progress("reuse", done, total))


@task(**SETTINGS)
def retry_pairs(described: Source, storage: Storage, causes: Sequence[str]) -> int:
    """Append the pairs that failed with these causes to the ledger again. Returns how many."""
    return retry.append(described, storage, causes)


@task(persist_result=True, **SETTINGS)
def download_shards(engine: Engine, shards: Sequence[Shard], arrivals: Arrivals) -> dict[str, str]:
    """Download a block of shards. Returns the errors of those that failed, by number; the others arrive."""
    errors = {}
    for shard, error in track("download", engine.download(shards), of=shards):
        if error:
            errors[str(shard.number)] = str(error)
        else:
            arrivals.add(shard)
    _say_done("downloaded", shards, errors)
    return errors


@task(persist_result=True, **SETTINGS)
def score_shards(
    engine: Engine, plan: Plan, storage: Storage, shards: Sequence[Shard], arrivals: Arrivals
) -> dict[str, str]:
    """Score a block of shards as they arrive. Returns the errors of those that failed, by number."""
    outcomes = engine.score(partial(Scoring, plan, storage), arrivals)
    errors = {str(shard.number): str(error) for shard, error in track("score", outcomes, of=shards) if error}
    _say_done("scored", shards, errors)
    return errors


@task(**SETTINGS)
def score_pool(plan: Plan, storage: Storage, ledger: Ledger, quarantined: Mapping[int, str]) -> None:
    """Compute the scores that need all rows."""
    with bars(plan.source.name) as progress:
        pool.run(plan, storage, ledger, quarantined, progress)


@task(persist_result=True, **SETTINGS)
def publish_manifest(plan: Plan, storage: Storage, ledger: Ledger, quarantined: Mapping[int, str]) -> dict[str, Any]:
    """Publish, and leave the counts and the funnel as tables."""
    with bars(plan.source.name) as progress:
        published = apart.publish(plan, storage, ledger, quarantined, partial(progress, "choose"))
    steps = apart.compare(storage, published.id, [plan.source.own_recipe]).funnels[0].steps
    artifacts.publication(Manifest.open(storage, published.id), steps)
    counts, what = published.counts, "a new manifest" if published.new else "the same manifest as before"
    outcomes = f"{counts.kept:,} kept, {counts.dropped:,} dropped, {counts.failed:,} failed"
    say(f"{plan.source.name}: {what}, {published.id}: {outcomes}, {counts.quarantined:,} quarantined")
    return asdict(published)


@task(persist_result=True, **SETTINGS)
def measure_gain(served: Source, storage: Storage, manifest: str | None, recipe: str | None) -> dict[str, Any]:
    """Train the trials that are missing, and leave the differences as a table and as a plot."""
    with bars(served.name) as progress:
        found = gain.measure(served, storage, manifest, progress, recipe)
    with storage.making(PLOT if found["published"] else f"gain-{found['recipe']}.svg") as path:
        plot.forest(found, path)
    score = found["metrics"][0][1]
    rows = [
        {"learner": learner, "difference": each["name"], score: each["sentence"]}
        for learner, differences in by_learner(found)
        for each in differences
    ]
    artifacts.table(rows, served.name, "gain", f"What filtering is worth, of manifest {found['manifest']}")
    for row in rows:
        say(" ".join(f"{row['learner']}, {row['difference']}: {row[score]}".split()))
    return found


@task(**SETTINGS)
def write_report(described: Source, storage: Storage, manifest: str | None) -> None:
    """Write the report beside the source's results, and add new trials to the catalogue."""
    found = Manifest.open(storage, manifest)
    pairs, seen = labelled_pairs(described, storage), composition.part(described, storage)
    with storage.making(report.REPORT) as path:
        report.write(storage, found, gain_of(storage, found.id), path, pairs, seen)
    database.refresh(storage)
    artifacts.report(storage, report.REPORT, found.id)
    say(f"{described.name}: the report is {storage.address(report.REPORT)}")


def _say_done(done: str, shards: Sequence[Shard], errors: Mapping[str, str]) -> None:
    """A line for a block of shards, and one for each that failed."""
    for error in errors.values():
        say(error)
    pairs = sum(shard.rows for shard in shards if str(shard.number) not in errors)
    say(f"{len(shards) - len(errors):,} shards with {pairs:,} pairs are {done}, {len(errors):,} failed")
