"""One training of a sweep: a cell of the grid with a seed, stored under a key of all that decides its result."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from pipeline.errors import CompareError
from pipeline.models import device
from pipeline.progress import Progress
from pipeline.settings.sweep import Cell
from pipeline.store.digests import canonical_json, digest
from training.augment import noise
from training.learners.checkpoint import Checkpoint
from training.learners.divergence import located
from training.learners.inputs import Inputs
from training.objectives.pruning import Pruning
from training.studies import dual_training, noisy
from training.studies.corpus import Gallery
from training.studies.fit import Request, draw
from training.studies.ground import Ground, Grounds

VERSION = 3


def key_of(grounds: Grounds, cell: Cell, seed: int) -> str:
    """Where the result of a cell and a seed is stored. Raises ModelError for weights that are missing."""
    from training.dual import build

    made_by = {
        **grounds.identity,
        "code": [VERSION, *dual_training.VERSIONS, noise.VERSION],
        "model": build.identity(cell.model),
        "treatment": cell.treatment.model_dump(),
        "seed": seed,
    }
    return f"sweeps/cells/{digest(made_by)[:32]}.json"


def result(grounds: Grounds, cell: Cell, seed: int, progress: Progress) -> Mapping[str, Any]:
    """The stored result, or that of a training now: ranks, losses by epoch, size and seconds.

    A training that was stopped resumes at its checkpoint. Raises TrainingError for one that diverges.
    """
    key = key_of(grounds, cell, seed)
    if not grounds.storage.done(key):
        grounds.storage.put_if_absent(key, canonical_json(_train(grounds, cell, seed, key, progress)))
    found: dict[str, Any] = json.loads(grounds.storage.fetch(key).read_bytes())
    return found


def _train(grounds: Grounds, cell: Cell, seed: int, key: str, progress: Progress) -> dict[str, Any]:
    from training.dual import build, size

    settings, pruning = cell.model, _pruning(cell)
    if pruning and cell.treatment.pruning == "hard-matched":
        steps = pruning.matched_steps(settings.steps, settings.batch)
        settings = settings.model_copy(update={"steps": steps})
    inputs = Inputs(build.build(settings, seed), build.identity(cell.model), grounds.storage)
    ground = grounds.of(inputs)
    gallery = gallery_of(ground, grounds.source.name)
    measured = asdict(size.measure(inputs.model))
    drawn = draw(ground.known, Request("", seed=seed), ground.trains(settings))
    rows, pairs = drawn.rows, ground.pairs
    if cell.treatment.noise != "none":
        pairs = noisy.corrupt(ground, inputs, rows, cell.treatment.noise, cell.treatment.noise_share, seed)
    saved = Checkpoint(grounds.storage, f"checkpoints/{key.replace('/', '-')}.safetensors")
    with located(f"the cell {describe(cell)}, seed {seed}", "lower its learning rates"), dual_training.threads(pairs):
        run = dual_training.prepare(inputs, pairs, drawn, saved, pruning)
        _, history = run.run((), list, partial(progress, "training"))
        images = gallery.images(inputs)
        ranks = gallery.ranks(inputs, images)
        named = ground.classes.ranks(inputs, images).tolist() if ground.classes else None
    saved.remove()
    return {
        "seed": seed,
        "pairs": len(rows),
        "steps": history.step,
        "batch": settings.batch,
        "ranks": ranks.tolist(),
        "class_ranks": named,
        "epochs": [asdict(each) for each in history.epochs],
        "train_loss": history.epochs[-1].train_loss,
        "validation_loss": history.validation_losses[-1] if history.validation_losses else None,
        "seconds": round(history.seconds, 3),
        "images_per_second": round(history.step * settings.batch / history.seconds, 1),
        "device": device.describe(settings.precision),
        **measured,
    }


def gallery_of(ground: Ground, source: str) -> Gallery:
    """The gallery that a sweep ranks. Raises CompareError without a test set that has captions."""
    if ground.gallery is None:
        raise CompareError(f"{source}: a sweep ranks the captions of a test set, and the task has none")
    return ground.gallery


def describe(cell: Cell) -> str:
    """Its values by key, for a person."""
    return ", ".join(f"{name} {value}" for name, value in {**cell.values, **cell.tuned}.items())


def _pruning(cell: Cell) -> Pruning | None:
    how = cell.treatment.pruning
    if how == "none":
        return None
    return Pruning("hard" if how == "hard-matched" else how, cell.treatment.masking)
