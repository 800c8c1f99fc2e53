"""From the table `[models.NAME]` to a dual encoder."""

import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.models import clip_weights
from pipeline.settings.encoder import RANDOM, Network
from pipeline.settings.model import Model, TransformersText
from training.dual import hub_folder, image_towers, open_clip_text, tokens, transformers_text
from training.dual.encoder import Branch, DualEncoder
from training.dual.freezing import freeze
from training.dual.heads import head
from training.dual.parts import Part
from training.encoders import timm_weights

VERSION = 1


def build(model: Model, seed: int) -> DualEncoder:
    """The model on the CPU in float32, frozen as the settings say; `seed` decides the weights of its heads.

    Untrained towers have the same weights under every seed. Raises ModelError for a tower that is not there, weights
    that do not fit, a context that the text tower does not read, and settings under which nothing trains.
    """
    image, preparation = image_towers.build(model.image, model.image_size)
    if isinstance(model.text, TransformersText):
        text, folder = transformers_text.build(model.text, model.pooling or "mean", model.context)
        tokenizer = tokens.of_transformers(folder, model.context)
    else:
        text, tokenizer = open_clip_text.build(model.text, model.context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branches = branch(model, image, model.image.name), branch(model, text, model.text.name)
    built = DualEncoder(model, *branches, preparation, tokenizer, (image, text))
    start(built)
    freeze(built)
    return built.eval()


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


def identity(model: Model) -> Mapping[str, Any]:
    """All that decides the untrained model, as JSON without paths: its settings, and digests of its weights.

    Raises ModelError for weights that are missing.
    """
    towers: dict[str, Any] = {"image": _network_identity(model.image)}
    if isinstance(model.text, TransformersText):
        towers["text"] = dict(hub_folder.identity(model.text, hub_folder.find(model.text)))
    elif model.text.kind == "open_clip":
        towers["text"] = _network_identity(model.text.network)
    settings = model.model_dump(mode="json", exclude={"preset", "image", "text"})
    shape = model.text.model_dump(mode="json", exclude={"model", "weights"})
    libraries = ("timm", "open_clip_torch", "transformers", "torch", "torchvision", "pillow")
    return {
        "code": VERSION,
        **settings,
        "image": {**towers["image"], **model.image.model_dump(include={"options", "preprocess"})},
        "text": {**shape, **towers.get("text", {})},
        "versions": {name: version(name) for name in libraries},
    }


def _network_identity(network: Network) -> dict[str, Any]:
    if network.kind == "timm":
        return {"kind": network.kind, **timm_weights.find(network.model, network.weights).identity()}
    if network.weights == RANDOM:
        return {"kind": network.kind, "model": network.model, "weights": RANDOM}
    found = clip_weights.find_model(network.model, network.weights, network.quick_gelu)
    return {"kind": network.kind, **found.identity()}


def branch(model: Model, part: Part, name: str) -> Branch:
    """The tower of a part, with a head of random weights. Raises ModelError if its embeddings have another size."""
    if part.fixed and model.head == "linear":
        if part.width != model.dim:
            raise ModelError(f"{name} gives embeddings of {part.width} numbers: set dim = {part.width}")
        return Branch(part.trunk, nn.Identity())
    return Branch(part.trunk, head(model.head, part.width, model.dim, model.dropout, part.projection))
