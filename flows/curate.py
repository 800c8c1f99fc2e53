"""The flow `curate`: from a source file to a published manifest."""

import atexit
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.events import emit_event

from flows import sources
from flows.progress import shown, tracked, warn
from flows.server import settle
from flows.sources import checked, opened
from pipeline.demo import world
from pipeline.download import download
from pipeline.engine import local
from pipeline.errors import WinnowError
from pipeline.ledger import ingest
from pipeline.ledger.ledger import Ledger, Shard
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.models import device
from pipeline.review import calibrate, drift
from pipeline.scorers.spec import PoolSpec
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.takedown.writing import writing
from pipeline.upkeep import retry as again
from pipeline.upkeep import reuse
from pipeline.upkeep.backfill import add_scorer

PUBLISHED = "winnow.manifest.published"
"""The event after a commit. Its payload: source (a path), root and manifest, which are the parameters of `retrain`."""

BLOCK = 100
"""Shards of one task: a task a shard would be thousands, which nobody can read."""


def _worth_trying(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """What winnow raises on purpose has to be mended first."""
    return not isinstance(state.result(raise_on_failure=False), WinnowError)


SETTINGS: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": [2, 20],
    "retry_condition_fn": _worth_trying,
    "cache_policy": NO_CACHE,  # storage knows what is done
    "result_serializer": "json",
}
"""Of every task."""


@atexit.register
def _hush() -> None:
    """At the interpreter's end Prefect's threads hold the flow, and DuckDB would list on stderr what that leaks."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@flow(name="curate", persist_result=True, result_serializer="json")
def curate(source: str, root: str = "data") -> dict[str, Any]:
    """Bring a source's manifest up to date: new pairs are fetched and scored, the recipe decides, one commit.

    `source` is a path or a name of data_manifests/, `root` the folder of all results. Gives the manifest's id, whether
    it is `new`, its counts, and why no training follows by itself if its inputs drifted too far (`held`). A second run
    on the same input does nothing.
    """
    described = checked(source)
    published = _bring_in(described, Storage(Path(root) / described.name))
    return published | {"held": _followed(described, Path(root), published)}


@flow(name="retry", persist_result=True, result_serializer="json")
def retry(source: str, causes: list[str], root: str = "data") -> dict[str, Any]:
    """Fetch the pairs once more that failed with these causes (none: those that may pass), and curate.

    Gives what `curate` gives, and how many pairs were appended (`retried`).
    """
    described = checked(source)
    storage = Storage(Path(root) / described.name)
    with writing(storage):
        retried = repeat(described, storage, causes)
    published = _bring_in(described, storage)
    return published | {"held": _followed(described, Path(root), published), "retried": retried}


@flow(name="score", persist_result=True, result_serializer="json")
def add_score(source: str, scorer: str, root: str = "data") -> dict[str, Any]:
    """Publish the newest manifest's pairs with the columns of one more scorer of the source file, from what is stored.

    Where that scorer fails, nothing is published: the other scores of a shard are not given up for it.
    """
    described, storage = opened(source, Path(root))
    with writing(storage):
        added = add_scorer(described, Manifest.open(storage), scorer)
        for block in _blocks(added.shards):
            failed = rate.with_options(name=f"score {_span(block)}")(added.plan, storage, block)
            if failed:
                raise WinnowError(f"{next(iter(failed.values()))}; nothing was published")
        published = _finished(added.plan, storage, added.ledger, added.quarantined)
    return published | {"held": _followed(described, Path(root), published)}


@flow(name="sample", persist_result=True, result_serializer="json")
def sample(source: str, root: str = "data", labels: str | None = None) -> dict[str, Any]:
    """Fetch and score the labelled sample of a source, as a small source of its own that nobody is trained on.

    `labels` is a path; if unset, the source file's. It does nothing twice, either.
    """
    described, storage = opened(source, Path(root))
    sampled = sources.sample(described, storage, Path(labels) if labels else None)
    return _bring_in(sampled, calibrate.room(storage))


def _bring_in(described: Source, storage: Storage) -> dict[str, Any]:
    """From the list to the manifest."""
    with writing(storage), world.served(described, storage) as served:
        plan = Plan.of(served)  # missing weights are reported before anything is fetched
        ledger = append(served, storage)
        if served.union:
            take(plan, storage, ledger)
        if line := download.nameless(served, storage, ledger.shards):
            warn(line)
        quarantined: dict[int, str] = {}
        for block in _blocks(ledger.shards):
            quarantined |= _numbered(fetch.with_options(name=f"download {_span(block)}")(served, storage, block))
        for block in _blocks([shard for shard in ledger.shards if shard.number not in quarantined]):
            quarantined |= _numbered(rate.with_options(name=f"score {_span(block)}")(plan, storage, block))
        return _finished(plan, storage, ledger, quarantined)


def _finished(plan: Plan, storage: Storage, ledger: Ledger, quarantined: Mapping[int, str]) -> dict[str, Any]:
    """The scores that need all rows, if there are any, and the commit."""
    if any(isinstance(spec, PoolSpec) for spec in plan.source.scorers.values()):
        compare(plan, storage, ledger, quarantined)
    return commit(plan, storage, ledger, quarantined)


@task(name="ledger", **SETTINGS)
def append(served: Source, storage: Storage) -> Ledger:
    """Read the list and append what is new."""
    with shown() as tell:
        return ingest.update(served, storage, lambda rows: tell("list", rows, 0))


@task(name="reuse", **SETTINGS)
def take(plan: Plan, storage: Storage, ledger: Ledger) -> None:
    """Take over what the members of a union have done."""
    with shown() as tell:
        reuse.reuse(plan, storage, ledger.shards, lambda done, total: tell("reuse", done, total))


@task(name="retry", **SETTINGS)
def repeat(described: Source, storage: Storage, causes: Sequence[str]) -> int:
    """Append the pairs once more that failed with these causes."""
    return again.append(described, storage, causes)


@task(name="download", persist_result=True, **SETTINGS)
def fetch(served: Source, storage: Storage, shards: Sequence[Shard]) -> dict[str, str]:
    """Download a block of shards; gives the reasons of those that could not be."""
    return _run("download", local.run(partial(download.make, served, storage), shards), shards)


@task(name="score", persist_result=True, **SETTINGS)
def rate(plan: Plan, storage: Storage, shards: Sequence[Shard]) -> dict[str, str]:
    """Score a block of shards, on every GPU there is; gives the reasons of those that could not be."""
    return _run("score", local.run_on_devices(partial(Scoring, plan, storage), shards, device.each()), shards)


@task(name="pool", **SETTINGS)
def compare(plan: Plan, storage: Storage, ledger: Ledger, quarantined: Mapping[int, str]) -> None:
    """Compute the scores that need all rows."""
    with shown() as tell:
        pool.run(plan, storage, ledger, quarantined, tell)


@task(name="publish", persist_result=True, **SETTINGS)
def commit(plan: Plan, storage: Storage, ledger: Ledger, quarantined: Mapping[int, str]) -> dict[str, Any]:
    """Publish, and leave the counts and the funnel as tables."""
    published = publish.publish(plan, storage, ledger, quarantined)
    steps = Manifest.open(storage, published.id).funnel(plan.source.own_recipe)
    create_table_artifact([asdict(published.counts)], key=artifact(plan.source, "counts"), description=published.id)
    create_table_artifact(
        [asdict(step) for step in steps], key=artifact(plan.source, "funnel"), description=published.id
    )
    return asdict(published)


def _followed(described: Source, root: Path, published: Mapping[str, Any]) -> str | None:
    """Start the retraining if the manifest is new; say in the run's log why it does not follow."""
    held = follow(described, root, published["id"]) if published["new"] else None
    if held:
        get_run_logger().warning(held)
    return held


def follow(described: Source, root: Path, manifest: str) -> str | None:
    """Start the retraining on a new manifest, unless its inputs drifted beyond the source's bound; then say so."""
    storage = Storage(root / described.name)
    held = drift.hold(described, storage, Manifest.open(storage, manifest))
    if held is None:
        announce(described, root, manifest)
    return held


def announce(described: Source, root: Path, manifest: str) -> None:
    """Emit the event that starts the retraining, and wait until it is sent."""
    emit_event(
        event=PUBLISHED,
        resource={"prefect.resource.id": f"winnow.source.{described.name}", "prefect.resource.name": described.name},
        payload={"source": str(described.path), "root": str(root.resolve()), "manifest": manifest},
    )
    settle()


def artifact(described: Source, what: str) -> str:
    """A key that Prefect takes for an artifact: it knows no underscore."""
    return f"{described.name}-{what}".replace("_", "-")


def _blocks(shards: Sequence[Shard]) -> list[tuple[Shard, ...]]:
    return [tuple(shards[start : start + BLOCK]) for start in range(0, len(shards), BLOCK)]


def _run(step: str, outcomes: Iterable[local.Outcome], shards: Sequence[Shard]) -> dict[str, str]:
    return {str(shard.number): str(error) for shard, error in tracked(step, outcomes, of=shards) if error}


def _numbered(reasons: Mapping[str, str]) -> dict[int, str]:
    """JSON has no numbers for keys."""
    return {int(number): reason for number, reason in reasons.items()}


def _span(shards: Sequence[Shard]) -> str:
    return f"{shards[0].number:05d}-{shards[-1].number:05d}"
