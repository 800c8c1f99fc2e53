"""A small head on frozen features, trained by a fixed number of AdamW steps.

Features are standardised by the mean and the deviation of the training arm. The seed decides which pairs, and which
versions of them, each step sees, and the initial weights of a head with hidden layers.
"""

from typing import TYPE_CHECKING

import numpy as np

from pipeline.settings.task import Budget
from training.encoders.finite import check_finite
from training.learners.descent import adamw, at_once, evaluation_steps, fit, samples, seeded
from training.learners.heads import HEADS
from training.learners.standardizer import Standardizer, Views
from training.learners.targets import Objective, Targets

if TYPE_CHECKING:
    from training.learners.descent import Sample

VERSION = 3

_CHUNK = 4096


def train(
    head: str, views: Views, objective: Objective, heldout: Views, budget: Budget, seed: int
) -> dict[int, Targets]:
    """Train a head of `HEADS` on `views`, which the targets of `objective` are aligned with.

    Returns the predictions for the plain versions of `heldout`, by the number of steps at each look: the last are those
    of the trained head. A pair that was drawn twice is there twice. A step sees any one version of each of its pairs.
    Raises ModelError for features, and TrainingError for a loss or scores, that are not finite.
    """
    import torch

    check_finite(heldout[:, 0], "held-out picture {}".format)
    pictures, versions, dim = views.shape
    standardized, flat = Standardizer.of(views), torch.from_numpy(views.reshape(pictures * versions, dim))
    generator = np.random.default_rng([seed, VERSION])

    def loss(sample: "Sample") -> torch.Tensor:
        seen = flat.index_select(0, torch.from_numpy(sample.rows * versions + sample.versions))
        targets = objective.targets.index_select(0, torch.from_numpy(sample.rows))
        return objective.loss(model(standardized(seen)), targets)

    def predict() -> Targets:
        model.eval()
        with torch.inference_mode():
            plain = (torch.from_numpy(heldout[at : at + _CHUNK, 0]) for at in range(0, len(heldout), _CHUNK))
            scores = torch.cat([model(standardized(each)) for each in plain])
        model.train()
        return objective.predictions(scores)

    with seeded(seed):
        model = HEADS[head](dim, objective.outputs)
        batches = samples(pictures, versions, budget.batch, generator)
        return fit(adamw(model, budget), at_once(loss), batches, evaluation_steps(budget.steps), predict)
