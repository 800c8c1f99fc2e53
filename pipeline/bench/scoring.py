"""The speed of scoring on this machine, compared with its limits. No download is needed: the weights are random.

Each repeat measures in turn, because the speed of a shared or warm machine changes: scoring as `winnow curate` does it;
the forward passes alone, on tensors in memory, which are the ceiling; reading, decoding and resizing alone; a plain
loop around open_clip, which is the reference; and a product of two matrices.
"""

import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bench import synthetic
from pipeline.bench.reference import BATCH, Reference
from pipeline.bench.weights import random_model
from pipeline.engine import local
from pipeline.images import decoders
from pipeline.ledger.ledger import Shard
from pipeline.models import device
from pipeline.process import machine
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.clip_scorer import ClipScorer
from pipeline.scorers.spec import WINDOW
from pipeline.scoring.decode_pool import DecodePool
from pipeline.scoring.pictures import Pictures
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.settings.download import Download
from pipeline.settings.fields import LOCAL_DIR

T = TypeVar("T")

REFERENCE_SHARE = 4
"""The reference loop gets one pair of so many: its rate is the same, and it is slow."""


@dataclass(frozen=True)
class Workload:
    """What is scored: `pairs` pictures, `side` px at the shorter side, and their captions, `repeats` times."""

    model: str = "ViT-B-32"
    precision: str = "auto"
    pairs: int = 1000
    side: int = 224
    decoder: decoders.Name = "pillow"
    batch: int | None = None
    repeats: int = 3


@dataclass(frozen=True)
class Repeat:
    """Seconds a pair. `waiting` (for decoded pictures) and `scorer` (in the scorer) are parts of `score`.

    `difference` is the largest one between a similarity and the reference's, `multiply` floating-point operations a
    second of a product of large matrices.
    """

    score: float
    waiting: float
    scorer: float
    picture_tower: float
    text_tower: float
    decode: float
    reference: float
    difference: float
    multiply: float


def run(workload: Workload, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure, and call `tell` with each step. Gives `figures` and more. Raises ModelError for an unknown model."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as folder:
        tell(f"{workload.model} with random weights, {workload.pairs:,} pairs of {workload.side} px")
        bench = Bench(workload, Path(folder))
        tell("first passes, which are not counted")
        bench.warm()
        repeats = []
        for number in range(1, workload.repeats + 1):
            tell(f"repeat {number} of {workload.repeats}")
            repeats.append(bench.once())
    about = {
        "device": device.describe(),
        "processor": machine.processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
    }
    return figures(repeats, bench.flops) | {"plan": asdict(workload), "precision": bench.spec.place()[1]} | about


def figures(repeats: Sequence[Repeat], flops: float) -> dict[str, Any]:
    """Medians over the repeats. A ratio is the median of the ratios inside each repeat.

    `seconds_per_pair` has the parts of the time of scoring. `share_of_matmul` is the rate of the forward passes, which
    take `flops` floating-point operations a pair, as a share of this machine's rate of matrix products.
    """

    def middle(value: Callable[[Repeat], float]) -> float:
        return float(f"{median(map(value, repeats)):.4g}")

    return {
        "pairs_per_second": middle(lambda each: 1 / each.score),
        "ratio_to_reference": middle(lambda each: each.reference / each.score),
        "share_of_ceiling": middle(lambda each: (each.picture_tower + each.text_tower) / each.score),
        "share_of_matmul": middle(lambda each: flops / (each.picture_tower + each.text_tower) / each.multiply),
        "ceiling_pairs_per_second": middle(lambda each: 1 / (each.picture_tower + each.text_tower)),
        "reference_pairs_per_second": middle(lambda each: 1 / each.reference),
        "decode_pairs_per_second": middle(lambda each: 1 / each.decode),
        "largest_difference": middle(lambda each: each.difference),
        "peak_memory_mb": machine.peak_memory_mb(),
        "seconds_per_pair": {
            "picture tower": middle(lambda each: each.picture_tower),
            "text tower": middle(lambda each: each.text_tower),
            "tokens, copies": middle(lambda each: max(0, each.scorer - each.picture_tower - each.text_tower)),
            "waiting for pictures": middle(lambda each: each.waiting),
            "checks, writing": middle(lambda each: max(0, each.score - each.scorer - each.waiting)),
        },
        "repeats": [asdict(each) for each in repeats],
    }


class Bench:
    """A model, a source with downloaded shards, and the loops over them."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        self._model = LOCAL_DIR + str(random_model(workload.model, folder / "model"))
        self.spec = ClipSpec.model_validate(
            {"kind": "clip", "model": self._model, "precision": workload.precision, "batch": workload.batch}
        )
        size = min(Download().shard_size, -(-workload.pairs // 2))
        source, self._storage, self._shards = synthetic.source(folder, workload.pairs, workload.side, size)
        self._pool = DecodePool(workload.decoder)
        source = source.model_copy(update={"scorers": {"clip": self.spec}, "decoder": workload.decoder})
        scored = Plan.of(source)
        self._scoring = Scoring(scored, self._storage)
        clip = self._scoring.load("clip")
        assert isinstance(clip, ClipScorer)
        self._clip = clip
        rows = [pq.read_table(self._storage.fetch(shard.key)) for shard in self._shards]
        self._captions: list[str] = [caption for table in rows for caption in table["caption"].to_pylist()]
        self._tars = [self._storage.fetch(scored.shards.item(shard.number, ".tar")) for shard in self._shards]
        self._batch, self.flops = clip.batch, 0.0

    def warm(self) -> None:
        """Run every loop once on a few pairs, and count the operations of a pair."""
        self._score(self._shards[:1])
        few = self._captions[: self._batch]
        with FlopCounterMode(display=False) as counter:
            self._forward(few)
        self.flops = counter.get_total_flops() / len(few)
        self._decode(self._tars[:1])
        self._refer(BATCH)

    def once(self) -> Repeat:
        """Run the loops, one after another."""
        pairs = len(self._captions)
        self._scoring.seconds.clear()
        score, similarities = _timed(lambda: self._score(self._shards))
        picture_tower, text_tower = self._forward(self._captions)
        decode, _ = _timed(lambda: self._decode(self._tars))
        reference, expected = _timed(lambda: self._refer(max(BATCH, pairs // REFERENCE_SHARE)))
        return Repeat(
            score / pairs,
            self._scoring.seconds["pictures"] / pairs,
            self._scoring.seconds["clip"] / pairs,
            picture_tower / pairs,
            text_tower / pairs,
            decode / pairs,
            reference / len(expected),
            float(np.abs(expected - similarities[: len(expected)]).max()),
            self._multiply(),
        )

    def _score(self, shards: Sequence[Shard]) -> npt.NDArray[np.float32]:
        """Score downloaded shards as `winnow curate` does. Gives the similarities, and deletes the results."""
        for _, error in local.run(lambda: self._scoring, shards):
            if error:
                raise error
        stage = self._scoring.plan.scores["clip"]
        tables = [pq.read_table(self._storage.fetch(stage.item(shard.number, ".parquet"))) for shard in shards]
        for made in (stage, self._scoring.plan.embeddings["clip"]):
            shutil.rmtree(self._storage.address(made.folder))
        return np.concatenate([table["clip_similarity"].to_numpy() for table in tables])

    def _forward(self, captions: Sequence[str]) -> tuple[float, float]:
        """Seconds of the picture tower and of the text tower, for captions of these lengths and as many pictures."""
        clip = self._clip
        picture = torch.randn(self._batch, 3, *clip.prepare(Image.new("RGB", (256, 256))).shape[:2]).to(
            clip.device, clip.dtype
        )
        groups = [tokens.to(clip.device) for _, tokens in clip.tokenize(captions)]

        def see() -> None:
            for start in range(0, len(captions), self._batch):
                clip.model.encode_image(picture[: len(captions) - start])

        def read() -> None:
            for tokens in groups:
                for start in range(0, len(tokens), self._batch):
                    clip.text_features(tokens[start : start + self._batch])

        with torch.inference_mode():
            return _timed(see)[0], _timed(read)[0]

    def _decode(self, tars: Sequence[Path]) -> None:
        for tar in tars:
            with tarfile.open(tar) as opened:
                members = opened.getnames()
            with closing(Pictures(0, tar, {"clip": self._clip}, self._pool)) as pictures:
                for start in range(0, len(members), WINDOW):
                    pictures.take(members[start : start + WINDOW])

    def _refer(self, pairs: int) -> npt.NDArray[np.float32]:
        return self._reference.similarities(self._tars, self._captions[:pairs])

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self._model, self._clip.device)

    def _multiply(self) -> float:
        """Floating-point operations a second of this precision: the best of five large products of matrices."""
        side = 2048 if self._clip.device == "cpu" else 8192
        square = torch.randn(side, side).to(self._clip.device, self._clip.dtype)
        _timed(lambda: square @ square)
        return 2 * side**3 / min(_timed(lambda: square @ square)[0] for _ in range(5))


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds until the work is done, on the GPU too, and its result."""
    started = time.perf_counter()
    made = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, made
