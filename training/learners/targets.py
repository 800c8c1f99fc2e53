"""What learners of labels minimise: cross-entropy of classes, or squared error of numbers."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.learners.divergence import check_scores

if TYPE_CHECKING:
    import torch

Targets = npt.NDArray[np.int16] | npt.NDArray[np.float64]
"""Class numbers, or numbers: [pairs]."""


class Objective:
    """Class numbers by cross-entropy, or, where `classes` is 0, numbers by squared error.

    Numbers are standardised by their own mean and deviation. `targets`, [pairs], are what a network is trained to give.
    """

    def __init__(self, targets: Targets, classes: int) -> None:
        import torch

        self._classes = classes
        self._mean = 0.0 if classes else float(targets.mean())
        self._deviation = 1.0 if classes else float(targets.std()) or 1.0
        if classes:
            self.targets = torch.from_numpy(targets.astype(np.int64))
        else:
            self.targets = torch.from_numpy(((targets - self._mean) / self._deviation).astype(np.float32))

    @property
    def outputs(self) -> int:
        """How many outputs the network has."""
        return self._classes or 1

    def loss(self, scores: "torch.Tensor", targets: "torch.Tensor", reduction: str = "mean") -> "torch.Tensor":
        """Of scores [pairs, outputs] and some rows of `targets`."""
        from torch.nn.functional import cross_entropy, mse_loss

        if self._classes:
            return cross_entropy(scores, targets, reduction=reduction)
        return mse_loss(scores[:, 0], targets, reduction=reduction)

    def predictions(self, scores: "torch.Tensor") -> Targets:
        """Of scores [pictures, outputs]: classes, or numbers in the units of the targets.

        Raises TrainingError if a score is not finite.
        """
        check_scores(scores)
        if self._classes:
            classes: npt.NDArray[np.int16] = scores.argmax(dim=1).numpy().astype(np.int16)
            return classes
        numbers: npt.NDArray[np.float64] = scores[:, 0].double().numpy() * self._deviation + self._mean
        return numbers
