"""A network trained end to end with a linear head on it, beside the probe that leaves it as it is.

The budget is small, fixed and the same for every encoder: a hint at what training it would add, not the most it could
reach. Statistics of batch normalisation and dropout stay as at inference: a small batch would spoil the former.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.settings.encoder import Network
from training.data.pictures import Pictures, Place
from training.encoders import encoders
from training.encoders.encoders import Tower
from training.encoders.finite import check_finite
from training.learners.descent import fit, samples
from training.learners.heads import linear
from training.learners.microbatches import Microbatches
from training.learners.standardizer import Standardizer
from training.learners.targets import Objective, Targets

if TYPE_CHECKING:
    import torch

VERSION = 2

SEEDS = 2

BUDGET: Mapping[str, Any] = {"steps": 60, "batch": 32, "network_rate": 5e-5, "head_rate": 3e-3, "weight_decay": 1e-2}
"""Steps of AdamW, pictures in each, the peak learning rates of network and head, and the weight decay of both."""

LEAST = 1e-5
"""The least deviation that a feature is divided by."""


def train(encoder: Network, pictures: Pictures, pairs: pa.Table, classes: int, seed: int) -> Targets:
    """Train on `pairs` (shard, member, label; one drawn twice is there twice); predictions for the held-out pictures.

    Labels are learnt as `Objective` says. The seed decides which pairs each step sees. The head sees features that are
    standardised by their statistics before training.
    """
    import torch

    tower, objective = encoders.load(encoder), Objective(pairs["label"].to_numpy(), classes)
    assert isinstance(tower, Tower)
    drawn = samples(len(pairs), 1, BUDGET["batch"], np.random.default_rng([seed, VERSION]))
    steps = [sample.rows for sample in islice(drawn, BUDGET["steps"])]
    places: list[Place] = list(zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True))
    prepared = pictures.prepare(tower, sorted({places[row] for row in np.unique(steps)}))
    before = tower.encode(list(prepared.values()))
    check_finite(before, lambda row: "{1} in shard {0}".format(*list(prepared)[row]))
    model = _Model(tower, before, objective.outputs)
    batches = (
        ([prepared[places[row]] for row in rows], objective.targets[torch.from_numpy(rows)].to(tower.device))
        for rows in steps
    )

    def loss(window: Sequence[npt.NDArray[np.uint8]], targets: torch.Tensor) -> torch.Tensor:
        return objective.loss(model(window), targets, "sum")

    def predict() -> Targets:
        tower.network.requires_grad_(False)
        with torch.inference_mode():
            scores = [
                model(window[at : at + backward.size]).cpu()
                for window in pictures.prepare_heldout(tower)
                for at in range(0, len(window), backward.size)
            ]
        return objective.predictions(torch.cat(scores))

    tower.network.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.groups, weight_decay=BUDGET["weight_decay"])
    backward = Microbatches(loss, optimizer, BUDGET["batch"])
    return fit(optimizer, backward, batches, [BUDGET["steps"]], predict)[BUDGET["steps"]]


class _Model:
    """A network, its features standardised by those `before` training, and a head that begins at zero."""

    def __init__(self, tower: Tower, before: npt.NDArray[np.float32], outputs: int) -> None:
        self._tower = tower
        deviation = before.std(axis=0).clip(min=LEAST)
        self._standardized = Standardizer(before.mean(axis=0), deviation, tower.device)
        self._head = linear(before.shape[1], outputs).to(tower.device)

    def __call__(self, window: Sequence[npt.NDArray[np.uint8]]) -> "torch.Tensor":
        """Scores of prepared pictures, [pictures, outputs]."""
        scores: torch.Tensor = self._head(self._standardized(self._tower.network(self._tower.stack(window))))
        return scores

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameters of network and head, each with its learning rate."""
        return [
            {"params": list(self._tower.network.parameters()), "lr": BUDGET["network_rate"]},
            {"params": list(self._head.parameters()), "lr": BUDGET["head_rate"]},
        ]
