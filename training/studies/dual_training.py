"""The training of a dual encoder on rows of a pool, ready to run."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

from pipeline.errors import TrainingError
from pipeline.models.device import one_thread
from pipeline.settings.model import Model
from training.data import order
from training.data.order import Order, Rows
from training.data.streams import Stored
from training.learners import checkpoint, descent, plateau, training
from training.learners import inputs as read
from training.learners.checkpoint import Checkpoint, Trainee
from training.learners.clip import Batch
from training.learners.history import History
from training.learners.inputs import Inputs
from training.learners.pair_loss import DualLoss
from training.learners.training import Training
from training.objectives.pruning import Pruning
from training.studies import false_negatives
from training.studies.corpus import Corpus

log = logging.getLogger(__name__)

LEAST = 2
"""The fewest validation pairs: one pair has no negative."""

VERSIONS = (training.VERSION, order.VERSION, read.VERSION, checkpoint.VERSION)
"""Of the modules that decide what a training computes."""


class Drawn(NamedTuple):
    """The rows of a pool to train on, those to validate on, and the seed of the order.

    `versions` are seen of each. With `apart` a row that is there twice is twice in a batch only if no other has room.
    """

    rows: Rows
    validation: Rows
    seed: int
    versions: int = 1
    apart: bool = False


def prepare(
    inputs: Inputs, pairs: Corpus, drawn: Drawn, saved: Checkpoint, pruning: Pruning | None = None
) -> Training[Batch]:
    """A training of `inputs.model`, which moves to the device, by its own settings. `pruning` leaves out negatives.

    Logs a warning about negatives that have the text of their pair.
    Raises TrainingError for a batch that is larger than the pool, one picture alone, and a plateau without validation
    pairs.
    """
    import torch

    from pipeline.models import device
    from training.dual.freezing import parameter_groups

    model = inputs.model.to(device.kind())
    settings = model.settings
    data = pairs.data(Order(drawn.rows, settings.batch, drawn.seed, drawn.versions, drawn.apart))
    if len(set(pairs.pictures[drawn.rows].tolist())) < LEAST:
        raise TrainingError("all pairs show one picture: there is nothing to tell apart")
    if warning := false_negatives.line(pairs, drawn.rows, settings):
        log.warning("%s", warning)
    validation = None
    if len(drawn.validation) >= LEAST:
        validation = pairs.data(Order(drawn.validation, min(settings.batch, len(drawn.validation)), 0))
    elif settings.schedule == "plateau":
        raise TrainingError("too few pairs for a validation loss: the schedule plateau needs more of them")
    optimizer = torch.optim.AdamW(parameter_groups(model), fused=True)
    trainee = Trainee(model, optimizer)
    share = partial(_share, settings)
    return Training(trainee, DualLoss(model, pruning), data, validation, settings.steps, share, saved)


def _share(settings: Model, history: History, done: int) -> float:
    """The share of the peak learning rates after so many steps."""
    if settings.schedule == "plateau":
        return plateau.share(history.validation_losses, settings.patience, settings.factor)
    return descent.schedule(done / settings.steps, settings.warmup)


@contextmanager
def threads(pairs: Corpus) -> Iterator[None]:
    """One thread for heads on stored features, where more are slower. All of them for a tower."""
    with one_thread() if isinstance(pairs.images, Stored) and _features(pairs.texts) else nullcontext():
        yield


def _features(texts: Stored) -> bool:
    return bool(texts.values.dtype.kind == "f")
