"""The learned scale and bias of the logits: their values at the start, and the largest scale."""

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

Name = Literal["softmax", "sigmoid", "soft-targets"]
Bias = Literal["paper", "prior"]

MAX_LOG_SCALE = math.log(100)
"""The largest logarithm of the scale: CLIP clips the scale at 100 (Radford et al. 2021)."""


class Start(NamedTuple):
    """The initial `logit_scale`, a logarithm, and the `logit_bias`, None where the loss has none."""

    log_scale: float
    bias: float | None


def start(objective: Name, bias: Bias, batch: int) -> Start:
    """What training starts from.

    softmax: CLIP's 1 / 0.07. sigmoid: SigLIP's scale of 10 with the paper's bias of -10, or with "prior", -ln(B - 1)
    for batches of B pairs. That is the logit of the share of matches, 1 in B, and so the paper's bias fits batches of
    about 22,000. soft-targets: 1, which the loss does not use. Raises ValueError for "prior" and fewer than 2 pairs.
    """
    if objective == "softmax":
        return Start(math.log(1 / 0.07), None)
    if objective == "soft-targets":
        return Start(0.0, None)
    if bias == "paper":
        return Start(math.log(10), -10.0)
    if batch < 2:
        raise ValueError('the bias "prior" needs a batch of 2 pairs or more')
    return Start(math.log(10), -math.log(batch - 1))


def clamp_scale(log_scale: "torch.Tensor") -> None:
    """Limit a model's `logit_scale` to MAX_LOG_SCALE, in place, after a step of the optimizer."""
    import torch

    with torch.no_grad():
        log_scale.clamp_(max=MAX_LOG_SCALE)
