"""From the table `[models.NAME]` to a dual encoder."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

from pipeline.models import clip_weights
from pipeline.settings.encoder import RANDOM, Network
from pipeline.settings.model import Model, OpenClipText, TransformersText
from training.dual import hub_folder, image_towers, open_clip_text, tokens, trained, transformers_text
from training.dual.assembly import branch, sized, start
from training.dual.encoder import DualEncoder
from training.dual.freezing import freeze
from training.dual.parts import Part
from training.dual.pictures import Preparation
from training.dual.tokens import Tokenizer
from training.encoders import timm_weights

VERSION = 1


def build(model: Model, seed: int) -> DualEncoder:
    """The model on the CPU in float32, frozen as the settings say; `seed` decides the weights of its heads.

    Untrained towers have the same weights under every seed. Raises ModelError for a tower that is not there, weights
    that do not fit, a context that the text tower does not read, and settings under which nothing trains.
    """
    image, preparation = _image(model)
    text, tokenizer = _text(model)
    model = sized(model, image, text)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        branches = branch(model, image, model.image.name), branch(model, text, model.text.name)
    built = DualEncoder(model, *branches, preparation, tokenizer, (image, text))
    start(built)
    freeze(built)
    return built.eval()


def identity(model: Model) -> Mapping[str, Any]:
    """All that decides the untrained model, as JSON without paths: its settings, and digests of its weights.

    Raises ModelError for weights that are missing.
    """
    towers: dict[str, Any] = {"image": network_identity(model.image)}
    if isinstance(model.text, TransformersText):
        towers["text"] = dict(hub_folder.identity(model.text, hub_folder.find(model.text)))
    elif model.text.kind == "open_clip":
        towers["text"] = network_identity(model.text.network)
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


def _image(model: Model) -> tuple[Part, Preparation]:
    folder = trained.folder_of(model.image.model)
    return trained.image(model, folder) if folder else image_towers.build(model.image, model.image_size)


def _text(model: Model) -> tuple[Part, Tokenizer]:
    if isinstance(model.text, TransformersText):
        part, home = transformers_text.build(model.text, model.pooling or "mean", model.context)
        return part, tokens.of_transformers(home, model.context)
    folder = trained.folder_of(model.text.model) if isinstance(model.text, OpenClipText) else None
    return trained.text(model, folder) if folder else open_clip_text.build(model.text, model.context)


def network_identity(network: Network) -> dict[str, Any]:
    """The kind of a tower, and digests of its weights. Raises ModelError for weights that are missing."""
    if folder := trained.folder_of(network.model):
        return {"kind": network.kind, **trained.identity(folder)}
    if network.kind == "timm":
        return {"kind": network.kind, **timm_weights.find(network.model, network.weights).identity()}
    if network.weights == RANDOM:
        return {"kind": network.kind, "model": network.model, "weights": RANDOM}
    found = clip_weights.find_model(network.model, network.weights, network.quick_gelu)
    return {"kind": network.kind, **found.identity()}
