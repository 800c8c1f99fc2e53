"""The flows that publish a manifest: `curate`, `retry`, `score` and `sample`."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from flows import run_names, sources, tasks
from flows.events import announce
from flows.labels import labelled_source
from flows.progress import DISPLAY, warn
from flows.settled import with_list
from pipeline.demo import world
from pipeline.download import by_source
from pipeline.engine import choosing
from pipeline.engine.arrivals import Arrivals
from pipeline.engine.engine import Engine
from pipeline.errors import WinnowError
from pipeline.ledger import checking
from pipeline.ledger.ledger import Ledger, Shard, committed
from pipeline.manifest.manifest import Manifest
from pipeline.review.sample_source import sample_storage
from pipeline.scorers.spec import PoolSpec
from pipeline.scoring.plan import Plan
from pipeline.sources.source import Source
from pipeline.status.reporting import Reporting, reporting
from pipeline.store.places import Place, place
from pipeline.store.storage import Storage
from pipeline.takedown.writing import writing
from pipeline.upkeep.backfill import add_scorer

BLOCK = 100
"""Shards of one task. A task for each shard would give thousands, which nobody can read."""

SETTINGS: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "flow_run_name": run_names.of_source,
    "task_runner": ThreadPoolTaskRunner(max_workers=1),  # one block of downloads at a time
}
"""Of every flow."""

Downloaded: TypeAlias = PrefectFuture[dict[str, str]]
"""The errors of a block of downloads."""

EXPLAINED = 5
"""Quarantined shards whose reasons are printed. Prefect's tasks have all of them."""


@flow(name="curate", **SETTINGS)
def curate(source: str, root: str = "data", engine: str | None = None, address: str | None = None) -> dict[str, Any]:
    """Bring a source's manifest up to date: fetch and score new pairs, apply the recipe, publish.

    `source` is a path or a name of data_manifests/, `root` the folder of all results. `engine` is local or ray, by
    default the one of the source file, and `address` that of a Ray cluster. Returns the manifest's id, whether it is
    `new`, its counts, and why no training follows automatically if its inputs drifted too far (`held`).
    A second run on the same input does nothing.
    """
    described = checking.check(source)
    published = bring_up_to_date(described, Storage(place(root) / described.name), engine, address)
    return published | {"held": _announce(described, place(root), published)}


@flow(name="retry", **SETTINGS)
def retry(
    source: str, causes: list[str], root: str = "data", engine: str | None = None, address: str | None = None
) -> dict[str, Any]:
    """Fetch the pairs again that failed with these causes, and curate. Without causes: those that may pass.

    Returns what `curate` returns, and how many pairs were appended (`retried`).
    """
    described = checking.check(source)
    storage = Storage(place(root) / described.name)
    with writing(storage, described):
        retried = tasks.retry_pairs(described, storage, causes)
    published = bring_up_to_date(described, storage, engine, address)
    return published | {"held": _announce(described, place(root), published), "retried": retried}


@flow(name="score", **SETTINGS)
def score(
    source: str, scorer: str, root: str = "data", engine: str | None = None, address: str | None = None
) -> dict[str, Any]:
    """Publish the newest manifest's pairs with the columns of one more scorer of the source file.

    If that scorer fails on a shard, nothing is published: a shard must not lose its other scores for it.
    """
    described, storage = sources.load(source, place(root))
    with writing(storage, described):
        source_with_list = with_list(described, storage) or described
        added = add_scorer(source_with_list, Manifest.open(storage), scorer)
        with choosing.choose(added.plan.source, storage, engine, address) as chosen:
            plan = chosen.agree(partial(Plan.of, added.plan.source))
            plan.check_targets()
            with reporting(plan, storage, added.ledger) as report:
                for block in _blocks(added.shards):
                    errors = _score(chosen, plan, storage, block, Arrivals.of(block))
                    if errors:
                        raise WinnowError(f"{next(iter(errors.values()))}; nothing was published")
                published = _publish(plan, storage, added.ledger, added.quarantined, report)
    return published | {"held": _announce(described, place(root), published)}


@flow(name="sample", **SETTINGS)
def sample(source: str, root: str = "data", labels: str | None = None) -> dict[str, Any]:
    """Fetch and score the labelled sample of a source, as a small source of its own that is never trained on.

    `labels` is a path; by default the source file's. A second run does nothing.
    """
    described, storage = sources.load(source, place(root))
    sampled = labelled_source(described, storage, Path(labels) if labels else None)
    return bring_up_to_date(sampled, sample_storage(storage))


def bring_up_to_date(
    described: Source, storage: Storage, engine: str | None = None, address: str | None = None
) -> dict[str, Any]:
    """From the list to the manifest."""
    with (
        writing(storage, described),
        world.served(described, storage) as served,
        choosing.choose(served, storage, engine, address) as chosen,
    ):
        plan = chosen.agree(partial(Plan.of, served))  # reports missing weights before anything is fetched
        plan.check_targets()
        ledger = tasks.update_ledger(served, storage)
        if served.union or len(committed(storage)) > 1:
            tasks.reuse_shards(plan, storage, ledger)
        if line := by_source.missing_contact(served, storage, ledger.shards):
            warn(line)
        with reporting(plan, storage, ledger) as report:
            quarantined = _download_and_score(chosen, plan, storage, ledger.shards, report)
            for line in _explanations(quarantined):
                warn(line)
            return _publish(plan, storage, ledger, quarantined, report)


def _download_and_score(
    engine: Engine, plan: Plan, storage: Storage, shards: Sequence[Shard], report: Reporting
) -> dict[int, str]:
    """Score each shard as soon as it is downloaded, while others are. Returns why shards are quarantined, by number.

    Downloads run in the thread of the flow's task runner, a block after another, and scorers in this one.
    """
    quarantined: dict[int, str] = {}
    with DISPLAY.used({"download": len(shards), "score": len(shards)}, plan.source.name):
        parts = [(block, *_begin_download(engine, block)) for block in _blocks(shards)]
        for block, arrivals, downloaded in parts:
            quarantined |= _score(engine, plan, storage, block, arrivals)
            quarantined |= _numbered(downloaded.result())
            report.quarantine(quarantined)
    return quarantined


def _begin_download(engine: Engine, shards: Sequence[Shard]) -> tuple[Arrivals, Downloaded]:
    """Queue the download of a block. Returns where its shards arrive, and its errors in the future."""
    arrivals = Arrivals()
    named = tasks.download_shards.with_options(task_run_name=f"download_shards {_span(shards)}")
    downloaded = named.submit(engine, shards, arrivals)
    downloaded.add_done_callback(lambda _: arrivals.end())  # also when it failed
    return arrivals, downloaded


def _score(engine: Engine, plan: Plan, storage: Storage, shards: Sequence[Shard], arrivals: Arrivals) -> dict[int, str]:
    named = tasks.score_shards.with_options(task_run_name=f"score_shards {_span(shards)}")
    return _numbered(named(engine, plan, storage, shards, arrivals))


def _publish(
    plan: Plan, storage: Storage, ledger: Ledger, quarantined: Mapping[int, str], report: Reporting
) -> dict[str, Any]:
    """Compute the scores that need all rows, if there are any, and publish."""
    report.publishing(quarantined)
    if any(isinstance(spec, PoolSpec) for spec in plan.source.scorers.values()):
        tasks.score_pool(plan, storage, ledger, quarantined)
    published = tasks.publish_manifest(plan, storage, ledger, quarantined)
    report.finish(published["id"])
    return published


def _announce(described: Source, root: Place, published: Mapping[str, Any]) -> str | None:
    """Name the run by its manifest, and start the retraining if that is new.

    If it must not follow, log why and return it.
    """
    run_names.rename(described.name, published["id"], "" if published["new"] else " (nothing new)")
    held = announce(described, root, published["id"]) if published["new"] else None
    if held:
        get_run_logger().warning(held)
    return held


def _blocks(shards: Sequence[Shard]) -> list[tuple[Shard, ...]]:
    return [tuple(shards[start : start + BLOCK]) for start in range(0, len(shards), BLOCK)]


def _numbered(errors: Mapping[str, str]) -> dict[int, str]:
    return {int(number): error for number, error in errors.items()}


def _explanations(quarantined: Mapping[int, str]) -> list[str]:
    """Why shards are quarantined, one line for each of the first few."""
    lines = [f"quarantined until the next run: {reason}" for reason in quarantined.values()]
    more = len(lines) - EXPLAINED
    return lines if more <= 0 else [*lines[:EXPLAINED], f"quarantined until the next run: {more:,} more shards"]


def _span(shards: Sequence[Shard]) -> str:
    return f"{shards[0].number:05d}-{shards[-1].number:05d}"
