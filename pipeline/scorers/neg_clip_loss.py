"""negCLIPLoss: the cosine of a pair, less the similarity of its picture and caption to those of other pairs.

Wang et al. 2024, "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive
Learning", arXiv 2405.19547: the score of pair i is

    cos_i - (tau / 2) * (log sum_j exp(x_i . t_j / tau) + log sum_j exp(x_j . t_i / tau)),

j over a random batch that holds the pair itself, and the mean over several ways to cut the pool into batches.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from pipeline.errors import SourceError
from pipeline.models import device
from pipeline.progress import StepProgress
from pipeline.scorers import gathering
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec, scatter
from pipeline.uids import random_bits

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1

BLOCK = 1024
"""Rows of a batch's matrix in memory at once: 128 MB at 32,768 columns."""

SMALL = 1e-25
"""The smallest sum of float32 numbers whose terms keep their full precision."""

Floats = npt.NDArray[np.float64]


class NegClipLossSpec(PoolSpec):
    """negCLIPLoss over the stored embeddings of a clip or recorded scorer."""

    kind: Literal["neg_clip_loss"]
    of: str = Field("clip", description="the scorer whose embeddings it reads")
    temperature: float | None = Field(
        None, gt=0, description="tau; unset, that of the clip scorer's model (0.01 for OpenAI's)"
    )
    batch: int = Field(32_768, ge=2, description="pairs that are compared with one another, as published")
    shuffles: int = Field(10, ge=1, le=100, description="ways to cut the pool into batches, as published")

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer whose embeddings it reads."""
        return (self.of,)

    @property
    def model_of(self) -> str | None:
        """The scorer whose model has the temperature, if none is set."""
        return self.of if self.temperature is None else None

    def columns(self) -> Mapping[str, pa.DataType]:
        """score: higher is better, at most 0 for a pool that fills its batches; NULL without both embeddings.

        A batch that the pool cannot fill counts as a sample of a full one: its log-mean plus the log of `batch`.
        """
        return {"score": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The settings, the version of what computes, and the device's kind."""
        from importlib.metadata import version

        settings = self.model_dump(exclude={"kind", "of"})
        return {"version": VERSION, **settings, "torch": version("torch"), "device": device.kind()}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError if the scorer `of` stores no embeddings, or a temperature is missing."""
        gathering.check(scorers, self.of)
        if self.temperature is None and not isinstance(scorers[self.of], ClipSpec):
            raise SourceError(f"set temperature: {self.of!r} holds embeddings without their model")

    def load(self, of: Callable[[], Any] | None = None) -> "NegClipLoss":
        """The scorer. Loads the model only for its temperature."""
        temperature = self.temperature
        if temperature is None:
            assert of is not None
            temperature = 1 / of().logit_scale
        return NegClipLoss(self.of, temperature, self.batch, self.shuffles)


class NegClipLoss:
    """Scores the batches of all shuffles. It takes 128 MB, one batch's embeddings, and 16 bytes a pair."""

    def __init__(self, of: str, temperature: float, batch: int, shuffles: int) -> None:
        self._of, self.temperature, self._batch, self._shuffles = of, temperature, batch, shuffles

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The column of `NegClipLossSpec`."""
        present = gathering.present(pool, self._of, gathering.BOTH)
        stored = gathering.gather(pool, self._of, np.flatnonzero(present), gathering.BOTH)
        uids = pool.column("uid").filter(pa.array(present)).to_pylist()
        total = np.zeros(len(uids))
        done, steps = 0, math.ceil(len(uids) / self._batch) * self._shuffles
        for shuffle in range(self._shuffles):
            for rows in batches(uids, shuffle, self._batch):
                both = stored[rows].astype(np.float32)
                total[rows] += neg_clip_loss(both[:, 0], both[:, 1], self.temperature, self._batch)
                done += 1
                progress(done, steps)
        return scatter({"score": pa.array(total / self._shuffles, pa.float32())}, present)


def batches(uids: Sequence[str], shuffle: int, size: int) -> list[npt.NDArray[np.int64]]:
    """The positions of the pool's pairs in the fewest batches of at most `size`, all of about the same size.

    Pairs are ordered by their draws for the shuffle: batches depend on the pairs, not on their order.
    """
    order = np.argsort(random_bits(str(shuffle), uids), kind="stable")
    return np.array_split(order, max(math.ceil(len(uids) / size), 1))


def neg_clip_loss(
    images: npt.NDArray[np.float32], texts: npt.NDArray[np.float32], temperature: float, batch: int
) -> Floats:
    """The scores of one batch of normalised embeddings [pairs, dim], with sums scaled to `batch` pairs."""
    import torch

    x, t = (torch.from_numpy(each).to(device.kind()) for each in (images, texts))
    with torch.inference_mode():
        by_text = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
        by_image: list[Tensor] = []
        for start in range(0, len(x), BLOCK):
            rows, columns = _log_sums((x[start : start + BLOCK] @ t.T).div_(temperature))
            by_image.append(rows)
            by_text = torch.logaddexp(by_text, columns)
        cosine = (x.double() * t.double()).sum(dim=1)
        filled = 2 * math.log(batch / len(x)) if len(x) else 0.0
        score = cosine - temperature / 2 * (torch.cat(by_image) + by_text + filled) if len(x) else cosine
    found: Floats = score.cpu().numpy()
    return found


def _log_sums(logits: "Tensor") -> "tuple[Tensor, Tensor]":
    """The logarithm of the sum of exponentials of each row and of each column, float64.

    One shift for the whole block needs one exponential for both. If a sum is then too small for float32, each row and
    column gets its own shift.
    """
    import torch

    shift = logits.max()
    powers = (logits - shift).exp_()
    sums = powers.sum(dim=1), powers.sum(dim=0)
    if min(float(each.min()) for each in sums) > SMALL:
        rows, columns = (each.double().log() + shift for each in sums)
        return rows, columns
    return torch.logsumexp(logits, dim=1).double(), torch.logsumexp(logits, dim=0).double()
