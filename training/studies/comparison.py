"""Encoders side by side: what a linear probe on each is worth on a source's task, beside what each costs here.

The probe is a trial as any other: on what the manifest keeps, without augmentation, under the task's budget.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from huggingface_hub.utils import logging as hub

from pipeline.engine.machine import cores
from pipeline.errors import CompareError, ModelError
from pipeline.images import decoders
from pipeline.manifest.arms import Choice
from pipeline.manifest.manifest import Manifest
from pipeline.models import device
from pipeline.progress import Progress, silent
from pipeline.settings.encoder import RANDOM, Encoder, Network
from pipeline.settings.fields import LOCAL_DIR
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.storage import Storage
from pipeline.trials import claims, trials
from pipeline.trials.trials import Setting, Trial
from training.data import pool
from training.data.features import Extractor, Named
from training.data.heldout import HeldOut
from training.data.pictures import Pictures
from training.data.pictures import stored as stored_at
from training.data.pool import Pool
from training.encoders import encoders, timm_weights
from training.learners import finetune
from training.measures import intervals
from training.measures.intervals import Bootstrap, Mean
from training.studies import cost, gain
from training.studies.experiment import Experiment, Learner, measured

KINDS = ("classes", "label", "number")
"""The tasks that a linear probe on features can be trained on."""

ARM = "filtered"
"""What is trained on: what the manifest keeps."""

_AT_224 = {"options": {"img_size": 224}, "preprocess": {"input_size": [3, 224, 224]}}

KNOWN: tuple[Encoder, ...] = (
    Network(kind="timm", model="vit_base_patch16_224"),
    Network(kind="timm", model="resnet50"),
    Network(kind="timm", model="resnet101"),
    Network(kind="timm", model="mobilenetv2_100"),
    Network(kind="timm", model="efficientnet_b0"),
    Network(kind="timm", model="inception_v3"),
    Network(kind="timm", model="vit_small_patch14_dinov2", **_AT_224),  # its own 518 px cost six times as much
    Network(kind="timm", model="vit_base_patch14_dinov2", **_AT_224),
    Network(kind="open_clip", model="ViT-B-32-quickgelu", weights="openai"),
    Network(kind="open_clip", model="ViT-B-16-SigLIP", weights="webli"),
)
"""Encoders that people ask for; their weights are on a hub."""


def compare(
    source: Source,
    storage: Storage,
    candidates: Sequence[Encoder],
    manifest_id: str | None = None,
    pictures: int = 256,
    finetuned: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The encoders' figures on the newest manifest, or the one named, as JSON; costs are measured on so many pictures.

    With `finetuned` networks are trained end to end as well, which takes far longer than all the rest.
    Features and trials that are there are not computed again; costs are measured anew. An encoder whose weights cannot
    be had, or that this machine cannot run, has an "error" in place of figures. "score" is the first of "metrics".
    Raises SourceError where the source has no task or test set, CompareError for a task that no probe can be trained on
    or a comparison that would not be fair, and ModelError if no encoder works.
    """
    task = gain.asked(source)
    if task.kind not in KINDS:
        raise CompareError(f"encoders are compared by probes, on tasks of kind {', '.join(KINDS)}, not {task.kind}")
    choice = Choice.open(storage, manifest_id)
    manifest, test = choice.manifest, HeldOut.read(task.test, task) if task.test else None
    if test:
        gain.check_test(test, task)
    sample = list(islice(stored(storage, manifest), pictures))
    if not sample:
        raise CompareError(f"manifest {manifest.id} has no picture: there is nothing to compare encoders on")
    load = os.getloadavg()[0]
    probe = Probe(source, storage, choice, test, progress)
    hub.set_verbosity_error()  # type: ignore[no-untyped-call]  # it would tell of every attempt
    with ThreadPoolExecutor(len(candidates)) as asking:  # a hub that does not answer takes its time once, not each time
        weights = [asking.submit(_weights, encoder) for encoder in candidates]
    rows: list[dict[str, Any]] = []
    means: list[Mean | None] = []
    for done, encoder in enumerate(candidates):
        progress("encoders", done, len(candidates))
        row: dict[str, Any] = {"encoder": encoder.name, "toml": toml(encoder)}
        try:
            row["weights"] = weights[done].result()
            figures, mean = _figures(encoder, probe, sample, finetuned)
        except ModelError as error:
            figures, mean = {"error": str(error)}, None
        rows.append(row | figures)
        means.append(mean)
    progress("encoders", len(candidates), len(candidates))
    if probe.known is None:
        raise ModelError(f"no encoder works: {'; '.join(row['error'] for row in rows)}")
    best, measure = place(rows, means), measured(task, probe.known.test)
    return {
        "code": trials.COMPARED,
        "source": source.name,
        "manifest": manifest.id,
        "recipe": manifest.document["recipe"]["name"],
        "kind": task.kind,
        "metrics": [[name, says] for name, says in measure.metrics.items()],
        "classes": list(task.classes),
        "budget": {**task.budget.per_trial, "seeds": task.budget.seeds},
        "test_pictures": len(probe.known.test.labels),
        "baseline": gain.baseline(probe.known, measure),
        "interval": f"{intervals.LEVEL:.0%}, {intervals.SAYS}",
        "costs_on": {"pictures": len(sample), "bytes": sum(map(len, sample)) // len(sample)},
        "device": device.describe("float32"),
        "cores": cores(),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        "best": best,
        "encoders": rows,
    }


def stored(storage: Storage, manifest: Manifest) -> Iterator[bytes]:
    """The pictures that the manifest was made of, as they are stored, shard after shard."""
    for key in storage.keys(f"shards-{manifest.document['stages']['shards']}"):
        if key.endswith(".tar"):
            yield from (content for _, content in tarfiles.read(storage.fetch(key)))


class Probe:
    """Learners on features of the same pictures, an encoder after another. `known` is the pool of the last one."""

    def __init__(
        self, source: Source, storage: Storage, choice: Choice, test: HeldOut | None, progress: Progress
    ) -> None:
        self._source, self._storage, self._choice, self._progress = source.name, storage, choice, progress
        self._task, self._test, self.decoder = gain.asked(source), test, source.decoder
        self.known: Pool | None = None

    def experiment(self, encoder: Encoder, workers: int) -> Experiment:
        """A linear probe on the encoder's features, which so many workers decode pictures for."""
        extractor = Extractor(self._storage, encoder, self.decoder, None, workers)
        known = self.known = pool.read(self._choice, self._task, [extractor], self._test, self._progress)
        gain.check_test(known.test, self._task)
        learner = Learner(encoder.name, "linear", extractor.identity, known.features[0], known.heldout[0])
        return Experiment(self._source, self._choice, self._task, known, known.test, (learner,))

    def trials(self, experiment: Experiment) -> list[Trial]:
        """One a seed, on what the manifest keeps."""
        (learner,) = experiment.learners
        draw, found = lru_cache(maxsize=1)(experiment.drawn), []
        for seed in range(self._task.budget.seeds):
            setting = experiment.setting(learner, ARM, False, seed)
            found.append(claims.once(self._storage, setting, partial(experiment.trial, learner, setting, draw)))
        return found

    def finetuned(self, experiment: Experiment, encoder: Network) -> list[Trial]:
        """One a seed of the first `finetune.SEEDS`, on the very pairs of the probe's."""
        found = []
        for seed in range(finetune.SEEDS):
            self._progress("finetuning", seed, finetune.SEEDS)
            setting = replace(
                experiment.setting(experiment.learners[0], ARM, False, seed),
                code=finetune.VERSION,
                head="finetuned",
                budget=finetune.BUDGET,
            )
            train = partial(self._finetune, experiment, encoder, setting)
            found.append(claims.once(self._storage, setting, train))
        self._progress("finetuning", finetune.SEEDS, finetune.SEEDS)
        return found

    def _finetune(self, experiment: Experiment, encoder: Network, setting: Setting) -> Trial:
        rows, started = experiment.drawn(setting.seed)[setting.arm], time.perf_counter()
        tars = tarfiles.Tars(self._storage, self._choice.manifest.document["stages"]["shards"])
        heldout = experiment.test.pictures if self._test else partial(self._split_off, tars, experiment.test)
        pictures = Pictures(tars, heldout, decoders.from_pixels(self.decoder))
        pairs = experiment.pool.table.take(rows)
        predicted = finetune.train(encoder, pictures, pairs, len(self._task.classes), setting.seed)
        return experiment.told(setting, rows, {setting.budget["steps"]: predicted}, time.perf_counter() - started)

    def _split_off(self, tars: tarfiles.Tars, test: HeldOut) -> Iterator[Named]:
        """The held-out pictures that were split off the pool, in their order."""
        known = pa.Table.from_batches(self._choice.downloaded())
        first = known.take(pc.index_in(pa.array(test.sha256), value_set=known["sha256"].combine_chunks()))
        return stored_at(tars, zip(first["shard"].to_pylist(), first["member"].to_pylist(), strict=True))

    def mean(self, experiment: Experiment, found: Sequence[Trial]) -> Mean:
        """Of what is compared."""
        bootstrap = Bootstrap(experiment.measure, len(experiment.test.labels), len(found))
        return bootstrap.mean(np.array([each.predictions for each in found]))


def toml(encoder: Encoder) -> str:
    """The line that names the encoder in a source file. Files are named by their whole path."""
    told = encoder.model_dump(exclude_defaults=True)
    if told.keys() <= {"kind", "model", "weights"}:
        words = [f"{told['kind']}:{told['model']}" if "model" in told else told["kind"], told.get("weights")]
        return f"encoder = {json.dumps('@'.join(filter(None, words)), ensure_ascii=False)}"
    return f"encoder = {_inline(told)}"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def _figures(encoder: Encoder, probe: Probe, sample: Sequence[bytes], finetuned: bool) -> tuple[dict[str, Any], Mean]:
    """What it is worth and what it costs."""
    spent = cost.apart(encoder, sample, probe.decoder)
    experiment = probe.experiment(encoder, spent.best.workers)
    found = probe.trials(experiment)
    mean = probe.mean(experiment, found)
    low, high = np.quantile(mean.resampled, [(1 - intervals.LEVEL) / 2, (1 + intervals.LEVEL) / 2]).tolist()
    figures = {
        "score": mean.point,
        "low": low,
        "high": high,
        "scores": _scores(found),
        "pairs": float(np.mean([each.pairs for each in found])),
        **asdict(spent),
        "workers": spent.best.workers,
        "images_per_second": spent.best.images_per_second,
        "busy": spent.best.busy,
        "to_one_by_one": round(spent.best.images_per_second / spent.one_by_one.images_per_second, 3),
        "of_encoder_alone": round(spent.best.images_per_second / spent.encoder_images_per_second, 3),
    }
    if finetuned and isinstance(encoder, Network):
        tuned = probe.finetuned(experiment, encoder)
        frozen = probe.mean(experiment, found[: len(tuned)]).point
        figures["finetuned"] = _finetuned(tuned, probe.mean(experiment, tuned).point, frozen)
    return figures, mean


def _finetuned(found: Sequence[Trial], point: float, frozen: float) -> dict[str, Any]:
    """What training the network adds to the probe of the same seeds, `frozen`; too few of them for an interval."""
    return {
        "score": point,
        "adds": point - frozen,
        "scores": _scores(found),
        "seeds": len(found),
        "seconds": float(np.mean([each.seconds for each in found])),
        "budget": dict(finetune.BUDGET),
    }


def _scores(found: Sequence[Trial]) -> dict[str, float]:
    """The mean of each metric over seeds."""
    return {name: float(np.mean([each.scores[name] for each in found])) for name in found[0].scores}


def place(rows: Sequence[dict[str, Any]], means: Sequence[Mean | None]) -> str | None:
    """Say of each row how far it is behind the best one, and whether any is both better and cheaper; name the best.

    Random weights are never the best, and push nobody off the front.
    """
    there = [(row, mean) for row, mean in zip(rows, means, strict=True) if mean]
    trained = [(row, mean) for row, mean in there if row["weights"]["from"] != "RANDOM"]
    best, highest = max(trained, key=lambda each: each[1].point, default=({}, None))
    reached = -math.inf
    for row, _ in sorted(trained, key=lambda each: (-each[0]["encoder_images_per_second"], -each[1].point)):
        row["front"] = row["score"] > reached
        reached = max(reached, row["score"])
    for row, mean in there:
        row.setdefault("front", False)
        if highest and row is not best:
            behind = intervals.difference(mean, highest)
            row["behind"] = {"difference": behind.difference, "low": behind.low, "high": behind.high}
    return best.get("encoder")


def _weights(encoder: Encoder) -> dict[str, str | None]:
    """Where they are from ("hub", "file", "folder", "RANDOM", "none"), and their sha256. Raises ModelError."""
    if not isinstance(encoder, Network):
        return {"from": "none", "name": None, "sha256": None}
    known = encoders.identity(encoder)
    if encoder.weights == RANDOM:
        return {"from": "RANDOM", "name": None, "sha256": None}
    if encoder.model.startswith(LOCAL_DIR):
        place = {"from": "folder", "name": Path(encoder.model.removeprefix(LOCAL_DIR)).name}
    elif encoder.weights and encoder.weights.endswith(timm_weights.FILE):
        place = {"from": "file", "name": Path(encoder.weights).name}
    else:
        tag = f"/{encoder.weights}" if encoder.kind == "open_clip" and encoder.weights else ""
        place = {"from": "hub", "name": known["model"] + tag}
    return {**place, "sha256": known["weights"]}
