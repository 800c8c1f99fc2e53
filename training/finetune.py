"""A network trained end to end with a linear head on it, beside the probe that leaves it as it is.

The budget is small, fixed and the same for every encoder: a hint at what training it would add, not the most it could
reach. Statistics of batch normalisation and dropout stay as at inference: a small batch would spoil the former.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ModelError
from pipeline.task import Network
from training import encoders, features, probe
from training.encoders import Tower
from training.heldout import HeldOut

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Raised whenever the same encoder, arm and seed would give other predictions."""

SEEDS = 2

BUDGET: Mapping[str, Any] = {"steps": 60, "batch": 32, "network_rate": 5e-5, "head_rate": 3e-3, "weight_decay": 1e-2}
"""What a training spends: steps of AdamW, pictures in each, and the heights of two learning rates."""


def predictions(
    encoder: Network, tars: Mapping[int, Path], pairs: pa.Table, heldout: HeldOut, classes: int, seed: int
) -> npt.NDArray[np.int16]:
    """Train on `pairs` (shard, member, label; one that was drawn twice is there twice) and classify the held-out ones.

    The seed decides which pairs each step sees. The head sees features standardised as they were before training.
    """
    import torch

    tower = encoders.load(encoder)
    assert isinstance(tower, Tower)
    generator = np.random.default_rng([seed, VERSION])
    steps = generator.integers(len(pairs), size=(BUDGET["steps"], BUDGET["batch"]))
    pictures = _pictures(tower, tars, pairs.take(np.unique(steps)))
    before = tower.encode(list(pictures.values()))
    mean, deviation = (torch.from_numpy(each).to(tower.device) for each in (before.mean(axis=0), before.std(axis=0)))
    head = torch.nn.Linear(before.shape[1], classes).to(tower.device)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)

    def scores(window: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        found: torch.Tensor = head((tower.network(tower.stacked(window)) - mean) / deviation.clamp(min=1e-5))
        return found

    tower.network.requires_grad_(True)
    rates = {"network": BUDGET["network_rate"], "head": BUDGET["head_rate"]}
    parameters = {"network": tower.network.parameters(), "head": head.parameters()}
    optimizer = torch.optim.AdamW(
        [{"params": list(parameters[name]), "name": name} for name in rates], weight_decay=BUDGET["weight_decay"]
    )
    keys = list(zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True))
    labels = torch.from_numpy(pairs["label"].to_numpy().astype(np.int64)).to(tower.device)
    step = Step(scores, optimizer, BUDGET["batch"])
    for number, rows in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * probe.schedule(number / len(steps))
        step([pictures[keys[row]] for row in rows], labels[torch.from_numpy(rows).to(tower.device)])
    tower.network.requires_grad_(False)
    with torch.inference_mode(), _decoded(tower, {"": heldout.pictures}) as windows:
        chosen = torch.cat([scores(window).argmax(dim=1).cpu() for _, window in windows])
    found: npt.NDArray[np.int16] = chosen.numpy().astype(np.int16)
    return found


class Step:
    """A step on a batch, whose pictures go through the network `micro` at a time: half as many wherever memory ends.

    The gradient is that of the whole batch however it is cut.
    """

    def __init__(self, scores: Any, optimizer: "torch.optim.Optimizer", micro: int) -> None:
        self._scores, self._optimizer, self.micro = scores, optimizer, micro

    def __call__(self, pictures: Sequence[npt.NDArray[np.uint8]], labels: "torch.Tensor") -> None:
        """Raises ModelError if memory ends at one picture."""
        import torch

        while not self._gradient(pictures, labels):
            if self.micro == 1:
                raise ModelError("the encoder does not fit into memory for training, even with one picture at a time")
            self.micro //= 2
            torch.cuda.empty_cache()
        self._optimizer.step()

    def _gradient(self, pictures: Sequence[npt.NDArray[np.uint8]], labels: "torch.Tensor") -> bool:
        """Whether there was memory for it."""
        import torch

        from pipeline.scorers.clip_model import is_memory

        self._optimizer.zero_grad()
        try:
            for start in range(0, len(pictures), self.micro):
                part = slice(start, start + self.micro)
                loss = torch.nn.functional.cross_entropy(self._scores(pictures[part]), labels[part], reduction="sum")
                (loss / len(pictures)).backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, MemoryError) as error:
            if not is_memory(error):
                raise
            return False
        return True


def _pictures(tower: Tower, tars: Mapping[int, Path], pairs: pa.Table) -> dict[tuple[int, str], Any]:
    """What the tower prepared of the pairs' pictures, by shard and member."""
    wanted = {
        shard: np.unique(pairs.filter(pc.equal(pairs["shard"], shard))["member"].to_pylist()).tolist()
        for shard in pc.unique(pairs["shard"]).to_pylist()
    }
    with _decoded(
        tower, {str(shard): partial(features.read, tars[shard], wanted[shard]) for shard in wanted}
    ) as windows:
        made = [each for _, window in windows for each in window]
    places = [(shard, member) for shard, members in wanted.items() for member in members]
    return dict(zip(places, made, strict=True))


def _decoded(tower: Tower, asked: Mapping[str, Any]) -> Any:
    def make(picture: features.Named) -> Any:
        return features.prepared(tower, "", 0, picture).versions[0]

    return features.decoded(asked, make)
