"""Text towers of open_clip: that of a model by name, or a small one that is not trained yet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import ModelError
from pipeline.models import clip_weights
from pipeline.models.clip_weights import first_line
from pipeline.settings.encoder import RANDOM
from pipeline.settings.fields import LOCAL_DIR
from pipeline.settings.model import OpenClipText, SmallText
from training.dual import parts, tokens
from training.dual.parts import Part
from training.dual.tokens import Tokenizer

_CUTTABLE = ("argmax", "eos")


def build(text: OpenClipText | SmallText, context: int) -> tuple[Part, Tokenizer]:
    """The tower with its weights, for `context` tokens, and its tokenizer. Raises ModelError."""
    import open_clip

    if isinstance(text, SmallText):
        config = {"context_length": context, "width": text.width, "layers": text.layers, "heads": text.heads}
        recipe: dict[str, Any] = {"kind": "open_clip", "config": config, "embed_dim": text.width, "quick_gelu": False}
        return _part(native(recipe), recipe, {}), tokenizer(config)
    model, identity = _model(text)
    config = open_clip.get_model_config(text.model)
    recipe = {
        "kind": "open_clip",
        "config": {**config["text_cfg"], "context_length": context},
        "embed_dim": config["embed_dim"],
        "quick_gelu": bool(config.get("quick_gelu", False)),
    }
    tower = native(recipe)
    tower.load_state_dict(_state(model, context, text.name))
    return _part(tower, recipe, identity), tokenizer(recipe["config"], _source(text.model))


def tokenizer(config: Mapping[str, Any], folder: Path | None = None) -> Tokenizer:
    """The tokenizer that a text_cfg describes. Its files are in `folder`, if there is one. Raises ModelError."""
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    context, given = config["context_length"], dict(config.get("tokenizer_kwargs") or {})
    try:
        if name := config.get("hf_tokenizer_name"):
            own = HFTokenizer(str(folder or name), context_length=context, **given)
            return tokens.of_open_clip(own, context)
        vocabulary = Path(folder or Path(), given["bpe_path"]) if "bpe_path" in given else None
        own = SimpleTokenizer(context_length=context, **given | ({"bpe_path": str(vocabulary)} if vocabulary else {}))
        return tokens.of_open_clip(own, context, vocabulary)
    except Exception as error:
        raise ModelError(f"the tokenizer of the text tower cannot be loaded: {first_line(error)}") from error


def _source(model: str) -> Path | None:
    return Path(model.removeprefix(LOCAL_DIR)) if model.startswith(LOCAL_DIR) else None


def native(recipe: Mapping[str, Any]) -> Any:
    """An untrained text tower of open_clip's, with its projection."""
    from open_clip.model import CLIPTextCfg, _build_text_tower

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _build_text_tower(recipe["embed_dim"], CLIPTextCfg(**recipe["config"]), recipe["quick_gelu"])


def rebuild(recipe: Mapping[str, Any]) -> Part:
    """The tower that a recipe describes, untrained."""
    return _part(native(recipe), recipe, {})


def _model(text: OpenClipText) -> tuple[Any, Mapping[str, Any]]:
    import open_clip

    if text.weights == RANDOM:
        model: Any = clip_weights.create_untrained(text.model)
        identity: Mapping[str, Any] = {"model": text.model, "weights": RANDOM}
    else:
        files = clip_weights.find_model(text.model, text.weights, text.quick_gelu)
        model, identity = files.load(), files.identity()
    if open_clip.get_model_config(text.model)["text_cfg"].get("hf_model_name"):
        raise ModelError(f"{text.name} has a text tower of transformers: name that one, transformers:MODEL")
    return model, identity


def _state(model: Any, context: int, name: str) -> dict[str, torch.Tensor]:
    """The weights of the text tower of a CLIP, for the first `context` positions. Raises ModelError."""
    from open_clip.model import convert_to_custom_text_state_dict

    whole = model.state_dict()
    state = whole if hasattr(model, "text") else convert_to_custom_text_state_dict(whole)
    state = {key.removeprefix("text."): value for key, value in state.items() if key.startswith("text.")}
    tower = getattr(model, "text", model)
    own = len(state["positional_embedding"])
    pool = getattr(model, "text_pool_type", None) or getattr(tower, "pool_type", None)
    causal = getattr(tower, "attn_mask", None) is not None
    if context > own or (context < own and not (causal and pool in _CUTTABLE)):
        raise ModelError(f"{name} reads {'at most' if causal else 'exactly'} {own} tokens: set context = {own}")
    return {**state, "positional_embedding": state["positional_embedding"][:context]}


def _part(tower: Any, recipe: Mapping[str, Any], identity: Mapping[str, Any]) -> Part:
    return parts.of_open_clip(tower, "text_projection", recipe, recipe["quick_gelu"], identity)
