"""A sweep: every cell of a grid trained with several seeds, one table, and what it says of published observations."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.errors import SourceError, TrainingError, did_you_mean
from pipeline.progress import Progress, silent
from pipeline.settings.sweep import Cell, Sweep
from pipeline.sources.source import Source
from pipeline.store.digests import canonical_json, digest
from pipeline.store.storage import Storage
from training.studies import observations, published, sweep_cell
from training.studies.fit import model_of
from training.studies.ground import Grounds
from training.studies.sweep_summary import FAILED, Trained, chosen, summary

VERSION = 5


def run(source: Source, storage: Storage, name: str, progress: Progress = silent) -> dict[str, Any]:
    """Train what is missing of a sweep on the newest manifest; cells, findings and costs, as JSON.

    Every training that has ended is stored, so that a run which was stopped resumes, and a second one does nothing.
    Raises SourceError for an unknown sweep, CompareError without captions to rank, and what trainings raise.
    """
    settings = _sweep(source, name)
    grounds = Grounds.open(source, storage, None, progress)
    cells = settings.cells(model_of(source, settings.model), source.path.parent)
    planned = [(cell, seed) for cell in cells for seed in settings.seed_numbers]
    keys = [sweep_cell.key_of(grounds, cell, seed) for cell, seed in planned]
    code = [VERSION, observations.VERSION, [list(each) for each in published.read()]]
    key = f"sweeps/{name}-{digest([code, keys, [[dict(cell.values), dict(cell.tuned)] for cell in cells]])[:16]}.json"
    if not storage.done(key):
        results = []
        for done, (cell, seed) in enumerate(planned):
            progress("cells", done, len(planned))
            results.append(_result(grounds, cell, seed, progress))
        progress("cells", len(planned), len(planned))
        seeds = len(settings.seed_numbers)
        trained = [Trained(cell, results[at * seeds : (at + 1) * seeds]) for at, cell in enumerate(cells)]
        identified = {"name": name, "source": source.name, "manifest": grounds.choice.manifest.id}
        storage.put_if_absent(key, canonical_json({**identified, **summary(grounds, settings, chosen(trained))}))
    found: dict[str, Any] = json.loads(storage.fetch(key).read_bytes())
    return found


def _result(grounds: Grounds, cell: Cell, seed: int, progress: Progress) -> Mapping[str, Any]:
    """That of a cell and a seed; why there is none for a training that diverges with values that are tuned."""
    try:
        return sweep_cell.result(grounds, cell, seed, progress)
    except TrainingError as error:
        if not cell.tuned:
            raise
        return {FAILED: str(error)}


def _sweep(source: Source, name: str) -> Sweep:
    if name not in source.sweeps:
        raise SourceError(f"{source.name}: there is no sweep {name!r} in [sweeps]{did_you_mean(name, source.sweeps)}")
    return source.sweeps[name]
