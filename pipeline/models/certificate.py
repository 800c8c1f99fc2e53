"""The certificate of a clip scorer: a check against open_clip before it scores anything.

Golden pictures and captions go through the same weights twice: through open_clip's own code in float32 with whole
captions, and through the scorer, in float32 and then in its own precision on its own device. Errors of preprocessing,
cutting or casting show only here: wrong scores look like scores.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from pipeline.errors import ModelError
from pipeline.models import device
from pipeline.models.clip import STEP, Clip
from pipeline.models.clip_weights import ModelFiles
from pipeline.models.text_tower import EXACT

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.03}
"""The largest difference of a cosine from open_clip's in float32. bfloat16 has 8 bits of precision, and errors of a
dozen layers add up: 0.002 is usual. Errors of preprocessing or cutting show in float32 already."""

GOLDEN_CAPTIONS = (
    "a dog",
    "two people ride bicycles along a river, seen from above",
    "",
    "a long caption of many words that a tower with few positions has to cut, " * 8,
)

Cosines = npt.NDArray[np.float32]
"""[pictures, captions]."""


def golden_pictures() -> list[Image.Image]:
    """Drawn pictures, as many as `GOLDEN_CAPTIONS`: stripes, disks and noise in several shapes."""
    drawn = []
    for number, (width, height) in enumerate(((320, 240), (200, 300), (96, 96), (500, 260))):
        x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        disk = np.hypot(x - 0.3 - 0.1 * number, y - 0.5) < 0.15 + 0.05 * number
        waves = [0.5 + 0.5 * np.sin(2 * np.pi * (3 + 4 * number) * (x * (1 - part) + y * part)) for part in (0, 0.5, 1)]
        planes = np.stack([np.where(disk, (number + place) % 3 / 2, wave) for place, wave in enumerate(waves)], axis=-1)
        noise = np.random.default_rng(number).integers(0, 40, planes.shape)
        drawn.append(Image.fromarray((planes * 215 + noise).astype(np.uint8)))
    return drawn


def reference(clip: Clip) -> Cosines:
    """Cosines of open_clip in float32, with its own preprocessing. The Clip must not be placed yet."""
    model = clip.model
    preprocess = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)), is_train=False)
    with torch.inference_mode():
        seen = model.encode_image(torch.stack([preprocess(picture) for picture in golden_pictures()]), normalize=True)
        read = model.encode_text(clip.tokenizer(list(GOLDEN_CAPTIONS)), normalize=True)
        cosines: Cosines = (seen @ read.T).numpy()
    return cosines


def cosines(clip: Clip) -> Cosines:
    """Cosines of the Clip in its current precision on its current device."""
    computed: Cosines = (
        clip.encode_pictures([clip.prepare(picture) for picture in golden_pictures()])
        @ clip.encode_captions(GOLDEN_CAPTIONS).T
    )
    return computed


def deviation(clip: Clip, expected: Cosines) -> float:
    """The largest difference from `expected`. Raises ModelError if it exceeds the `TOLERANCE` of the precision."""
    found, allowed = cosines(clip), TOLERANCE[clip.precision]
    largest = float(np.abs(found - expected).max())
    if not largest <= allowed:  # false for NaN as well
        raise ModelError(
            f"{clip.name} in {clip.precision} on {clip.device} gives cosines up to {largest:.2g} from open_clip's in "
            f"float32, and {allowed:g} is allowed. Nothing was scored: compare versions with requirements.lock"
        )
    return largest


def check_padding(clip: Clip) -> None:
    """Texts of a tower that reads padding, and pools at the last position, as SigLIP's, must be as long as in training.

    Raises ModelError if the tokenizer pads to another length, and embeddings change by that.
    """
    tower = getattr(clip.model, "text", clip.model)
    context, tokens = getattr(tower, "context_length", None), clip.tokenizer(list(GOLDEN_CAPTIONS[:2]))
    causal = getattr(tower, "attn_mask", None) is not None
    if causal or getattr(tower, "pool_type", None) != "last" or tokens.shape[1] == context:
        return
    change = float("inf")
    if context and tokens.shape[1] < context:
        whole = torch.nn.functional.pad(tokens, (0, context - tokens.shape[1]), value=getattr(tower, "pad_id", 0))
        with torch.inference_mode():
            one, other = (clip.model.encode_text(each, normalize=True) for each in (tokens, whole))
        change = float((one - other).abs().max())
    if change > EXACT:
        raise ModelError(
            f"{clip.name} was trained on texts padded to {context} tokens, and its tokenizer pads to "
            f"{tokens.shape[1]}, which changes embeddings by up to {change:.2g}: set context_length in text_cfg"
        )


def certify(clip: Clip, files: ModelFiles, kind: str, precision: str) -> Mapping[str, Any]:
    """Check the Clip in float32, place it and check it again. JSON for the manifest's card. Raises ModelError."""
    check_padding(clip)
    expected = reference(clip)
    deviations = {"float32": deviation(clip, expected)}
    clip.place(kind, precision)
    deviations[precision] = deviation(clip, expected)
    config = open_clip.get_model_preprocess_cfg(clip.model)
    return {
        **{key: value for key, value in files.identity().items() if key in ("model", "weights")},
        "versions": {name: version(name) for name in ("open_clip_torch", "torch", "torchvision", "pillow")},
        "activation": "quick_gelu" if _has_quick_gelu(clip.model) else "gelu",
        **{key: config[key] for key in ("size", "mean", "std", "interpolation", "resize_mode")},
        "captions_cut_to_multiples_of": STEP if clip.cuts else None,
        "precision": precision,
        "device": device.describe(),
        "batch": clip.batch,
        "norms": _norms(clip),
        "golden": [round(float(score), 6) for score in cosines(clip).diagonal()],
        "golden_float32": [round(float(score), 6) for score in expected.diagonal()],
        "deviation": {name: float(f"{value:.2g}") for name, value in deviations.items()},
        "tolerance": {name: TOLERANCE[name] for name in deviations},
    }


def _norms(clip: Clip) -> Mapping[str, Sequence[float]]:
    """The lowest and the highest norm of the towers' output before normalisation."""
    seen = clip.picture_features([clip.prepare(picture) for picture in golden_pictures()])
    read = [clip.text_features(tokens.to(clip.device)) for _, tokens in clip.tokenize(GOLDEN_CAPTIONS)]
    norms = {"pictures": seen.float().norm(dim=-1), "captions": torch.cat(read).float().norm(dim=-1)}
    return {name: [round(float(value.min()), 4), round(float(value.max()), 4)] for name, value in norms.items()}


def _has_quick_gelu(model: torch.nn.Module) -> bool:
    return any(type(module).__name__ == "QuickGELU" for module in model.modules())
