"""The files of an open_clip model: finding them, checking that the activation fits the weights, loading them.

Weights are safetensors files, or tags of open_clip, which it loads with `weights_only`: nothing is unpickled. OpenAI's
weights and several others were trained with QuickGELU. With another activation they give scores that look right and are
wrong; open_clip only warns.
"""

import difflib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.models import clip_folder
from pipeline.settings.fields import LOCAL_DIR
from pipeline.store.digests import file_digest

HUB = "hf-hub:"


@dataclass(frozen=True)
class ModelFiles:
    """A model by its open_clip name, the file of its weights, and all else that can change a score."""

    model: str
    weights: Path
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    config: str = ""  # digest of the model's config, unless it is open_clip's own

    def identity(self) -> Mapping[str, Any]:
        """JSON for a stage's key, without paths of this machine."""
        name = LOCAL_DIR if self.model.startswith(LOCAL_DIR) else self.model
        return {
            "model": name,
            "weights": file_digest(self.weights),
            "config": self.config,
            "preprocess": dict(self.preprocess),
        }

    def load(self) -> Any:
        """The model in float32 on the CPU, in eval mode. Raises ModelError."""
        import open_clip

        named = not self.model.startswith((LOCAL_DIR, HUB))
        towers = {}
        if self.model.startswith(LOCAL_DIR):
            towers = clip_folder.located(self.weights.parent, open_clip.get_model_config(self.model))
        try:
            model = open_clip.create_model(
                self.model,
                pretrained=str(self.weights) if named else None,
                force_preprocess_cfg=dict(self.preprocess) or None,
                require_pretrained=True,
                **towers,
            )
        except Exception as error:
            raise ModelError(
                f"{self.weights.name} does not load as {self.model}: {first_line(error)}; name the model it belongs to"
            ) from error
        return model.eval()


def find_model(model: str, weights: str | None, quick_gelu: bool | None) -> ModelFiles:
    """The files of a model. Weights of a tag are downloaded to the hub's cache if they are missing. Raises ModelError.

    `quick_gelu`: whether a local file was trained with it; needed only if no config beside the file says so.
    """
    if model.startswith((LOCAL_DIR, HUB)):
        if weights:
            raise ModelError(f"{model} includes its weights: remove weights = {weights!r}")
        return _folder(Path(model.removeprefix(LOCAL_DIR))) if model.startswith(LOCAL_DIR) else _hub(model)
    import open_clip

    config = open_clip.get_model_config(model.replace("/", "-"))
    if config is None:
        raise ModelError(f"open_clip has no model {model!r}; did you mean {_nearest(model)!r}?")
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model.replace("/", "-"))) or "none"
        raise ModelError(f"{model} needs weights: a .safetensors file, or a tag (for this model: {tags})")
    has = bool(config.get("quick_gelu", False))
    if weights.endswith(".safetensors"):
        return _file(model, Path(weights), has, quick_gelu)
    return _tag(model, weights, has)


def create_untrained(name: str) -> Any:
    """An open_clip model with random weights, in float32 on the CPU. The same name always has the same weights.

    Raises ModelError.
    """
    import open_clip
    import torch

    if open_clip.get_model_config(name) is None:
        raise ModelError(f"open_clip has no model {name!r}; did you mean {_nearest(name)!r}?")
    logging.disable(logging.WARNING)  # it warns that the weights are random
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return open_clip.create_model(name, pretrained=None, load_weights=False).eval()
    except Exception as error:
        raise ModelError(
            f"{name} cannot be created here: {error}; use a model that open_clip creates without downloads"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _nearest(name: str) -> str:
    """The open_clip name that is the same but for case and marks, or a repository of the hub, or a close name."""
    import open_clip

    models: dict[str, str] = {_letters(each): each for each in open_clip.list_models()}
    if own := models.get(_letters(name).removesuffix("px")):
        return own
    if name.count("/") == 1 and not name.upper().startswith(("VIT-", "RN")):
        return HUB + name
    close = difflib.get_close_matches(_letters(name), models, n=1, cutoff=0.3)
    return models[close[0]] if close else "ViT-B-32"


def _letters(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _folder(folder: Path) -> ModelFiles:
    if why := clip_folder.obstacle(folder):
        raise ModelError(f"{folder}: open_clip cannot hold this model, because {why}")
    found = sorted(folder.glob("*.safetensors"))
    if len(found) != 1 or any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        raise ModelError(f"{folder} must hold exactly one file of weights, as .safetensors, and open_clip_config.json")
    described = folder / "open_clip_config.json"
    config = clip_folder.read_json(described).get("model_cfg")
    if not isinstance(config, dict):
        raise ModelError(f"{described} is missing or has no model_cfg: save the folder as open_clip does")
    trained = _activation(folder / "config.json")
    has = bool(config.get("quick_gelu", False))
    if trained is not None and trained != has:
        raise ModelError(
            f"{folder}: config.json says that the weights were trained {_with(trained)}, open_clip_config.json makes a "
            f"model {_with(has)}: set quick_gelu = {json.dumps(trained)} there"
        )
    return ModelFiles(LOCAL_DIR + str(folder), found[0], config=clip_folder.config_digest(folder, config))


def _hub(model: str) -> ModelFiles:
    from open_clip.pretrained import download_pretrained_from_hf

    name = model.removeprefix(HUB)
    try:
        config = Path(download_pretrained_from_hf(name, filename="open_clip_config.json"))
        return ModelFiles(model, Path(download_pretrained_from_hf(name)), config=file_digest(config))
    except Exception as error:
        raise ModelError(cannot_fetch(model, error)) from error


def _tag(model: str, tag: str, has: bool) -> ModelFiles:
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model

    # open_clip lists a model's QuickGELU tags under both of its names, and its other tags under the plain one.
    config = get_pretrained_cfg(model.replace("/", "-"), tag)
    if not config:
        plain = get_pretrained_cfg(model.replace("/", "-").removesuffix("-quickgelu"), tag)
        if plain:
            raise ModelError(_misfit(model, tag, bool(plain.get("quick_gelu", False)), has))
        tags = ", ".join(list_pretrained_tags_by_model(model.replace("/", "-"))) or "none"
        raise ModelError(f"{model} has no weights {tag!r}: use a tag ({tags}) or a .safetensors file")
    trained = bool(config.get("quick_gelu", False))
    if trained != has:
        raise ModelError(_misfit(model, tag, trained, has))
    try:
        weights = Path(download_pretrained(config))
    except Exception as error:
        raise ModelError(cannot_fetch(f"{model}/{tag}", error)) from error
    keys = ("size", "mean", "std", "interpolation", "resize_mode", "fill_color")
    return ModelFiles(model, weights, {key: config[key] for key in keys if config.get(key) is not None})


def _file(model: str, weights: Path, has: bool, quick_gelu: bool | None) -> ModelFiles:
    beside = weights.parent / "open_clip_config.json"
    said = _activation(beside)
    trained = _activation(weights.parent / "config.json") if said is None else said
    trained = quick_gelu if trained is None else trained
    if trained is None:
        raise ModelError(
            f"the activation of {weights.name} is unknown: set quick_gelu = true in the scorer for "
            "OpenAI's weights, false for most others"
        )
    if trained != has:
        raise ModelError(_misfit(model, weights.name, trained, has))
    return ModelFiles(model, weights, clip_folder.read_json(beside).get("preprocess_cfg", {}))


def _activation(path: Path) -> bool | None:
    """Whether a config of open_clip or of transformers says QuickGELU; None if it says nothing."""
    config = clip_folder.read_json(path)
    if isinstance(config.get("model_cfg"), dict):
        return bool(config["model_cfg"].get("quick_gelu", False))
    tower = config.get("vision_config") or {}
    return tower["hidden_act"] == "quick_gelu" if "hidden_act" in tower else None


def _misfit(model: str, weights: str, trained: bool, has: bool) -> str:
    import open_clip

    plain = model.replace("/", "-").removesuffix("-quickgelu")
    right = f"{plain}-quickgelu" if trained else plain
    way = f"set model = {right!r}" if right in open_clip.list_models() else "use other weights"
    return f"{weights} was trained {_with(trained)} and {model} computes {_with(has)}, so scores would be wrong: {way}"


def _with(quick_gelu: bool) -> str:
    return "with QuickGELU" if quick_gelu else "with GELU"


def cannot_fetch(what: str, error: Exception) -> str:
    """The message for weights that cannot be downloaded."""
    why = first_line(error)
    return f"the weights of {what} cannot be fetched ({why}): check the network, or name a local .safetensors file"
