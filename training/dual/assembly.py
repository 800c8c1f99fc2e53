"""From the parts of a dual encoder to the module: branches with heads, and the start values of the objective."""

import math

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.settings.model import Model
from training.dual.encoder import Branch, DualEncoder
from training.dual.heads import Name, head
from training.dual.parts import Part


def branch(model: Model, part: Part, name: str) -> Branch:
    """The tower of a part, with a head of random weights. Raises ModelError if its embeddings have another size."""
    if part.fixed and model.head != "residual":
        if part.width != model.dim:
            raise ModelError(f"{name} gives embeddings of {part.width} numbers: set dim = {part.width}")
        return Branch(part.trunk, nn.Identity())
    kind: Name = "residual" if model.head == "residual" else "linear"
    return Branch(part.trunk, head(kind, part.width, model.dim, model.dropout, part.projection))


def sized(model: Model, image: Part, text: Part) -> Model:
    """The settings, with the size of the towers' own embeddings where these are used. Raises ModelError."""
    if model.head != "own":
        return model
    if image.dim is None or image.dim != text.dim:
        raise ModelError(f'{model.name} have no projections of one size: head = "own" needs them; set head = "linear"')
    return model.model_copy(update={"dim": image.dim})


def start(built: DualEncoder) -> None:
    """Set the temperature and the bias of the objective to their start values.

    softmax: ln(1 / 0.07), as CLIP (Radford et al. 2021). sigmoid: ln 10 and -10, as SigLIP (Zhai et al. 2023), or
    -ln(batch - 1), the prior of a match in a batch. soft-targets: temperature 1, which does not train.
    With `head = "own"`, those of the checkpoint in place of these, as far as it has them.
    """
    model = built.settings
    own = built.towers[0] if model.head == "own" else None
    scale = {"softmax": math.log(1 / 0.07), "sigmoid": math.log(10), "soft-targets": 0.0}[model.objective]
    if own and own.scale is not None and model.objective != "soft-targets":
        scale = own.scale
    built.logit_scale = nn.Parameter(torch.tensor(scale), requires_grad=model.objective != "soft-targets")
    if model.objective == "sigmoid":
        bias = -10.0 if model.bias == "paper" else -math.log(model.batch - 1)
        bias = own.bias if own and own.bias is not None else bias
        built.logit_bias = nn.Parameter(torch.tensor(bias))
