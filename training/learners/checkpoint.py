"""Checkpoints of a training: what the next step needs, written whole, so that a killed run resumes where it was.

A resumed run takes the same steps as one that was never stopped: parameters, running statistics, the optimizer's
moments, and the history that the learning rate depends on are all restored bit by bit. The order of the pairs and the
random numbers of a step depend on the seed and the step alone, and need no state.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import TrainingError
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    import torch

VERSION = 1

SECONDS = 60.0
"""The time between two checkpoints. A killed run loses so much work at most, and one step."""

_PARAMETER, _BUFFER, _MOMENT = "parameter:", "buffer:", "moment:"


class Trainee(NamedTuple):
    """A model and its optimizer."""

    model: "torch.nn.Module"
    optimizer: "torch.optim.Optimizer"


@dataclass
class Checkpoint:
    """The last checkpoint of a training, at a key of the store. Only parameters that train are in it, and all buffers.

    `arrays` of the caller are kept beside, such as predictions, and its `notes`, any JSON.
    """

    storage: Storage
    key: str
    every: float = SECONDS
    _written: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Whether it is time for the next one."""
        return time.monotonic() - self._written >= self.every

    def save(self, trainee: Trainee, notes: Mapping[str, Any], arrays: Mapping[str, "torch.Tensor"]) -> None:
        """Replace the checkpoint. Raises StorageError on a full disk, TrainingError for weights that are not finite.

        The checkpoint before is kept in both cases.
        """
        from safetensors.torch import save_file

        state = _state(trainee)
        broken = [name for name in state if name.startswith(_PARAMETER) and not state[name].isfinite().all()]
        if broken:
            raise TrainingError(f"the weights {broken[0].removeprefix(_PARAMETER)} are not finite")
        with self.storage.scratch() as scratch:
            save_file(state | dict(arrays), scratch / "checkpoint", {"notes": json.dumps(notes)})
            self.storage.put_file(self.key, scratch / "checkpoint")
        self._written = time.monotonic()

    def restore(self, trainee: Trainee) -> tuple[dict[str, Any], dict[str, "torch.Tensor"]] | None:
        """Load the checkpoint, if there is one, into a model and an optimizer of the same make; its notes and arrays.

        Raises TrainingError if it does not fit.
        """
        import torch
        from safetensors import safe_open

        if not self.storage.done(self.key):
            return None
        with safe_open(self.storage.fetch(self.key), "pt") as file:
            notes: dict[str, Any] = json.loads(file.metadata()["notes"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        named = dict(trainee.model.named_parameters())
        expected = set(_trained(trainee.model))
        if expected != {name.removeprefix(_PARAMETER) for name in stored if name.startswith(_PARAMETER)}:
            raise TrainingError(
                f"{self.key} is a checkpoint of another model: remove it, and run the same command again"
            )
        buffers, arrays = dict(trainee.model.named_buffers()), dict[str, torch.Tensor]()
        with torch.no_grad():
            for name, tensor in stored.items():
                kind, _, rest = name.partition(":")
                if f"{kind}:" == _PARAMETER:
                    named[rest].copy_(tensor)
                elif f"{kind}:" == _BUFFER:
                    buffers[rest].copy_(tensor)
                elif f"{kind}:" == _MOMENT:
                    moment, _, parameter = rest.partition(":")
                    own = named[parameter]
                    trainee.optimizer.state[own][moment] = tensor.to(own.device)
                else:
                    arrays[name] = tensor
        return notes, arrays

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """A TrainingError that is raised inside says that the checkpoint is kept, if one was written."""
        try:
            yield
        except TrainingError as error:
            kept = "; the last checkpoint is kept" if self.storage.done(self.key) else ""
            raise TrainingError(f"{error}{kept}") from error

    def remove(self) -> None:
        """Remove it, when its training is done and its result is stored."""
        self.storage.remove(self.key)


def _trained(model: "torch.nn.Module") -> dict[str, "torch.Tensor"]:
    return {name: each.detach() for name, each in model.named_parameters() if each.requires_grad}


def _state(trainee: Trainee) -> dict[str, "torch.Tensor"]:
    """All tensors that a training changes, by kind and name, on the CPU."""
    import torch

    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in trainee.model.named_parameters()}
    state = {_PARAMETER + name: tensor for name, tensor in _trained(trainee.model).items()}
    state |= {_BUFFER + name: tensor for name, tensor in trainee.model.named_buffers()}
    for parameter, moments in trainee.optimizer.state.items():
        state |= {f"{_MOMENT}{moment}:{names[parameter]}": tensor for moment, tensor in moments.items()}
    return {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
