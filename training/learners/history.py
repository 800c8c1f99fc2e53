"""The history of a training: losses by epoch, and seconds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Epoch:
    """An epoch, from 1: the steps done at its end, and the mean losses of its batches and of the validation pairs.

    The last one may be a part of an epoch. Without validation pairs the loss is None.
    """

    number: int
    step: int
    train_loss: float
    validation_loss: float | None


@dataclass
class History:
    """Where a training stands: the steps done, the losses of the current epoch, and the epochs before it.

    `seconds` and `validation_seconds` are those of all runs together. All else is the same for the same seed.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0
    validation_seconds: float = 0.0

    def end_epoch(self, validation_loss: float | None) -> None:
        """Begin the next epoch."""
        mean = sum(self.losses) / len(self.losses)
        self.epochs.append(Epoch(len(self.epochs) + 1, self.step, mean, validation_loss))
        self.losses = []

    @property
    def validation_losses(self) -> list[float]:
        """Those of all epochs that have one."""
        return [each.validation_loss for each in self.epochs if each.validation_loss is not None]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`."""
        return cls(**{**fields, "epochs": [Epoch(**each) for each in fields["epochs"]]})
