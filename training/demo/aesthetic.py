"""Trains the demo's aesthetic head: `python -m training.demo.aesthetic`, after the demo CLIP, which it reads.

An affine map, as LAION's heads are: logistic regression on the L2-normalised embedding, a clean scene against the same
one blurred, washed out, watermarked or over-compressed. The scenes are of the stream that the CLIP learned from but of
another seed, so neither the CLIP, the demo's pool, its test set nor the calibration pool has them. A score is log odds:
above 0 is rather clean. It knows the demo's toys and these four faults, and says nothing of pictures of the world.

On 300 unseen scenes: AUC of clean against washed out 0.99, over-compressed 0.70, blurred 0.66, watermarked 0.65, all
together 0.75. An embedding that was taught to name toys at 64 pixels has little to tell of how sharp they are; the
columns of `pixels` tell three of the four faults much better.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from pipeline.demo import pool
from pipeline.demo.faults import APPLIED, DEGRADING
from training.demo.clip import FOLDER, auc, embeddings

WEIGHTS = FOLDER.parent / "aesthetic.safetensors"
SEED, SCENES, UNSEEN = 2, 1000, 300
PENALTY, STEPS = 1e-6, 300


def photographed(folder: Path, seed: int, stream: int, count: int) -> Tensor:
    """Embeddings of `count` scenes, clean and with each fault, float32 [1 + faults, count, 128]."""
    contents = [each for number in track(range(count), "drawing scenes") for each in _kinds(seed, stream, number)]
    pictures, _ = embeddings(folder, contents, [""])
    return pictures.reshape(count, 1 + len(DEGRADING), -1).transpose(0, 1).contiguous()


def _kinds(seed: int, stream: int, number: int) -> list[bytes]:
    """A scene's picture as it was taken, and with each fault."""
    picture = pool.photograph(seed, stream, number)
    harmed = [APPLIED[fault](picture, np.random.default_rng([seed, stream, number, 3])) for fault in DEGRADING]
    return [pool.jpeg(each, seed, number) for each in (picture, *harmed)]


def fit(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Weight [1, 128] and bias [1]. As much depends on the clean pictures as on all faults together."""
    clean = torch.zeros(seen.shape[:2])
    clean[0] = 1
    share = torch.where(clean > 0, float(len(DEGRADING)), 1.0)
    weight, bias = torch.zeros(1, seen.shape[2], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = binary_cross_entropy_with_logits(linear(seen, weight, bias)[..., 0], clean, share)
        value = value + PENALTY * (weight * weight).sum()
        torch.autograd.backward(value)
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def aucs(scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Clean against each fault, and against all of them. `scores`: the clean ones, then those with each fault."""
    clean, *degraded = scores
    found = {fault: auc(clean, row) for fault, row in zip(DEGRADING, degraded, strict=True)}
    return {"all": auc(clean, [score for row in degraded for score in row]), **found}


def measured(count: int) -> dict[str, float]:
    """The AUCs of the saved head on scenes that nothing was trained on."""
    from safetensors.torch import load_file

    head = load_file(WEIGHTS)
    seen = photographed(FOLDER, SEED, pool.CALIBRATION, count)
    return aucs(linear(seen, head["weight"], head["bias"])[..., 0].tolist())


def main() -> None:
    """Draw, fit, save, and say how well it tells clean from degraded."""
    from safetensors.torch import save_file

    torch.use_deterministic_algorithms(True)
    weight, bias = fit(photographed(FOLDER, SEED, pool.TRAINING, SCENES))
    save_file({"weight": weight, "bias": bias}, WEIGHTS)
    for against, value in measured(UNSEEN).items():
        print(f"clean against {against}: AUC {value:.3f}")


if __name__ == "__main__":
    main()
