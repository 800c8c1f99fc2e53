"""How models learned in the trials of a gain: their losses by epoch, and what a reader of these must know."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.trials.trials import EpochLosses, Trial
from training.studies import fit_record
from training.studies.learner import CELLS, Learner
from training.studies.model_learner import ModelLearner
from training.studies.summary import trials_of


def summarize(by_name: Mapping[str, Sequence[Trial]]) -> list[dict[str, Any]]:
    """Of models, the losses by epoch of each cell, in the mean over seeds, with a sentence; JSON."""
    return [
        {"learner": name, "arm": cell[0], "augmented": cell[1], "epochs": epochs, "sentence": _says(epochs)}
        for name, trials in by_name.items()
        for cell in CELLS
        if (epochs := _mean([each.losses for each in trials_of(cell, trials)]))
    ]


def remarks(learners: Sequence[Learner]) -> Iterator[str]:
    """Of models, how many captions are longer than the tower reads, and why a gradient is not that of the batch."""
    for each in learners:
        if isinstance(each.model, ModelLearner):
            if cut := each.model.pairs.cut + each.model.test.texts.cut:
                context = each.model.settings.context
                yield f"{each.name}: {cut:,} captions of the pool or the test set are cut to {context} tokens"
            if warning := fit_record.inexact(each.model.inputs.model):
                yield f"{each.name}: {warning}"


def _mean(seeds: Sequence[Sequence[EpochLosses]]) -> list[dict[str, Any]]:
    """Epochs that all seeds have. Arms of few pairs may have more epochs in one seed than in another."""
    means = []
    for epoch in zip(*seeds, strict=False):
        validation = [each.validation for each in epoch if each.validation is not None]
        means.append(
            {
                "epoch": epoch[0].epoch,
                "train": float(np.mean([each.train for each in epoch])),
                "validation": float(np.mean(validation)) if len(validation) == len(epoch) else None,
            }
        )
    return means


def _says(epochs: Sequence[Mapping[str, Any]]) -> str:
    """The first and the last train and validation loss, and the lowest validation loss."""
    first, last = epochs[0], epochs[-1]
    sentence = f"train loss {first['train']:.3f} in epoch {first['epoch']}, {last['train']:.3f} in {last['epoch']}"
    measured = [each for each in epochs if each["validation"] is not None]
    if not measured:
        return f"{sentence}; too few pairs for a validation loss"
    lowest = min(measured, key=lambda each: float(each["validation"]))
    return (
        f"{sentence}; validation loss {measured[0]['validation']:.3f}, {measured[-1]['validation']:.3f}, "
        f"the lowest {lowest['validation']:.3f} in epoch {lowest['epoch']}"
    )
