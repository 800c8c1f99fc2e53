"""The folder of a transformers model: a local one, or files of the hub in its cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.models.clip_weights import first_line
from pipeline.settings.encoder import RANDOM
from pipeline.settings.model import TransformersText
from pipeline.store.digests import digest, file_digest

CONFIG, WEIGHTS = "config.json", "model.safetensors"

_TEXTS = ("*.json", "*.txt", "*.model")


def find(text: TransformersText) -> Path:
    """The folder, downloaded if needed. Raises ModelError that says which files to put where."""
    folder = Path(text.model) if Path(text.model).is_absolute() else _fetched(text)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{folder} has no {CONFIG}: name a folder as transformers' save_pretrained writes it")
    return folder


def weights(text: TransformersText, folder: Path) -> Path | None:
    """The file of the weights; None for random ones. Raises ModelError."""
    if text.weights == RANDOM:
        return None
    if text.weights and not text.weights.endswith(".safetensors"):
        raise ModelError(f"{text.name}: weights = {text.weights!r} is no .safetensors file: name one, or {RANDOM}")
    file = Path(text.weights) if text.weights else folder / WEIGHTS
    if not file.is_file():
        raise ModelError(f'{folder} has no {WEIGHTS}: put it there, or set weights = "{RANDOM}"; nothing is unpickled')
    return file


def identity(text: TransformersText, folder: Path) -> Mapping[str, Any]:
    """All that decides the tower, as JSON without paths: digests of its weights, config and tokenizer."""
    file = weights(text, folder)
    texts = sorted(path for pattern in _TEXTS for path in folder.glob(pattern))
    return {
        "model": "folder" if Path(text.model).is_absolute() else text.model,
        "weights": file_digest(file) if file else RANDOM,
        "config": digest([[path.name, file_digest(path)] for path in texts]),
    }


def _fetched(text: TransformersText) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*_TEXTS, *([] if text.weights else [WEIGHTS])]
    try:
        return Path(snapshot_download(text.model, allow_patterns=patterns))
    except Exception as error:
        raise ModelError(
            f"{text.name} cannot be fetched ({first_line(error)}): check the network, or put {CONFIG}, the tokenizer "
            f"(tokenizer.json) and {WEIGHTS} of huggingface.co/{text.model} into a folder, and set "
            f'text = "transformers:FOLDER"'
        ) from error
