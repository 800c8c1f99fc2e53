"""Towers of a model that winnow trained, to train on: `local-dir:FOLDER` as image or text tower."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.clip_folder import MODEL
from pipeline.settings.fields import LOCAL_DIR
from pipeline.settings.model import Model
from pipeline.store.digests import file_digest
from training.dual import folder as folders
from training.dual import tokens
from training.dual.open_clip_format import transformers_config
from training.dual.parts import Part
from training.dual.pictures import Preparation
from training.dual.tokens import Tokenizer
from training.dual.transformers_text import check_context


def folder_of(model: str) -> Path | None:
    """The folder of a model that winnow trained, if the name means one."""
    path = Path(model.removeprefix(LOCAL_DIR))
    return path if model.startswith(LOCAL_DIR) and (path / MODEL).is_file() else None


def identity(folder: Path) -> Mapping[str, Any]:
    """The digests of its weights and of what describes it."""
    return {"weights": file_digest(folder / folders.WEIGHTS), "config": file_digest(folder / MODEL)}


def image(model: Model, folder: Path) -> tuple[Part, Preparation]:
    """The trained image tower, with its projection if it has a linear head. Raises ModelError."""
    loaded = folders.load(folder)
    if model.image_size and model.image_size != loaded.preparation.size:
        raise ModelError(f"{model.image.name} sees {loaded.preparation.size} pixels: remove image_size")
    bias = None if loaded.logit_bias is None else loaded.logit_bias.item()
    part = _part(loaded.towers[0], loaded.visual.head, folder)
    return replace(part, scale=loaded.logit_scale.item(), bias=bias), loaded.preparation


def text(model: Model, folder: Path) -> tuple[Part, Tokenizer]:
    """The trained text tower, as `image`, and its tokenizer. Raises ModelError."""
    loaded = folders.load(folder)
    part = _part(loaded.towers[1], loaded.text.head, folder)
    if part.recipe["kind"] == "transformers":
        check_context(transformers_config(loaded), model.context, model.text.name)
        return part, tokens.of_transformers(folder, model.context)
    own = loaded.settings.context
    if model.context != own:
        raise ModelError(f"{model.text.name} was trained on {own} tokens: set context = {own}")
    return part, loaded.tokenizer


def _part(part: Part, head: nn.Module, folder: Path) -> Part:
    linear = getattr(head, "proj", None)
    weight: Tensor | None = linear.weight.detach() if isinstance(linear, nn.Linear) else None
    return replace(part, projection=weight, identity=identity(folder))
