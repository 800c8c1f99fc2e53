"""The main job as a program without Prefect: what the tests run in-process, and kill.

python tests/main_job.py SOURCE.toml ROOT prints a line as each step begins, and at last the manifest's id.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from pipeline.demo import world
from pipeline.download import download
from pipeline.engine import local
from pipeline.engine.arrivals import Arrivals
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.manifest.publish import Published
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.takedown.writing import writing
from pipeline.web.guard import Guard


def storage_of(toml: Path, root: Path) -> Storage:
    return Storage(root / loading.load(toml).name)


def run(toml: Path, root: Path, guard: Guard | None = None, tell=lambda line: None) -> Published:
    described = loading.load(toml)
    return bring_in(described, Storage(root / described.name), guard, tell)


def bring_in(described: Source, storage: Storage, guard: Guard | None = None, tell=lambda line: None) -> Published:
    with writing(storage, described), world.served(described, storage) as served:
        plan = Plan.of(served)
        tell("ledger")
        ledger = ingest.update(served, storage)
        quarantined: dict[int, str] = {}
        arrivals = Arrivals()

        def fetch() -> None:
            try:
                for shard, error in local.run_wide(downloading, ledger.shards):
                    tell(f"downloaded {shard.number}")
                    if error:
                        quarantined[shard.number] = str(error)
                    else:
                        arrivals.add(shard)
            finally:
                arrivals.end()

        tell("download")
        with download.Downloading(served, storage, guard) as downloading, ThreadPoolExecutor(1) as thread:
            fetched = thread.submit(fetch)
            for shard, error in local.run(lambda: Scoring(plan, storage), arrivals):
                tell(f"scored {shard.number}")
                if error:
                    quarantined[shard.number] = str(error)
            fetched.result()
        tell("pool")
        pool.run(plan, storage, ledger, quarantined)
        tell("publish")
        return publish.publish(plan, storage, ledger, quarantined)


if __name__ == "__main__":
    published = run(Path(sys.argv[1]), Path(sys.argv[2]), tell=lambda line: print(line, flush=True))
    print(json.dumps(asdict(published)), flush=True)
