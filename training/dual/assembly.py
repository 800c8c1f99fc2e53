"""From the parts of a dual encoder to the module: branches with heads, and the start values of the objective."""

import math

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.settings.model import Model
from training.dual.encoder import Branch, DualEncoder
from training.dual.heads import head
from training.dual.parts import Part


def branch(model: Model, part: Part, name: str) -> Branch:
    """The tower of a part, with a head of random weights. Raises ModelError if its embeddings have another size."""
    if part.fixed and model.head == "linear":
        if part.width != model.dim:
            raise ModelError(f"{name} gives embeddings of {part.width} numbers: set dim = {part.width}")
        return Branch(part.trunk, nn.Identity())
    return Branch(part.trunk, head(model.head, part.width, model.dim, model.dropout, part.projection))


def start(built: DualEncoder) -> None:
    """Set the temperature and the bias of the objective to their start values.

    softmax: ln(1 / 0.07), as CLIP (Radford et al. 2021). sigmoid: ln 10 and -10, as SigLIP (Zhai et al. 2023), or
    -ln(batch - 1), the prior of a match in a batch. soft-targets: temperature 1, which does not train.
    """
    model = built.settings
    scale = {"softmax": math.log(1 / 0.07), "sigmoid": math.log(10), "soft-targets": 0.0}[model.objective]
    built.logit_scale = nn.Parameter(torch.tensor(scale), requires_grad=model.objective != "soft-targets")
    if model.objective == "sigmoid":
        bias = -10.0 if model.bias == "paper" else -math.log(model.batch - 1)
        built.logit_bias = nn.Parameter(torch.tensor(bias))
