"""Image towers: any timm model, or the image tower of an open_clip model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, did_you_mean
from pipeline.models import clip_weights
from pipeline.settings.encoder import RANDOM, SELF_CONTAINED, Network
from training.dual import misfit, parts, pictures
from training.dual.parts import Part
from training.dual.pictures import Preparation
from training.encoders import timm_weights


def build(image: Network, size: int | None) -> tuple[Part, Preparation]:
    """The tower with its weights, and how pictures are prepared for it. Raises ModelError."""
    return _timm(image, size) if image.kind == "timm" else _open_clip(image)


def rebuild(recipe: Mapping[str, Any], preparation: Preparation) -> Part:
    """The tower that a recipe describes, untrained."""
    if recipe["kind"] == "timm":
        loaded = _load_timm(timm_weights.TimmWeights(recipe["model"], None), recipe["options"])
        return _timm_part(loaded, recipe, preparation)
    return _native_part(native(recipe), recipe, {})


def native(recipe: Mapping[str, Any]) -> nn.Module:
    """An untrained image tower of open_clip's, with its projection."""
    from open_clip.model import CLIPVisionCfg, _build_vision_tower

    config = {**recipe["config"], "timm_model_pretrained": False}
    tower: nn.Module = _build_vision_tower(recipe["embed_dim"], CLIPVisionCfg(**config), recipe["quick_gelu"])
    return tower


def _timm(image: Network, size: int | None) -> tuple[Part, Preparation]:
    found = timm_weights.find(image.model, image.weights)
    loaded = _load_timm(found, image.options)
    preparation = pictures.of_timm(loaded, image.preprocess, size)
    model = image.model
    options = dict(image.options)
    if model.startswith(SELF_CONTAINED):
        options = {**loaded._model_args, **options}
        model = loaded.pretrained_cfg["architecture"]
    recipe = {"kind": "timm", "model": model.partition(".")[0], "options": _without_classes(options)}
    return _timm_part(loaded, recipe, preparation, found.identity()), preparation


def _load_timm(found: timm_weights.TimmWeights, options: Mapping[str, Any]) -> Any:
    import timm

    if not found.model.startswith(SELF_CONTAINED) and not timm.is_model(found.model.partition(".")[0]):
        raise ModelError(f"timm has no model {found.model!r}{did_you_mean(found.model, timm.list_models())}")
    try:
        return found.load(options)
    except Exception as error:
        where = f"{found.weights.name} does not fit {found.model}" if found.weights else f"{found.model} is not built"
        raise ModelError(f"{where}: {misfit.from_torch(error)}") from error


def _timm_part(
    loaded: Any, recipe: Mapping[str, Any], preparation: Preparation, identity: Mapping[str, Any] | None = None
) -> Part:
    loaded.reset_classifier(0)
    width = _width(loaded, preparation.size)
    config = {
        "image_size": preparation.size,
        "timm_model_name": recipe["model"],
        "timm_pool": "",
        "timm_proj": "linear",
    }
    obstacle = f"it has no crop_pct ({preparation.crop_pct:g})" if preparation.crop_pct != 1 else None
    return Part(loaded, width, recipe, config, obstacle=obstacle, identity=identity or {})


def _width(trunk: nn.Module, size: int) -> int:
    """The number of features of a picture of `size` pixels. Raises ModelError if the trunk sees no such pictures."""
    trunk.eval()
    try:
        with torch.inference_mode():
            features: Tensor = trunk(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"the image tower does not see pictures of {size} x {size}: {misfit.from_torch(error)}; set image_size"
        ) from error
    return features.shape[1]


def _open_clip(image: Network) -> tuple[Part, Preparation]:
    import open_clip

    if image.weights == RANDOM:
        model, identity = clip_weights.create_untrained(image.model), {"model": image.model, "weights": RANDOM}
    else:
        files = clip_weights.find_model(image.model, image.weights, image.quick_gelu)
        model, identity = files.load(), dict(files.identity())
    config = open_clip.get_model_config(image.model)
    recipe = {
        "kind": "open_clip",
        "config": config["vision_cfg"],
        "embed_dim": config["embed_dim"],
        "quick_gelu": bool(config.get("quick_gelu", False)),
    }
    part, bias = _native_part(model.visual, recipe, identity), getattr(model, "logit_bias", None)
    scaled = replace(part, scale=model.logit_scale.item(), bias=None if bias is None else bias.item())
    return scaled, pictures.of_open_clip(model)


def _native_part(visual: Any, recipe: Mapping[str, Any], identity: Mapping[str, Any]) -> Part:
    quick_gelu = None if recipe["config"].get("timm_model_name") else recipe["quick_gelu"]
    return parts.of_open_clip(visual, "proj", recipe, quick_gelu, identity)


def _without_classes(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in ("num_classes", "pretrained")}
