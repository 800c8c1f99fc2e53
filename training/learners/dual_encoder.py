"""A learner of captions: a linear map of picture features into the space of a frozen text tower.

It is trained contrastively on pictures and their captions and never gets a label. Its predictions for held-out pictures
come from cosines with texts: the class of the nearest prompt, or the ranks of captions. So noise in captions is noise
whatever classes they name, and an augmented caption is another sample. Steps, batch size and learning rate are those of
the other learners' budget.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import TrainingError
from pipeline.settings.task import Budget
from training.data.texts import Embeddings
from training.encoders.finite import check_finite
from training.learners.descent import adamw, at_once, evaluation_steps, fit, samples, seeded
from training.learners.divergence import check_scores
from training.learners.standardizer import Standardizer, Views
from training.measures.metrics import Units
from training.objectives.softmax import contrastive

if TYPE_CHECKING:
    from training.learners.descent import Sample

VERSION = 3

Result = TypeVar("Result")

Embed = Callable[[npt.NDArray[np.float16]], Units]
"""From features of pictures [pictures, dim] to their embeddings in the space of captions [pictures, text dim]."""


def train(
    views: Views, texts: Embeddings, evaluate: Callable[[Embed], Result], budget: Budget, seed: int
) -> dict[int, Result]:
    """Train on `views` [pairs, versions, dim] and the captions of each, `texts` [pairs, versions, text dim].

    Returns what `evaluate` gives for the learner's embeddings, by the number of steps at each look. Where one of views
    and texts has a single version, it goes with all versions of the other. Pairs of one batch whose captions have equal
    features count as matches of each other. Raises ModelError for features, and TrainingError for a loss or embeddings,
    that are not finite.
    """
    import torch
    from torch.nn.functional import normalize

    check_finite(texts, "caption {}".format)
    pairs, dim, versions = len(views), views.shape[2], max(views.shape[1], texts.shape[1])
    standardized, generator = Standardizer.of(views), np.random.default_rng([seed, VERSION])
    pictures, captions = (
        torch.from_numpy(np.repeat(each, versions // each.shape[1], axis=1).reshape(pairs * versions, -1))
        for each in (views, texts)
    )
    caption = torch.from_numpy(np.unique(captions.numpy(), axis=0, return_inverse=True)[1].reshape(-1))

    def project(features: torch.Tensor) -> torch.Tensor:
        return normalize(model(standardized(features)), dim=-1)

    def loss(sample: "Sample") -> torch.Tensor:
        chosen = torch.from_numpy(sample.rows * versions + sample.versions)
        seen, read = pictures.index_select(0, chosen), captions.index_select(0, chosen)
        return contrastive(project(seen), read.float(), caption.index_select(0, chosen))

    def embed(features: npt.NDArray[np.float16]) -> Units:
        check_finite(features, "held-out picture {}".format)
        with torch.inference_mode():
            embedded = check_scores(project(torch.from_numpy(features)))
        if not embedded.any(dim=1).all():  # a length that overflows makes zeros of an embedding
            raise TrainingError("the embeddings of held-out pictures are too long for float32")
        units: Units = embedded.numpy()
        return units

    with seeded(seed):
        model = torch.nn.Linear(dim, texts.shape[2])
        batches = samples(pairs, versions, budget.batch, generator)
        evaluate_at = evaluation_steps(budget.steps)
        return fit(adamw(model, budget), at_once(loss), batches, evaluate_at, lambda: evaluate(embed))
