"""CLIP, with any open_clip model: the cosine of picture and caption, and the embeddings that heads read."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from pipeline.models import device
from pipeline.models.clip_weights import ModelFiles, find_model
from pipeline.scorers.spec import Scorer, Spec
from pipeline.settings.fields import LOCAL_DIR, ModelName, Weights

VERSION = 3


class ClipSettings(Spec):
    """The settings that all scorers with open_clip models share, and their columns."""

    looks_at_pictures: ClassVar[bool] = True
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is bfloat16 if the device computes in it natively, else float32"
    )
    batch: int | None = Field(
        None, ge=1, le=4096, description="pictures or captions in one forward pass; chosen automatically if unset"
    )
    sigmoid: bool = Field(
        False, description="the columns logit and sigmoid as well, of a model trained with a sigmoid loss, as SigLIP is"
    )

    def columns(self) -> Mapping[str, pa.DataType]:
        """similarity: cosine of the embeddings, -1 to 1.

        With `sigmoid` (Zhai et al. 2023, SigLIP), logit: exp(t) * cosine + b, with the learned scale and bias; sigmoid:
        of the logit, 0 to 1. It is the probability of a match among all pairings in a training batch, where hardly any
        match, so that it can be far below 0.5 for a matching pair. Thresholds of one model do not apply to another.
        """
        return dict.fromkeys(("similarity", "logit", "sigmoid") if self.sigmoid else ("similarity",), pa.float32())

    def place(self) -> tuple[str, str]:
        """The device kind and the precision that are used here."""
        return device.kind(), device.best_precision() if self.precision == "auto" else self.precision


class ClipSpec(ClipSettings):
    """An open_clip model that scores how well picture and caption match."""

    kind: Literal["clip"]
    model: ModelName = Field(
        description="an open_clip name, hf-hub:ORG/REPO, or local-dir:FOLDER relative to this file"
    )
    weights: Weights = Field(
        None, description="a hub tag such as openai, or a .safetensors file; none for local-dir and hf-hub"
    )
    quick_gelu: bool | None = Field(
        None, description="the activation that a weights file was trained with, if no config is beside it"
    )

    @property
    def encoder(self) -> str:
        """The names of the model and of the weights; for files and folders, the last part of the path."""
        model = Path(self.model).name if self.model.startswith(LOCAL_DIR) else self.model
        return f"{model}/{Path(self.weights or '').name}"

    @property
    def model_folders(self) -> Sequence[Path]:
        """The folder, for a model that is one."""
        return (Path(self.model.removeprefix(LOCAL_DIR)),) if self.model.startswith(LOCAL_DIR) else ()

    def identity(self) -> Mapping[str, Any]:
        """Digests of weights and settings, versions, precision and device kind. Raises ModelError."""
        kind, precision = self.place()
        return {
            "version": VERSION,
            **{package: version(package) for package in ("open_clip_torch", "torch", "torchvision", "pillow")},
            **self._files().identity(),
            "device": kind,
            "precision": precision,
            "batch": self.batch,
            "sigmoid": self.sigmoid,
        }

    def load(self) -> Scorer:
        """The model, with its certificate.

        Raises ModelError for weights that are missing or do not fit, for `sigmoid` without a bias, and for scores that
        differ from open_clip's.
        """
        from pipeline.models.certificate import certify
        from pipeline.scorers.clip_scorer import ClipScorer

        files = self._files()
        clip = ClipScorer(files, self.batch, self.sigmoid)
        clip.certificate = certify(clip, files, *self.place())
        return clip

    def _files(self) -> ModelFiles:
        return find_model(self.model, self.weights, self.quick_gelu)
