"""A dual encoder as open_clip describes it: open_clip_config.json, and the names of weights.

open_clip holds timm image towers, text towers of transformers that it knows, and its own towers, each with a linear
head. `obstacle` says why it cannot hold a model.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from training.dual.distilbert import to_bert
from training.dual.encoder import DualEncoder
from training.dual.parts import Part

Renames = Mapping[str, tuple[str, str, bool]]

_VISUAL: Renames = {
    "timm": ("visual.trunk.", "visual.head.proj.weight", False),
    "open_clip": ("visual.", "visual.proj", True),
}
_TEXT: Renames = {
    "transformers": ("text.", "text.proj.weight", False),
    "open_clip": ("text.", "text.text_projection", True),
}
"""By kind of tower: the prefix of a trunk's weights, the name of its projection, and whether that is transposed."""


def obstacle(model: DualEncoder) -> str | None:
    """Why open_clip cannot hold the model, as the end of a sentence; None if it can."""
    image, text = model.towers
    if model.settings.head == "residual":
        return f"it has no {model.settings.head} head"
    for part in (image, text):
        if part.obstacle:
            return part.obstacle
    if image.quick_gelu is not None and text.quick_gelu is not None and image.quick_gelu != text.quick_gelu:
        return "it has one activation for both towers, and one of these has QuickGELU"
    return None


def config(model: DualEncoder, image_folder: str, text_folder: str) -> dict[str, Any]:
    """The content of open_clip_config.json.

    `text_folder` is where the config of a transformers tower is, `image_folder` that of a timm tower with options.
    """
    image, text = model.towers
    vision, words = dict(image.config), dict(text.config)
    if image.recipe.get("options"):
        vision["timm_model_name"] = f"local-dir:{image_folder}"
    if "hf_model_name" in words:
        words |= {"hf_model_name": text_folder, "hf_tokenizer_name": text_folder}
    words["context_length"] = model.settings.context
    quick = image.quick_gelu or text.quick_gelu or False
    described = {"embed_dim": model.settings.dim, "custom_text": True, "vision_cfg": vision, "text_cfg": words}
    described |= {"quick_gelu": True} if quick else {}
    described |= {"init_logit_bias": 0.0} if model.logit_bias is not None else {}
    return {"model_cfg": described, "preprocess_cfg": model.preparation.open_clip()}


def state(model: DualEncoder) -> dict[str, Tensor]:
    """The weights under open_clip's names; a DistilBERT as the BERT that computes the same."""
    named = {}
    for key, value in model.state_dict().items():
        name, transposed = _name(key, model.towers)
        named[name] = value.T.contiguous() if transposed else value.contiguous()
    if getattr(transformers_config(model), "model_type", "") != "distilbert":
        return named
    return to_bert(named, "text.transformer.")


def from_state(model: DualEncoder, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the model's own names, from those that `state` gave; a missing one is left out."""
    own = {}
    for key in model.state_dict():
        name, transposed = _name(key, model.towers)
        if name in named:
            own[key] = named[name].T if transposed else named[name]
    return own


def _name(key: str, towers: tuple[Part, Part]) -> tuple[str, bool]:
    image, text = towers
    for side, kinds, part in (("visual", _VISUAL, image), ("text", _TEXT, text)):
        prefix, projection, transposed = kinds[part.recipe["kind"]]
        if key.startswith(f"{side}.trunk."):
            return prefix + key.removeprefix(f"{side}.trunk."), False
        if key == f"{side}.head.proj.weight":
            return projection, transposed
    return key, False


def transformers_config(model: DualEncoder) -> Any:
    """The config of a text tower of transformers; None for one of open_clip's."""
    return getattr(getattr(model.text.trunk, "transformer", None), "config", None)
