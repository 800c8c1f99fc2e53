"""`winnow curate` in this process: no server, no command line, nothing printed."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from os import PathLike

from pipeline.demo import world
from pipeline.download import by_source
from pipeline.engine import choosing
from pipeline.engine.arrivals import Arrivals
from pipeline.engine.engine import Engine
from pipeline.ledger import ingest
from pipeline.ledger.ledger import Ledger, committed
from pipeline.manifest import apart
from pipeline.manifest.publish import Published
from pipeline.progress import Progress, silent
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources.source import Source as Described
from pipeline.status.reporting import reporting
from pipeline.store.storage import Storage
from pipeline.takedown.writing import writing
from pipeline.upkeep import reuse
from winnow.manifests import Manifest
from winnow.sources import Source

LOG = logging.getLogger("winnow")
"""Warnings about the list, and reasons why shards are quarantined."""


def curate(
    source: str | PathLike[str] | Source,
    root: str | PathLike[str] = "data",
    engine: str | None = None,
    address: str | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Bring a source's manifest up to date: fetch and score new pairs, apply the recipe, publish.

    The same as `winnow curate`, with the same manifest id, without a Prefect server and without the retraining that a
    deployment starts. It can be stopped at any time; the next call resumes, and a call without new pairs changes
    nothing. `engine` is "local" or "ray", by default that of the source file; `address` is that of a Ray cluster.
    `progress` is called with a step, how much of it is done, and how much there is (0 if unknown). Warnings go to the
    logger "winnow".

    Raises SourceError or RecipeError before any work, BusyError beside another run of the source, and other errors of
    `WinnowError` for what stops a run. A bad row or shard stops nothing: it is a row with a status.
    """
    opened = Source.open(source, root)
    choose = partial(choosing.choose, name=engine, address=address)
    published = bring_up_to_date(opened.described, opened.storage, choose, progress)
    return Manifest.open(opened, published.id)


def bring_up_to_date(
    described: Described,
    storage: Storage,
    choose: Callable[[Described, Storage], Engine],
    progress: Progress,
) -> Published:
    """From the list to the manifest, with the engine that `choose` gives."""
    with (
        writing(storage, described),
        world.served(described, storage, partial(progress, "demo")) as served,
        ThreadPoolExecutor(1) as thread,  # outside the engine, whose end stops its downloads
        choose(served, storage) as chosen,
    ):
        plan = chosen.agree(partial(Plan.of, served))  # reports missing weights before anything is fetched
        plan.check_targets()
        ledger = ingest.update(served, storage, lambda rows: progress("list", rows, 0), LOG.warning)
        if served.union or len(committed(storage)) > 1:
            reuse.reuse(plan, storage, ledger.shards, partial(progress, "reuse"))
        if line := by_source.missing_contact(served, storage, ledger.shards):
            LOG.warning(line)
        with reporting(plan, storage, ledger) as report:
            quarantined: dict[int, str] = {}
            with _downloads(thread, chosen, ledger, quarantined, progress) as arrivals:
                _score(chosen, plan, storage, ledger, arrivals, quarantined, progress)
            for reason in quarantined.values():
                LOG.warning("quarantined until the next run: %s", reason)
            report.publishing(quarantined)
            pool.run(plan, storage, ledger, quarantined, progress)
            progress("publish", 0, 1)
            published = apart.publish(plan, storage, ledger, quarantined, partial(progress, "choose"))
            report.finish(published.id)
            progress("publish", 1, 1)
            return published


@contextmanager
def _downloads(
    thread: ThreadPoolExecutor, engine: Engine, ledger: Ledger, quarantined: dict[int, str], progress: Progress
) -> Iterator[Arrivals]:
    """Download the shards in a thread, meanwhile; they arrive as they are done. Raises what the download raises."""
    arrivals = Arrivals()

    def run() -> None:
        try:
            for done, (shard, error) in enumerate(engine.download(ledger.shards), start=1):
                progress("download", done, len(ledger.shards))
                if error:
                    quarantined[shard.number] = str(error)
                else:
                    arrivals.add(shard)
        finally:
            arrivals.end()

    running = thread.submit(run)
    yield arrivals
    running.result()


def _score(
    engine: Engine,
    plan: Plan,
    storage: Storage,
    ledger: Ledger,
    arrivals: Arrivals,
    quarantined: dict[int, str],
    progress: Progress,
) -> None:
    scored = engine.score(partial(Scoring, plan, storage), arrivals)
    for done, (shard, error) in enumerate(scored, start=1):
        progress("score", done, len(ledger.shards))
        if error:
            quarantined[shard.number] = str(error)
