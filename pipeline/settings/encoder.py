"""The `encoder` of a learner: what computes the features of a picture."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from pipeline.errors import SourceError
from pipeline.settings.fields import LOCAL_DIR, ModelName, Table, Weights

SELF_CONTAINED = (LOCAL_DIR, "hf-hub:")
"""Prefixes of models that include their weights."""


RANDOM = "random"
"""The value of `weights` for an untrained network. The seed is always the same."""


class Network(Table):
    """A frozen network that computes features for a learner."""

    kind: Literal["open_clip", "timm"]
    model: ModelName = Field(
        description="an open_clip or timm name, hf-hub:ORG/REPO, or (open_clip) local-dir:FOLDER relative to this file"
    )
    weights: Weights = Field(
        None,
        description="a hub tag, or a safetensors file relative to this one; without any, timm's default tag; "
        "random: untrained",
    )
    quick_gelu: bool | None = Field(
        None, description="open_clip: the activation that a weights file was trained with, if no config lies beside it"
    )
    options: dict[str, Any] = Field({}, description="timm: passed to create_model")
    preprocess: dict[str, Any] = Field(
        {}, description="timm: interpolation, crop_pct, mean, std ..., where the weights want other than the model does"
    )

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        if self.kind == "open_clip" and (self.options or self.preprocess):
            raise ValueError("options and preprocess are for timm; an open_clip model has its own")
        if self.kind == "timm" and self.quick_gelu is not None:
            raise ValueError("quick_gelu is for open_clip")
        if self.weights and self.model.startswith(SELF_CONTAINED):
            raise ValueError(f"{self.model} includes its weights: remove weights = {self.weights!r}")
        return self

    @property
    def name(self) -> str:
        """The name that `parse_name` reads, without the folders of files."""
        model = self.model
        if model.startswith(LOCAL_DIR):
            model = LOCAL_DIR + Path(model.removeprefix(LOCAL_DIR)).name
        return f"{self.kind}:{model}" + (f"@{Path(self.weights).name}" if self.weights else "")


class Hog(Table):
    """Histograms of oriented gradients: untrained features that no scorer uses."""

    kind: Literal["hog"]
    side: int = Field(64, ge=16, le=256, multiple_of=8, description="pixels of the square that a picture is resized to")

    @property
    def name(self) -> str:
        """The name in tables and messages."""
        return f"{self.kind}, {self.side} px"


class Pixels(Table):
    """The pixels themselves, for a learner that computes its own features."""

    kind: Literal["pixels"]
    side: int = Field(32, ge=16, le=128, multiple_of=8, description="pixels of the square that a picture is resized to")

    @property
    def name(self) -> str:
        """The name in tables and messages."""
        return f"{self.kind}, {self.side} px"


def parse_name(encoder: Any) -> Any:
    """The table that a name means: timm:MODEL or open_clip:MODEL, with @WEIGHTS, local-dir:FOLDER, hog, pixels.

    A value that is no string is returned as it is. Raises ValueError for an unknown name.
    """
    if not isinstance(encoder, str):
        return encoder
    if encoder in ("hog", "pixels"):
        return {"kind": encoder}
    kind, _, model = (f"open_clip:{encoder}" if encoder.startswith(LOCAL_DIR) else encoder).partition(":")
    if kind not in ("timm", "open_clip") or not model:
        raise ValueError(
            f"no encoder is called {encoder!r}: use timm:MODEL or open_clip:MODEL, optionally with @WEIGHTS (a tag, a "
            f".safetensors file, or {RANDOM}), local-dir:FOLDER, hog or pixels"
        )
    model, _, weights = (model, "", "") if model.startswith(SELF_CONTAINED) else model.partition("@")
    return {"kind": kind, "model": model} | ({"weights": weights} if weights else {})


Encoder = Annotated[Network | Hog | Pixels, Field(discriminator="kind"), BeforeValidator(parse_name)]
"""In a source file a table, or a name (`parse_name`)."""


def parse_encoder(text: str) -> Encoder:
    """Any value that `encoder =` accepts in a source file of this folder: a name, or a table in braces.

    Raises SourceError for a text that is neither, and for a faulty table.
    """
    try:
        value = tomllib.loads(f"encoder = {text}")["encoder"] if text.startswith("{") else text
        found: Encoder = TypeAdapter(Encoder).validate_python(value)
    except tomllib.TOMLDecodeError as error:
        raise SourceError(f"{text}: this is no TOML: {error}") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"][1:]))
        message = fault["msg"].removeprefix("Value error, ")
        raise SourceError(f"{text}: {place + ': ' if place else ''}{message}") from None
    return found
