"""From the table `[vqa.NAME]` to a model that answers questions."""

from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from pipeline.settings.encoder import Network
from pipeline.settings.vqa import VqaModel
from training.dual import build as dual_build
from training.dual import hub_folder, image_towers, tokens, transformers_text
from training.dual.freezing import train_only
from training.dual.pictures import Preparation
from training.vqa import heads, transformers_image
from training.vqa.model import Answerer
from training.vqa.towers import ImageTokens, TextTokens

VERSION = 1


def build(settings: VqaModel, answers: int, seed: int) -> Answerer:
    """The model on the CPU in float32, frozen as the settings say, without adapters; `seed` decides the head's weights.

    Raises ModelError for a tower that is not there, weights that do not fit, and a width that the head does not take.
    """
    trunk, preparation = _image(settings)
    part, folder = transformers_text.build(settings.text, settings.pooling, settings.context)
    tokenizer = tokens.of_transformers(folder, settings.context)
    image = ImageTokens(trunk, preparation.size)
    transformer: Any = part.trunk
    text = TextTokens(transformer.transformer, part.width, transformer.pad, settings.pooling)
    widths = (image.width, part.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = heads.head(
            settings.head, widths, settings.width or part.width, settings.classifier, answers, settings.dropout
        )
    train_only(trunk, settings.image_blocks, "image")
    train_only(text.transformer, settings.text_blocks, "text")
    return Answerer(settings, image, text, head, preparation, tokenizer).eval()


def identity(settings: VqaModel) -> dict[str, Any]:
    """All that decides the untrained model but the vocabulary, as JSON without paths. Raises ModelError."""
    image = settings.image
    if isinstance(image, Network):
        own = {**dual_build.network_identity(image), **image.model_dump(include={"options", "preprocess"})}
    else:
        own = {"kind": image.kind, **hub_folder.identity(image, hub_folder.find(image))}
    libraries = ("timm", "open_clip_torch", "transformers", "torch", "torchvision", "pillow")
    versions = {name: version(name) for name in libraries} | ({"peft": version("peft")} if settings.lora else {})
    return {
        "code": VERSION,
        **settings.model_dump(mode="json", exclude={"image", "text"}),
        "image": own,
        "text": dict(hub_folder.identity(settings.text, hub_folder.find(settings.text))),
        "versions": versions,
    }


def _image(settings: VqaModel) -> tuple[nn.Module, Preparation]:
    if not isinstance(settings.image, Network):
        return transformers_image.build(settings.image)
    part, preparation = image_towers.build(settings.image, settings.image_size)
    return part.trunk, preparation
