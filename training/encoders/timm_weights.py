"""The weights of a timm encoder, as a file whose digest identifies features, and the model.

Weights are always safetensors: nothing is unpickled.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError, did_you_mean
from pipeline.models import clip_weights
from pipeline.settings.encoder import RANDOM
from pipeline.settings.fields import LOCAL_DIR
from pipeline.store.digests import file_digest

FILE = ".safetensors"


@dataclass(frozen=True)
class TimmWeights:
    """A model by its timm name, and its weights as a file; None for random weights, from a fixed seed.

    `config` is the digest of the file that describes a model without a timm name; empty otherwise.
    """

    model: str
    weights: Path | None
    config: str = ""

    def identity(self) -> Mapping[str, Any]:
        """As JSON, without paths."""
        model = LOCAL_DIR if self.model.startswith(LOCAL_DIR) else self.model
        return {"model": model, "config": self.config, "weights": file_digest(self.weights) if self.weights else RANDOM}

    def load(self, options: Mapping[str, Any]) -> Any:
        """The model in float32 on the CPU, with its classifier. Raises what timm raises."""
        import timm
        import torch

        if self.weights is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return timm.create_model(self.model, pretrained=False, **options)
        file = {} if self.config else {"pretrained_cfg_overlay": {"file": str(self.weights)}}
        return timm.create_model(self.model, pretrained=True, **file, **options)


def find(model: str, weights: str | None) -> TimmWeights:
    """The file of the weights; those of a hub are downloaded to its cache if needed. Raises ModelError.

    `weights` is a tag of timm's for its model, a .safetensors file, or RANDOM; the model's first tag if unset.
    """
    if model.startswith((LOCAL_DIR, clip_weights.HUB)):
        return _folder(Path(model.removeprefix(LOCAL_DIR))) if model.startswith(LOCAL_DIR) else _repository(model)
    if weights == RANDOM:
        return TimmWeights(model, None)
    return TimmWeights(model, Path(weights)) if weights and weights.endswith(FILE) else _tag(model, weights)


def _folder(folder: Path) -> TimmWeights:
    """A folder as timm's `save_for_hf` writes it."""
    described, weights = folder / "config.json", sorted(folder.glob("*" + FILE))
    if len(weights) != 1 or not described.is_file():
        raise ModelError(f"{folder} must hold config.json and exactly one file of weights, as .safetensors")
    return TimmWeights(LOCAL_DIR + str(folder), weights[0], file_digest(described))


def _repository(model: str) -> TimmWeights:
    name = model.removeprefix(clip_weights.HUB)
    described, weights = (_fetched(model, name, file) for file in ("config.json", "model" + FILE))
    return TimmWeights(model, weights, file_digest(described))


def _tag(model: str, tag: str | None) -> TimmWeights:
    import timm

    if not timm.is_model(model):
        raise ModelError(f"timm has no model {model!r}{did_you_mean(model, timm.list_models())}")
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if not tags or (tag and tag not in tags):
        known = f"take one of {', '.join(tags)}, or" if tags else "take"
        raise ModelError(f"{model} has no weights {tag or 'on a hub'}: {known} a {FILE} file")
    config = timm.get_pretrained_cfg(f"{model}.{tag}" if tag else model)
    if not config.hf_hub_id:
        raise ModelError(f"the weights of {model} are on no hub that winnow reads: name a local {FILE} file")
    file = config.hf_hub_filename or "model" + FILE
    if not file.endswith(FILE):
        raise ModelError(f"the weights of {model} are not {FILE} on the hub ({file}): name a local {FILE} file")
    name = f"{model}.{config.tag}"
    return TimmWeights(name, _fetched(name, config.hf_hub_id, file))


def _fetched(what: str, repository: str, file: str) -> Path:
    """A file of the hub, or of its local cache."""
    from huggingface_hub import hf_hub_download

    name, _, revision = repository.partition("@")
    try:
        return Path(hf_hub_download(name, file, revision=revision or None))
    except Exception as error:
        raise ModelError(clip_weights.cannot_fetch(what, error)) from error
