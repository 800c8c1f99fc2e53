"""A folder of an open_clip model whose towers are described by files of that folder.

config.json describes a text tower of transformers, and image/config.json a timm tower with options. open_clip looks for
them where open_clip_config.json says. Here they are those of the folder, wherever it was moved.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.models.training_record import RECORD
from pipeline.settings.fields import LOCAL_DIR
from pipeline.store.digests import digest, file_digest

OPEN_CLIP = "open_clip_config.json"
MODEL = "model.json"
"""What winnow says of a model that it trained. It changes no score."""

IMAGE = "image"
"""The folder inside that describes a timm tower."""

_TEXTS = {".json", ".txt", ".gz", ".model"}


def located(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The vision_cfg and text_cfg whose towers the folder describes, with its path; nothing for other towers."""
    found: dict[str, Any] = {}
    vision, text = config.get("vision_cfg") or {}, config.get("text_cfg") or {}
    if str(vision.get("timm_model_name", "")).startswith(LOCAL_DIR):
        own = {"timm_model_name": f"{LOCAL_DIR}{folder / IMAGE}", "timm_model_pretrained": False}
        found["vision_cfg"] = {**vision, **own}
    if Path(text.get("hf_model_name") or "").is_absolute():
        found["text_cfg"] = {**text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    return found


def config_digest(folder: Path, config: Mapping[str, Any]) -> str:
    """The digest of all files that decide what the weights compute, and of no path."""
    facts = (MODEL, RECORD)  # such as seconds and losses
    texts = [path for path in sorted(folder.iterdir()) if path.suffix in _TEXTS and path.name not in facts]
    digests = {path.name: file_digest(path) for path in texts}
    if portable := located(Path(), config):
        digests[OPEN_CLIP] = digest({**read_json(folder / OPEN_CLIP), "model_cfg": {**config, **portable}})
        if "vision_cfg" in portable:
            digests[IMAGE] = file_digest(folder / IMAGE / "config.json")
    return digest([[name, digests[name]] for name in sorted(digests)])


def obstacle(folder: Path) -> str | None:
    """Why open_clip cannot hold the model that winnow trained and saved here; None for any other folder."""
    why = read_json(folder / MODEL).get("not_open_clip")
    return str(why) if why else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file, or no object in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
