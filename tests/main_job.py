"""The main job as a program without Prefect: what the tests run in-process, and kill.

python tests/main_job.py SOURCE.toml ROOT prints a line as each step moves, and at last the manifest's id.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.engine.engine import LocalEngine
from pipeline.manifest.publish import Published
from pipeline.progress import silent
from pipeline.sources import loading
from pipeline.sources.source import Source
from pipeline.store.places import Place, place
from pipeline.store.storage import Storage
from pipeline.web.guard import Guard
from winnow.curation import bring_up_to_date


def storage_of(toml: Path, root: Place) -> Storage:
    return Storage(root / loading.load(toml).name)


def run(toml: Path, root: Place, guard: Guard | None = None, progress=silent) -> Published:
    described = loading.load(toml)
    return bring_in(described, Storage(root / described.name), guard, progress)


def bring_in(described: Source, storage: Storage, guard: Guard | None = None, progress=silent) -> Published:
    return bring_up_to_date(described, storage, lambda *served: LocalEngine(*served, [], guard), progress)


def _print(step: str, done: int, total: int) -> None:
    sys.stdout.write(f"{step} {done}.\n")  # in one piece: two threads move
    sys.stdout.flush()


if __name__ == "__main__":
    published = run(Path(sys.argv[1]), place(sys.argv[2]), progress=_print)
    print(json.dumps(asdict(published)), flush=True)
