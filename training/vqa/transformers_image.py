"""Image towers of transformers, such as DINOv2: a folder with config.json, preprocessor_config.json and weights."""

import json
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.errors import ModelError
from pipeline.models.clip_weights import first_line
from pipeline.settings.model import TransformersText
from training.dual import hub_folder
from training.dual.pictures import INTERPOLATIONS, Preparation
from training.dual.transformers_text import trained, untrained

PREPROCESSOR = "preprocessor_config.json"

_RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, which transformers writes."""


def build(image: TransformersText) -> tuple[nn.Module, Preparation]:
    """The tower with its weights, and how pictures are prepared for it. Raises ModelError."""
    from transformers import AutoConfig

    folder = hub_folder.find(image)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{folder / hub_folder.CONFIG} is no config of transformers: {first_line(error)}") from error
    if not hasattr(config, "num_channels"):
        raise ModelError(f"{image.name} is no image tower (a {config.model_type}): name one such as DINOv2 or ViT")
    file = hub_folder.weights(image, folder)
    tower: nn.Module = untrained(config) if file is None else trained(config, file)
    return tower, preparation(folder / PREPROCESSOR)


def preparation(file: Path) -> Preparation:
    """What a preprocessor_config.json says: the short side, the crop, mean, standard deviation and interpolation.

    Raises ModelError for a missing file, pictures that are not square, and an interpolation other than two.
    """
    try:
        own: dict[str, Any] = json.loads(file.read_text())
        size, mean, std = own.get("crop_size") or own["size"], own["image_mean"], own["image_std"]
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"{file} cannot be read ({first_line(error)}): copy it from the model's repository") from error
    sides = {size} if isinstance(size, int) else {size.get(name) for name in ("height", "width")}
    interpolation = _RESAMPLING.get(own.get("resample", 3))
    if len(sides) != 1 or None in sides or interpolation not in INTERPOLATIONS:
        raise ModelError(f"{file}: a model takes squares, resized by {' or '.join(INTERPOLATIONS)}: name another tower")
    side = int(sides.pop())
    whole = own["size"]
    shortest = whole.get("shortest_edge") if isinstance(whole, dict) else None
    mode = "squash" if shortest is None and isinstance(whole, dict) else "shortest"
    crop = side / shortest if shortest and own.get("do_center_crop", True) else 1.0
    return Preparation(side, tuple(mean), tuple(std), interpolation, mode, crop)
