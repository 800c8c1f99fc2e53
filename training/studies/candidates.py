"""Encoders that are compared: the known ones, where their weights come from, and their lines of a source file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.settings.encoder import RANDOM, Encoder, Network
from pipeline.settings.fields import LOCAL_DIR
from training.encoders import encoders, timm_weights

_AT_224 = {"options": {"img_size": 224}, "preprocess": {"input_size": [3, 224, 224]}}

KNOWN: tuple[Encoder, ...] = (
    Network(kind="timm", model="vit_base_patch16_224"),
    Network(kind="timm", model="resnet50"),
    Network(kind="timm", model="resnet101"),
    Network(kind="timm", model="mobilenetv2_100"),
    Network(kind="timm", model="efficientnet_b0"),
    Network(kind="timm", model="inception_v3"),
    Network(kind="timm", model="vit_small_patch14_dinov2", **_AT_224),  # its own 518 px cost six times as much
    Network(kind="timm", model="vit_base_patch14_dinov2", **_AT_224),
    Network(kind="open_clip", model="ViT-B-32-quickgelu", weights="openai"),
    Network(kind="open_clip", model="ViT-B-16-SigLIP", weights="webli"),
)
"""Popular encoders, whose weights are on a hub."""


def toml(encoder: Encoder) -> str:
    """The line that names the encoder in a source file. Files have absolute paths."""
    settings = encoder.model_dump(exclude_defaults=True)
    if settings.keys() <= {"kind", "model", "weights"}:
        name = f"{settings['kind']}:{settings['model']}" if "model" in settings else settings["kind"]
        words = [name, settings.get("weights")]
        return f"encoder = {json.dumps('@'.join(filter(None, words)), ensure_ascii=False)}"
    return f"encoder = {_inline(settings)}"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(each)}" for key, each in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)


def weights_of(encoder: Encoder) -> dict[str, str | None]:
    """Where its weights are from ("hub", "file", "folder", "RANDOM", "none"), and their sha256. Raises ModelError."""
    if not isinstance(encoder, Network):
        return {"from": "none", "name": None, "sha256": None}
    identity = encoders.identity(encoder)
    if encoder.weights == RANDOM:
        return {"from": "RANDOM", "name": None, "sha256": None}
    if encoder.model.startswith(LOCAL_DIR):
        place = {"from": "folder", "name": Path(encoder.model.removeprefix(LOCAL_DIR)).name}
    elif encoder.weights and encoder.weights.endswith(timm_weights.FILE):
        place = {"from": "file", "name": Path(encoder.weights).name}
    else:
        tag = f"/{encoder.weights}" if encoder.kind == "open_clip" and encoder.weights else ""
        place = {"from": "hub", "name": identity["model"] + tag}
    return {**place, "sha256": identity["weights"]}
