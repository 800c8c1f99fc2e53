"""One model, or one for each fold of cross-fitting: `winnow fit --folds`."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.ledger.ledger import committed
from pipeline.models.training_record import Fold
from pipeline.progress import Progress, silent
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from training.studies.fit import Fitted, Request, copy, fit, fit_on, model_of
from training.studies.ground import Grounds


def fit_folds(
    source: Source, storage: Storage, request: Request, folds: int | None, progress: Progress = silent
) -> list[Fitted]:
    """Train the model of each fold as `fit` does, in folders side by side; without `folds` the one model.

    Model k is trained on shards whose number modulo `folds` is not k, without pictures that the others show.
    Raises TrainingError for a fold with nothing to train on or to score.
    """
    if folds is None:
        return [fit(source, storage, request, progress)]
    shards = {str(shard.number): shard.key for shard in committed(storage)}
    model_of(source, request.model)  # before anything is read
    grounds = Grounds.open(source, storage, request.recipe, progress)
    return [fit_on(grounds, request._replace(fold=Fold(number, folds, shards))) for number in range(folds)]


def folder_of(fitted: Sequence[Fitted], to: Path | None = None) -> Path:
    """The folder that a scorer names: of the one model, or the parent of those of all folds; after copying it to `to`.

    Raises StorageError as `copy` does.
    """
    if fitted[0].record["fold"] is None:
        return copy(fitted[0], to) if to else fitted[0].folder
    if to is None:
        return fitted[0].folder.parent
    for each in fitted:
        copy(each, to / each.folder.name)
    return to.resolve()
