"""The presets of `[models.NAME]`, and what `tiny = true` changes."""

from collections.abc import Mapping
from typing import Any

_SIGLIP: Mapping[str, Any] = {
    # The study states batches of 64, templates, and AdamW without weight decay. It does not state the rates.
    "image": "open_clip:ViT-B-16-SigLIP@webli",
    "text": "open_clip:ViT-B-16-SigLIP@webli",
    "context": 64,
    "head": "own",
    "objective": "sigmoid",
    "texts": "template",
    "image_blocks": "all",
    "text_blocks": "all",
    "head_rate": 1e-5,
    "image_rate": 1e-5,
    "text_rate": 1e-5,
    "weight_decay": 0.0,
    "batch": 64,
    "steps": 400,
}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Table I of the study of small vision encoders in CLIP. Two epochs over 158,915 captions of which a fifth is held
    # out are 15,892 steps of 16. Heads and loss are those of the tutorial that it follows.
    "small-clip-study": {
        "image": "timm:mobilenetv2_100",
        "image_size": 224,
        "text": "transformers:distilbert/distilbert-base-uncased",
        "pooling": "first",
        "context": 200,
        "head": "residual",
        "dim": 256,
        "dropout": 0.1,
        "objective": "soft-targets",
        "same_picture": "negative",
        "image_blocks": "all",
        "text_blocks": "all",
        "batch_norm": "train",
        "head_rate": 1e-3,
        "image_rate": 1e-4,
        "text_rate": 1e-5,
        "weight_decay": 1e-3,
        "schedule": "plateau",
        "patience": 1,
        "factor": 0.8,
        "batch": 16,
        "steps": 15_892,
    },
    # Normalised embeddings, a learned temperature, larger batches, a sentence encoder pooled as it was trained. Without
    # dropout 1,500 steps are too many for 18,000 pairs (docs/small-clips.md).
    "small-clip": {
        "image": "timm:tf_efficientnet_lite0",
        "text": "transformers:sentence-transformers/all-MiniLM-L6-v2",
        "pooling": "mean",
        "context": 32,
        "head": "linear",
        "dim": 256,
        "dropout": 0.6,
        "objective": "softmax",
        "same_picture": "match",
        "image_blocks": 0,
        "text_blocks": 0,
        "batch_norm": "eval",
        "head_rate": 1e-3,
        "schedule": "cosine",
        "batch": 256,
        "steps": 1500,
    },
    "siglip": _SIGLIP,
    # The image tower is frozen, as in LiT (Zhai et al. 2022), so that its embeddings are computed once.
    "siglit": {**_SIGLIP, "image_blocks": 0},
}
"""By name, the keys that a preset sets."""

_TINY = {"image_size": 64, "context": 16, "batch": 32, "steps": 20}
"""The largest values under `tiny = true`, which run in half a minute on two cores."""


def shrink(table: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a model, none larger than `tiny = true` allows. Only a timm image tower has a size to set."""
    limits = dict(_TINY)
    image = table.get("image")
    if str(image.get("kind") if isinstance(image, dict) else image).startswith(("open_clip", "transformers")):
        del limits["image_size"]
    if table.get("head") == "own":
        del limits["context"]  # SigLIP's text tower reads its full length only
    given = {name: table[name] for name in limits if isinstance(table.get(name), int)}
    return {**table, **{name: min(limit, given.get(name, limit)) for name, limit in limits.items()}}
