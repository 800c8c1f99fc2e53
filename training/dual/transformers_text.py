"""Text towers of transformers: any encoder, pooled by name over the tokens that are no padding."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.clip_weights import first_line
from pipeline.settings.model import TransformersText
from training.dual import hub_folder, misfit
from training.dual.parts import Part

Pooling = Literal["first", "mean", "end"]

STEP = 8
"""A batch is cut to its longest caption, rounded up to a multiple of this. Padding is masked, so it changes nothing."""

_POOLERS = {"mean": "mean_pooler", "first": "cls_last_hidden_state_pooler"}
_HOLDABLE = ("bert", "roberta", "xlm-roberta", "distilbert")


class Transformer(nn.Module):
    """Features [batch, width] of tokens [batch, length], int64, padded at the end with `pad`."""

    def __init__(self, transformer: nn.Module, pooling: Pooling, pad: int) -> None:
        super().__init__()
        self.transformer, self.pooling, self.pad = transformer, pooling, pad

    def forward(self, tokens: Tensor) -> Tensor:
        """The pooled last hidden states."""
        longest = int(tokens.ne(self.pad).sum(dim=1).max())
        tokens = tokens[:, : -(-longest // STEP) * STEP]
        mask = tokens.ne(self.pad)
        hidden: Tensor = self.transformer(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        if self.pooling == "first":
            return hidden[:, 0]
        if self.pooling == "end":
            return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(dim=1) - 1]
        return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def build(text: TransformersText, pooling: Pooling, context: int) -> tuple[Part, Path]:
    """The tower with its weights, and the folder of its tokenizer. Raises ModelError."""
    folder = hub_folder.find(text)
    config, file = _config(folder), hub_folder.weights(text, folder)
    check_context(config, context, text.name)
    transformer = untrained(config) if file is None else trained(config, file)
    return _part(transformer, config, pooling, hub_folder.identity(text, folder)), folder


def rebuild(recipe: Mapping[str, Any], folder: Path) -> Part:
    """The tower that a recipe and the config of a folder describe, untrained."""
    config = _config(folder)
    return _part(untrained(config), config, recipe["pooling"], {})


def _part(transformer: Any, config: Any, pooling: Pooling, identity: Mapping[str, Any]) -> Part:
    transformer.pooler = None  # its output is not used, and open_clip has none either
    obstacle = None
    if config.model_type not in _HOLDABLE:
        obstacle = f"it knows no text tower of type {config.model_type}, only {', '.join(_HOLDABLE)}"
    elif pooling not in _POOLERS:
        obstacle = f"it has no pooling {pooling!r} for a transformers tower"
    open_clip = {
        "hf_model_name": "",
        "hf_tokenizer_name": "",
        "hf_proj_type": "linear",
        "hf_pooler_type": _POOLERS.get(pooling, ""),
    }
    recipe = {"kind": "transformers", "pooling": pooling}
    trunk = Transformer(transformer, pooling, config.pad_token_id)
    return Part(trunk, config.hidden_size, recipe, open_clip, obstacle=obstacle, identity=identity)


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{folder / hub_folder.CONFIG} is no config of transformers: {first_line(error)}") from error
    if config.is_encoder_decoder or config.pad_token_id is None:
        raise ModelError(
            f"{folder}: a {config.model_type} is no encoder with padding: name BERT, DistilBERT, RoBERTa ..."
        )
    return config


def check_context(config: Any, context: int, name: str) -> None:
    """Raises ModelError if the model has fewer positions. RoBERTa counts them from the padding token on."""
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    longest = int(getattr(config, "max_position_embeddings", None) or 1 << 20) - offset
    if context > longest:
        raise ModelError(f"{name} reads at most {longest} tokens: set context = {longest}")


def untrained(config: Any) -> Any:
    """The model of a config with random weights, the same every time, in float32."""
    from transformers import AutoModel

    with _quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModel.from_config(config, dtype=torch.float32)


def trained(config: Any, file: Path) -> Any:
    """The model of a config with the weights of a file, in float32. Raises ModelError if they do not fit."""
    from transformers import AutoModel

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        Path(folder, hub_folder.WEIGHTS).symlink_to(file.resolve())
        config.save_pretrained(folder)
        try:
            model, report = AutoModel.from_pretrained(
                folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:
            raise ModelError(f"{file} does not load as {config.model_type}: {misfit.from_torch(error)}") from error
    missing = [key for key in report["missing_keys"] if not key.startswith("pooler.")]
    misshapen = [str(each[0]) if isinstance(each, tuple) else str(each) for each in report["mismatched_keys"]]
    if faults := misfit.named_keys(missing, (), misshapen):
        raise ModelError(f"{file} does not fit its {hub_folder.CONFIG}: {faults}")
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar and no report of transformers'; what does not fit is an error here."""
    from transformers.utils import logging as own

    bars, level = own.is_progress_bar_enabled(), own.get_verbosity()
    own.disable_progress_bar()
    own.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        own.set_verbosity(level)
        if bars:
            own.enable_progress_bar()
