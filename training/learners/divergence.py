"""A training that diverges is an error, never a result: losses and scores are checked as they are computed."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.errors import TrainingError

if TYPE_CHECKING:
    import torch


def check_loss(loss: "torch.Tensor") -> "torch.Tensor":
    """The loss of a batch. Raises TrainingError if it is NaN or infinite."""
    if not math.isfinite(value := loss.item()):
        raise TrainingError(f"the loss is {value}")
    return loss


def check_scores(scores: "torch.Tensor") -> "torch.Tensor":
    """Scores [pictures, outputs] of held-out pictures. Raises TrainingError if one is NaN or infinite."""
    broken = ~scores.isfinite().all(dim=1)
    if bool(broken.any()):
        raise TrainingError(f"the scores of held-out picture {int(broken.int().argmax())} are not finite")
    return scores


@contextmanager
def located(where: str, remedy: str = "") -> Iterator[None]:
    """A TrainingError that is raised inside says `where`, and then the `remedy`."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{where}: {error}{remedy and '; '}{remedy}") from error
