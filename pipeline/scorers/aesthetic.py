"""LAION's aesthetic predictors v1 and v2: how much people liked pictures with such an embedding."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from pipeline.score import Head, HeadSpec, existing

VERSION = 1


def _located(weights: str, info: ValidationInfo) -> str:
    from pathlib import Path

    return weights if weights.startswith("https://") else str(existing(Path(weights), info))


class AestheticSpec(HeadSpec):
    """An affine map on the image embedding of the OpenAI model that it was trained with."""

    kind: Literal["aesthetic"]
    weights: Annotated[str, AfterValidator(_located)] = Field(
        description="a .safetensors or .pth file relative to this one, or an https address with its sha256"
    )
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="of the weights file")

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.weights.startswith("https://") and not self.sha256:
            raise ValueError("weights from an address need sha256 = the digest of the file")
        return self

    def columns(self) -> Mapping[str, pa.DataType]:
        """score: about 1 (ugly) to 10, unbounded."""
        return {"score": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The digest of the weights."""
        raise NotImplementedError

    def load(self) -> Head:
        """The affine map. Raises ModelError."""
        raise NotImplementedError
