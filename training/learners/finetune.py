"""A network trained end to end with a linear head on it, beside the probe that leaves it as it is.

The budget is small, fixed and the same for every encoder: a hint at what training it would add, not the most it could
reach. Statistics of batch normalisation and dropout stay as at inference: a small batch would spoil the former.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import ModelError, StorageError
from pipeline.settings.encoder import Network
from pipeline.store.tarfiles import Tars
from training.data import features
from training.encoders import encoders
from training.encoders.encoders import Tower
from training.learners import descent, probe

if TYPE_CHECKING:
    import torch

    Loss = Callable[[Sequence[npt.NDArray[np.uint8]], torch.Tensor], torch.Tensor]

VERSION = 2
"""Raised whenever the same encoder, arm and seed would give other predictions."""

SEEDS = 2

BUDGET: Mapping[str, Any] = {"steps": 60, "batch": 32, "network_rate": 5e-5, "head_rate": 3e-3, "weight_decay": 1e-2}
"""What a training spends: steps of AdamW, pictures in each, and the heights of two learning rates."""

Place = tuple[int, str]
"""A shard, and the member of its tar that is a picture."""


@dataclass(frozen=True)
class Pictures:
    """The tars of stored pictures, the held-out ones, and what turns pixels into a picture for the network."""

    tars: Tars
    heldout: Callable[[], Iterable[features.Named]]
    drawn: features.Drawn

    def prepared(self, tower: Tower, places: Sequence[Place]) -> dict[Place, Any]:
        """What the tower prepared of stored pictures. Raises StorageError for one that is not there."""
        windows = self._windows(tower, partial(stored, self.tars, places))
        return dict(zip(places, (each for window in windows for each in window), strict=True))

    def tested(self, tower: Tower) -> Iterator[list[Any]]:
        """What it prepared of the held-out ones, a window at a time."""
        return self._windows(tower, self.heldout)

    def _windows(self, tower: Tower, pictures: Callable[[], Iterable[features.Named]]) -> Iterator[list[Any]]:
        make = partial(features.prepared, tower, self.drawn, "", 0)
        with features.decoded({"": pictures}, make) as windows:
            for _, window in windows:
                yield [picture.versions[0] for picture in window]


def stored(tars: Tars, places: Iterable[Place]) -> Iterator[features.Named]:
    """The pictures there, in that order. Raises StorageError for one that is not."""
    for shard, member in places:
        content = tars.read(shard, member)
        if content is None:
            raise StorageError(f"shard {shard} has no picture {member}: run `winnow curate`, which fetches it again")
        yield f"{member} in shard {shard}", content


def predictions(encoder: Network, pictures: Pictures, pairs: pa.Table, classes: int, seed: int) -> probe.Said:
    """Train on `pairs` (shard, member, label; one drawn twice is there twice); what is said of the held-out pictures.

    Labels are learnt as `probe.Learnt` says. The seed decides which pairs each step sees. The head sees features
    standardised as they were before training.
    """
    import torch

    tower = encoders.load(encoder)
    assert isinstance(tower, Tower)
    generator = np.random.default_rng([seed, VERSION])
    steps = generator.integers(len(pairs), size=(BUDGET["steps"], BUDGET["batch"]))
    places = list(zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True))
    made = pictures.prepared(tower, sorted({places[row] for row in np.unique(steps)}))
    before = tower.encode(list(made.values()))
    mean, deviation = (torch.from_numpy(each).to(tower.device) for each in (before.mean(axis=0), before.std(axis=0)))
    learnt = probe.Learnt(pairs["label"].to_numpy(), classes)
    head = torch.nn.Linear(before.shape[1], learnt.outputs).to(tower.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)

    def scores(window: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        found: torch.Tensor = head((tower.network(tower.stacked(window)) - mean) / deviation.clamp(min=1e-5))
        return found

    def loss(window: Sequence[npt.NDArray[np.uint8]], wanted: torch.Tensor) -> torch.Tensor:
        return learnt.loss(scores(window), wanted, "sum")

    tower.network.requires_grad_(True)
    rates = {"network": BUDGET["network_rate"], "head": BUDGET["head_rate"]}
    parameters = {"network": tower.network.parameters(), "head": head.parameters()}
    optimizer = torch.optim.AdamW(
        [{"params": list(parameters[name]), "name": name} for name in rates], weight_decay=BUDGET["weight_decay"]
    )
    step = Step(loss, optimizer, BUDGET["batch"])
    for number, rows in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * descent.schedule(number / len(steps))
        step([made[places[row]] for row in rows], learnt.truth[torch.from_numpy(rows)].to(tower.device))
    tower.network.requires_grad_(False)
    with torch.inference_mode():
        said = torch.cat([
            scores(window[at : at + step.micro]).cpu()
            for window in pictures.tested(tower)
            for at in range(0, len(window), step.micro)
        ])  # fmt: skip
    return learnt.said(said)


class Step:
    """A step on a batch, whose pictures go through the network `micro` at a time: half as many wherever memory ends.

    `loss` is summed over pictures and what is wanted of each. The gradient is that of the mean, however a batch is cut.
    """

    def __init__(self, loss: "Loss", optimizer: "torch.optim.Optimizer", micro: int) -> None:
        self._loss, self._optimizer, self.micro = loss, optimizer, micro

    def __call__(self, pictures: Sequence[npt.NDArray[np.uint8]], wanted: "torch.Tensor") -> None:
        """Raises ModelError if memory ends at one picture."""
        import torch

        while not self._gradient(pictures, wanted):
            if self.micro == 1:
                raise ModelError("the encoder does not fit into memory for training, even with one picture at a time")
            self.micro //= 2
            torch.cuda.empty_cache()
        self._optimizer.step()

    def _gradient(self, pictures: Sequence[npt.NDArray[np.uint8]], wanted: "torch.Tensor") -> bool:
        """Whether there was memory for it."""
        from pipeline.models.batches import is_memory

        self._optimizer.zero_grad()
        try:
            for start in range(0, len(pictures), self.micro):
                part = slice(start, start + self.micro)
                loss = self._loss(pictures[part], wanted[part]) / len(pictures)
                loss.backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            return False
        return True
