"""CLIP, by any open_clip model: the cosine of picture and caption, and the embeddings that heads read."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pyarrow as pa
from pydantic import AfterValidator, Field, ValidationInfo

from pipeline.score import Scorer, Spec, existing

VERSION = 1
"""Raised whenever the same model and pair would get another score."""

LOCAL = "local-dir:"


def _model(name: str, info: ValidationInfo) -> str:
    from pathlib import Path

    return LOCAL + str(existing(Path(name.removeprefix(LOCAL)), info)) if name.startswith(LOCAL) else name


def _weights(weights: str | None, info: ValidationInfo) -> str | None:
    from pathlib import Path

    if weights and weights.endswith(".safetensors"):
        return str(existing(Path(weights), info))
    return weights


class ClipSpec(Spec):
    """An open_clip model that scores how well picture and caption fit."""

    kind: Literal["clip"]
    model: Annotated[str, AfterValidator(_model)] = Field(
        "ViT-B-32-quickgelu",
        description="an open_clip name, hf-hub:ORG/REPO, or local-dir:FOLDER relative to this file",
    )
    weights: Annotated[str | None, AfterValidator(_weights)] = Field(
        None, description="a hub tag such as openai, or a safetensors file; none for local-dir and hf-hub"
    )
    quick_gelu: bool | None = Field(None, description="the activation that a weights file was trained with")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    batch: int = Field(64, ge=1, le=4096, description="pictures or captions in one forward pass")

    def columns(self) -> Mapping[str, pa.DataType]:
        """similarity: cosine of the embeddings, -1 to 1."""
        return {"similarity": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """Digests of the weights and settings, precision and device kind."""
        raise NotImplementedError

    def load(self) -> Scorer:
        """The model. Raises ModelError."""
        raise NotImplementedError
