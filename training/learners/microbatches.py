"""Gradient accumulation: a batch that does not fit into memory goes through the network in parts."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError
from training.learners.divergence import check_loss

if TYPE_CHECKING:
    import torch

    SummedLoss = Callable[[Sequence[Any], torch.Tensor], torch.Tensor]


class Microbatches:
    """The `backward` of `descent.fit` for pictures and their targets, `size` at a time.

    Out of memory halves `size` for good. `loss` is summed over the pictures of a part. The gradient is that of the
    batch's mean, however it is cut.
    """

    def __init__(self, loss: "SummedLoss", optimizer: "torch.optim.Optimizer", size: int) -> None:
        self._loss, self._optimizer, self.size = loss, optimizer, size

    def __call__(self, batch: tuple[Sequence[Any], "torch.Tensor"]) -> None:
        """Add the gradient of a batch.

        Raises ModelError if one picture alone does not fit into memory, TrainingError if the loss is not finite.
        """
        import torch

        while not self._fits(*batch):
            if self.size == 1:
                raise ModelError("the encoder does not fit into memory for training, even with one picture at a time")
            self.size //= 2
            torch.cuda.empty_cache()
            self._optimizer.zero_grad()

    def _fits(self, pictures: Sequence[Any], targets: "torch.Tensor") -> bool:
        """Whether memory was enough for the gradient; if not, a part of it may have been added."""
        from pipeline.models.batches import is_out_of_memory

        try:
            for start in range(0, len(pictures), self.size):
                part = slice(start, start + self.size)
                loss = check_loss(self._loss(pictures[part], targets[part])) / len(pictures)
                loss.backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True
