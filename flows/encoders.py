"""Frozen encoders side by side, for `winnow encoders` and the report."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from flows.progress import bars
from pipeline.demo import world
from pipeline.pages import report
from pipeline.settings.encoder import Encoder, parse_encoder
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from training.studies import candidates, comparison, plot


def compare(
    described: Source,
    storage: Storage,
    names: Sequence[str],
    manifest: str | None = None,
    pictures: int = 256,
    finetune: bool = False,
) -> Mapping[str, Any]:
    """Compare the named encoders and leave their figures and plot beside the report.

    Without names: those of the source's learners, and `candidates.KNOWN`. `pictures` are what costs are measured on.
    """
    with world.served(described, storage) as served, bars() as progress:
        scope = comparison.Scope(manifest, pictures, finetune)
        found = comparison.compare(served, storage, _chosen(described, names), scope, progress)
    with storage.making(report.PARETO) as path:
        plot.pareto(found, path)
    with storage.making(report.ENCODERS) as path:
        path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _chosen(described: Source, names: Sequence[str]) -> list[Encoder]:
    """Each encoder once."""
    learners = described.task.learners if described.task else {}
    own = {name: learner.encoder for name, learner in learners.items() if learner.encoder}
    named = [own.get(name) or parse_encoder(name) for name in names] or [*own.values(), *candidates.KNOWN]
    return [each for at, each in enumerate(named) if each not in named[:at]]
