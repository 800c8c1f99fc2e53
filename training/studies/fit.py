"""One model, trained on what a manifest keeps and saved as a folder: `winnow fit`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.errors import CompareError, SourceError, did_you_mean
from pipeline.models.training_record import FOLDER, RECORD, Fold, Learned
from pipeline.progress import Progress, silent
from pipeline.settings.model import Model
from pipeline.settings.task import Split
from pipeline.sources.source import Source
from pipeline.store.disk import disk_errors
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from training.data import folds, near_duplicates
from training.data.pool import Pool
from training.learners import checkpoint
from training.learners.checkpoint import Checkpoint
from training.learners.divergence import located
from training.learners.inputs import Inputs
from training.studies import dual_training, fit_record
from training.studies.dual_training import Drawn
from training.studies.ground import Grounds

VERSION = 3

VALIDATION = 0.05
"""The share of the pictures, by groups of near-duplicates, whose pairs only measure the validation loss."""


class Request(NamedTuple):
    """Which model to train, and on what: the pairs that the published recipe or another one keeps, or all of them.

    With a `fold`, pairs of its shards are left out, and all others that show a picture of those.
    """

    model: str
    recipe: str | None = None
    everything: bool = False
    seed: int = 0
    fold: Fold | None = None


@dataclass(frozen=True)
class Fitted:
    """The folder of a model, the record of its training, and whether it was trained now."""

    folder: Path
    record: Mapping[str, Any]
    new: bool


def fit(
    source: Source,
    storage: Storage,
    request: Request,
    progress: Progress = silent,
    checkpoint_seconds: float = checkpoint.SECONDS,
) -> Fitted:
    """Train a model of the source on its newest manifest. A second run does nothing; a killed one resumes.

    Pictures of the test set, and near-duplicates of them, never train. Raises SourceError for an unknown model,
    CompareError if no pair is left to train on, ModelError for a model that cannot be built, and TrainingError for a
    training that diverges.
    """
    model_of(source, request.model)  # before anything is read
    return fit_on(Grounds.open(source, storage, request.recipe, progress), request, checkpoint_seconds)


def fit_on(grounds: Grounds, request: Request, checkpoint_seconds: float = checkpoint.SECONDS) -> Fitted:
    """As `fit`, on grounds that several models share."""
    from training.dual import build, folder
    from training.dual.open_clip_format import obstacle

    settings, storage = model_of(grounds.source, request.model), grounds.storage
    identity = build.identity(settings)
    stage = _stage(grounds, identity, request)
    key = stage.folder if request.fold is None else f"{stage.folder}/{FOLDER.format(request.fold.number)}"
    local = storage.local  # open_clip's file in the folder names paths of this machine
    path = Path(local.address(key))
    new = not local.done(f"{key}/{RECORD}")
    if new:
        inputs = Inputs(build.build(settings, request.seed), identity, storage)
        name = key.removeprefix("models/").replace("/", "-")
        saved = Checkpoint(storage, f"checkpoints/{name}.safetensors", checkpoint_seconds)
        record, learned = _train(grounds, inputs, request, saved)
        about = {
            "name": request.model,
            "recipe": grounds.choice.recipe.name,
            "fold": asdict(request.fold) if request.fold else None,
            "not_open_clip": obstacle(inputs.model),
        }
        with disk_errors(path):
            folder.save(inputs.model.cpu(), path, {**stage.made_by, **about, **record}, learned.write)
        saved.remove()
    return Fitted(path, json.loads((path / RECORD).read_bytes()), new)


def copy(fitted: Fitted, to: Path) -> Path:
    """Write the model to another folder as well. Raises StorageError for a folder of something else, or a full disk."""
    from training.dual import folder

    with disk_errors(to, "--to"):
        folder.save(folder.load(fitted.folder), to, fitted.record, Learned.read(fitted.folder).write)
    return to.resolve()


def model_of(source: Source, name: str) -> Model:
    """The settings of a model by its name. Raises SourceError."""
    if name not in source.models:
        raise SourceError(f"{source.name}: there is no model {name!r} in [models]{did_you_mean(name, source.models)}")
    return source.models[name]


def _stage(grounds: Grounds, identity: Mapping[str, Any], request: Request) -> Stage:
    """The folder of the model, or of the models of all folds, by everything that decides their weights."""
    return Stage(
        f"models/{request.model}",
        {
            **grounds.identity,
            "code": [VERSION, *dual_training.VERSIONS],
            "model": identity,
            "everything": request.everything,
            "seed": request.seed,
            "folds": {"of": request.fold.of, "shards": request.fold.shards} if request.fold else None,
        },
    )


def _train(grounds: Grounds, inputs: Inputs, request: Request, saved: Checkpoint) -> tuple[dict[str, Any], Learned]:
    """Train `inputs.model`; the record of the training, and what the model has seen."""
    ground = grounds.of(inputs)
    known, pairs, gallery = ground.known, ground.pairs, ground.gallery
    drawn = draw(known, request, ground.trains(inputs.model.settings))
    rows, different = drawn.rows, np.unique(drawn.rows)
    seen = known.table.take(np.concatenate([different, drawn.validation]))
    learned = Learned.of(seen["uid"].to_pylist(), seen["sha256"].to_pylist())
    remedy = "lower the learning rates of the model"
    with located(f"model {request.model!r}", remedy), dual_training.threads(pairs):
        run = dual_training.prepare(inputs, pairs, drawn, saved)
        _, history = run.run((), list, partial(grounds.progress, "training"))
        scores = fit_record.scores(gallery, gallery.ranks(inputs)) if gallery else None
    record = {
        "test": known.test.digest if known.test.sha256 else None,
        "pairs": len(different),
        **({"samples": len(rows)} if len(rows) > len(different) else {}),
        "pictures": len(np.unique(pairs.pictures[rows])),
        "validation_pairs": len(drawn.validation),
        "captions_cut": pairs.cut,
        "counts": dict(known.counts),
        "epochs": [asdict(each) for each in history.epochs],
        "scores": scores,
        "cost": fit_record.cost(inputs.model, history),
        "inexact": fit_record.inexact(inputs.model),
    }
    return record, learned


def draw(known: Pool, request: Request, trains: npt.NDArray[np.bool_] | None = None) -> Drawn:
    """The rows of the pool to train on, as often as the recipe keeps them, and those to validate on, once.

    No picture is on both sides. `trains` are the rows that the model's settings let train; None: all.
    """
    free = ~known.leaked if trains is None else ~known.leaked & trains
    wanted = free if request.everything else free & known.table["kept"].to_numpy()
    hashes = known.features[0].phash
    if request.fold is not None:
        shards, sha256 = known.table["shard"].to_numpy(), np.array(known.table["sha256"].to_pylist(), str)
        each = hashes[known.table["picture"].to_numpy()]
        wanted &= folds.trains(request.fold.number, request.fold.of, shards, sha256, each)
    if not wanted.any():
        raise CompareError("the manifest keeps no pair that can be trained on: loosen its filters, or use --all")
    apart = near_duplicates.split_off(hashes, Split(share=VALIDATION, seed=request.seed))
    apart = apart[known.table["picture"].to_numpy()]
    trained = np.flatnonzero(wanted & ~apart)
    if not request.everything and known.repeats:
        trained = np.repeat(trained, known.table["copies"].to_numpy()[trained])
    return Drawn(trained, np.flatnonzero(wanted & apart), request.seed, apart=known.repeats)
