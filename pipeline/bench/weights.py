"""CLIPs with random weights: what `winnow bench` scores with, so that it needs no download."""

import json
from pathlib import Path

import open_clip
from safetensors.torch import save_file

from pipeline.models import clip_weights


def random_model(name: str, folder: Path) -> Path:
    """Write open_clip's model `name` to a new folder, with random weights, always the same ones."""
    model = clip_weights.create_untrained(name)
    folder.mkdir()
    described = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": open_clip.get_model_preprocess_cfg(model),
    }
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    return folder
