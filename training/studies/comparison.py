"""Compares encoders: the score of a linear probe on each on a source's task, and the cost of each on this machine.

A probe is a trial like any other: on what the manifest keeps, without augmentation, under the task's budget.
"""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
from huggingface_hub.utils import logging as hub

from pipeline.errors import CompareError, ModelError
from pipeline.manifest.arms import Choice
from pipeline.manifest.manifest import Manifest
from pipeline.models import device
from pipeline.process.machine import cores
from pipeline.progress import Progress, silent
from pipeline.settings.encoder import Encoder, Network
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.storage import Storage
from pipeline.trials import trials
from pipeline.trials.trials import Trial
from training.data.heldout import HeldOut
from training.learners import finetune
from training.measures import intervals
from training.measures.intervals import Mean
from training.studies import cost, gain
from training.studies.candidates import toml, weights_of
from training.studies.fairness import check_test
from training.studies.measurement import task_of
from training.studies.measuring import measure_of
from training.studies.probing import Probing

KINDS = ("classes", "label", "number")
"""The tasks that a linear probe on features can be trained on."""


@dataclass(frozen=True)
class Scope:
    """What a comparison covers.

    `manifest` is the beginning of an id, by default the newest. Costs are measured on so many `pictures`. With
    `finetuned` networks are trained end to end as well, which takes far longer than all the rest.
    """

    manifest: str | None = None
    pictures: int = 256
    finetuned: bool = False


def compare(
    source: Source,
    storage: Storage,
    candidates: Sequence[Encoder],
    scope: Scope = Scope(),  # frozen
    progress: Progress = silent,
) -> dict[str, Any]:
    """The encoders' figures on the newest manifest, or the one named, as JSON.

    Stored features and trials are not computed again; costs are always measured anew. An encoder whose weights are
    missing, or that this machine cannot run, has an "error" in place of figures. "score" is the first of "metrics".
    Raises SourceError if the source has no task or test set, CompareError for a task that no probe can be trained on
    or a comparison that would not be fair, and ModelError if no encoder works.
    """
    task = task_of(source)
    if task.kind not in KINDS:
        raise CompareError(f"encoders are compared by probes, on tasks of kind {', '.join(KINDS)}, not {task.kind}")
    choice = Choice.open(storage, scope.manifest)
    manifest, test = choice.manifest, HeldOut.read(task.test, task) if task.test else None
    if test:
        check_test(test, task)
    sample = list(islice(stored_pictures(storage, manifest), scope.pictures))
    if not sample:
        raise CompareError(f"manifest {manifest.id} has no picture: there is nothing to compare encoders on")
    load = os.getloadavg()[0]
    probing = Probing(source, storage, choice, test, progress)
    rows, means = _rows(probing, candidates, sample, scope.finetuned, progress)
    if probing.pool is None:
        raise ModelError(f"no encoder works: {'; '.join(row['error'] for row in rows)}")
    best, measure = rank(rows, means), measure_of(task, probing.pool.test)
    return {
        "code": trials.COMPARED,
        "source": source.name,
        "manifest": manifest.id,
        "recipe": manifest.document.inputs.recipe.name,
        "kind": task.kind,
        "metrics": [[name, says] for name, says in measure.metrics.items()],
        "classes": list(task.classes),
        "budget": {**task.budget.per_trial, "seeds": task.budget.seeds},
        "test_pictures": len(probing.pool.test.labels),
        "baseline": gain.baseline(probing.pool, measure),
        "interval": f"{intervals.LEVEL:.0%}, {intervals.METHOD}",
        "costs_on": {"pictures": len(sample), "bytes": sum(map(len, sample)) // len(sample)},
        "device": device.describe("float32"),
        "cores": cores(),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "best": best,
        "encoders": rows,
    }


def stored_pictures(storage: Storage, manifest: Manifest) -> Iterator[bytes]:
    """The stored pictures of a manifest, shard after shard."""
    for key in storage.keys(f"shards-{manifest.stages.shards}"):
        if key.endswith(".tar"):
            yield from (content for _, content in tarfiles.read(storage.fetch(key)))


def rank(rows: Sequence[dict[str, Any]], means: Sequence[Mean | None]) -> str | None:
    """Name the best encoder. Adds to each row how far it is behind, and whether none is both better and cheaper.

    Random weights are never the best, and keep no other encoder off the front.
    """
    working = [(row, mean) for row, mean in zip(rows, means, strict=True) if mean]
    trained = [(row, mean) for row, mean in working if row["weights"]["from"] != "RANDOM"]
    best, highest = max(trained, key=lambda each: each[1].point, default=({}, None))
    reached = -math.inf
    for row, _ in sorted(trained, key=lambda each: (-each[0]["encoder_images_per_second"], -each[1].point)):
        row["front"] = row["score"] > reached
        reached = max(reached, row["score"])
    for row, mean in working:
        row.setdefault("front", False)
        if highest and row is not best:
            behind = intervals.difference(mean, highest)
            row["behind"] = {"difference": behind.difference, "low": behind.low, "high": behind.high}
    return best.get("encoder")


def _rows(
    probing: Probing, candidates: Sequence[Encoder], sample: Sequence[bytes], finetuned: bool, progress: Progress
) -> tuple[list[dict[str, Any]], list[Mean | None]]:
    """A row for each encoder, and the mean of its main score; None for one that does not work."""
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]  # it would print every attempt
    with ThreadPoolExecutor(len(candidates)) as pool:  # so that a hub that does not answer is waited for only once
        weights = [pool.submit(weights_of, encoder) for encoder in candidates]
    rows: list[dict[str, Any]] = []
    means: list[Mean | None] = []
    for done, encoder in enumerate(candidates):
        progress("encoders", done, len(candidates))
        row: dict[str, Any] = {"encoder": encoder.name, "toml": toml(encoder)}
        try:
            row["weights"] = weights[done].result()
            figures, mean = _figures(encoder, probing, sample, finetuned)
        except ModelError as error:
            figures, mean = {"error": str(error)}, None
        rows.append(row | figures)
        means.append(mean)
    progress("encoders", len(candidates), len(candidates))
    return rows, means


def _figures(
    encoder: Encoder, probing: Probing, sample: Sequence[bytes], finetuned: bool
) -> tuple[dict[str, Any], Mean]:
    """The scores and the cost of an encoder."""
    spent = cost.measure_in_process(encoder, sample, probing.decoder)
    experiment = probing.experiment(encoder, spent.best.workers)
    probes = probing.trials(experiment)
    mean = probing.mean(experiment, probes)
    low, high = np.quantile(mean.resampled, [(1 - intervals.LEVEL) / 2, (1 + intervals.LEVEL) / 2]).tolist()
    figures = {
        "score": mean.point,
        "low": low,
        "high": high,
        "scores": _scores(probes),
        "pairs": float(np.mean([each.pairs for each in probes])),
        **asdict(spent),
        "workers": spent.best.workers,
        "images_per_second": spent.best.images_per_second,
        "busy": spent.best.busy,
        "to_one_by_one": round(spent.best.images_per_second / spent.one_by_one.images_per_second, 3),
        "of_encoder_alone": round(spent.best.images_per_second / spent.encoder_images_per_second, 3),
    }
    if finetuned and isinstance(encoder, Network):
        tuned = probing.finetuned(experiment, encoder)
        frozen = probing.mean(experiment, probes[: len(tuned)]).point
        figures["finetuned"] = _finetuned(tuned, probing.mean(experiment, tuned).point, frozen)
    return figures, mean


def _finetuned(tuned: Sequence[Trial], point: float, frozen: float) -> dict[str, Any]:
    """What training the network adds to the probe of the same seeds, `frozen`; too few of them for an interval."""
    return {
        "score": point,
        "adds": point - frozen,
        "scores": _scores(tuned),
        "seeds": len(tuned),
        "seconds": float(np.mean([each.seconds for each in tuned])),
        "budget": dict(finetune.BUDGET),
    }


def _scores(own: Sequence[Trial]) -> dict[str, float]:
    """The mean of each metric over seeds."""
    return {name: float(np.mean([each.scores[name] for each in own])) for name in own[0].scores}
