"""A dual encoder that is trained on pairs: a table `[models.NAME]` of a source file."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from pipeline.errors import did_you_mean
from pipeline.settings.encoder import SELF_CONTAINED, Network, parse_name
from pipeline.settings.fields import ModelName, Table, Weights
from pipeline.settings.model_presets import PRESETS, shrink

TRANSFORMERS = "transformers:"
"""The prefix of a text tower by its transformers name."""


def _text_model(name: str, info: ValidationInfo) -> str:
    """A folder relative to the source file, as an absolute path; any other name is a repository of the hub."""
    folder = Path((info.context or {}).get("folder", Path()), Path(name).expanduser()).resolve()
    if folder.is_dir():
        return str(folder)
    if name.startswith((".", "/", "~")):
        raise ValueError(f"there is no folder {folder}")
    return name


class TransformersText(Table):
    """An encoder of transformers."""

    kind: Literal["transformers"]
    model: Annotated[str, Field(min_length=1), AfterValidator(_text_model)] = Field(
        description="a repository of the hub, or a folder with config.json, the tokenizer and model.safetensors"
    )
    weights: Weights = Field(None, description="a safetensors file in place of the model's own; random: untrained")

    @property
    def name(self) -> str:
        """The name that `parse_text` reads, without the folders of files."""
        model = Path(self.model).name if Path(self.model).is_absolute() else self.model
        return TRANSFORMERS + model + (f"@{Path(self.weights).name}" if self.weights else "")


class OpenClipText(Table):
    """The text tower of an open_clip model."""

    kind: Literal["open_clip"]
    model: ModelName = Field(description="an open_clip name, hf-hub:ORG/REPO, or local-dir:FOLDER")
    weights: Weights = Field(None, description="a tag, a safetensors file, or random: untrained")
    quick_gelu: bool | None = Field(None, description="the activation of a weights file without a config beside it")

    @model_validator(mode="after")
    def _weights_once(self) -> Self:
        if self.weights and self.model.startswith(SELF_CONTAINED):
            raise ValueError(f"{self.model} includes its weights: remove weights = {self.weights!r}")
        return self

    @property
    def network(self) -> Network:
        """The same, as the table that names an encoder of pictures."""
        return Network.model_construct(  # not checked again: the paths of a saved model may be gone
            kind="open_clip", model=self.model, weights=self.weights, quick_gelu=self.quick_gelu
        )

    @property
    def name(self) -> str:
        """The name that `parse_text` reads, without the folders of files."""
        return self.network.name


class SmallText(Table):
    """open_clip's causal text transformer with CLIP's vocabulary, untrained. The vocabulary needs no download."""

    kind: Literal["small"]
    width: int = Field(256, ge=8, multiple_of=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} cannot be divided among heads = {self.heads}")
        return self

    @property
    def name(self) -> str:
        """The name in tables and messages."""
        return f"small, {self.layers} layers of {self.width}"


def parse_text(text: Any) -> Any:
    """The table that a name means: transformers:MODEL or open_clip:MODEL, with @WEIGHTS, or small.

    A value that is no string is returned as it is. Raises ValueError for an unknown name.
    """
    if not isinstance(text, str):
        return text
    if text == "small":
        return {"kind": "small"}
    if text.startswith(TRANSFORMERS):
        model, _, weights = text.removeprefix(TRANSFORMERS).partition("@")
        return {"kind": "transformers", "model": model} | ({"weights": weights} if weights else {})
    if text.startswith(("open_clip:", *SELF_CONTAINED)):
        return parse_name(text if text.startswith("open_clip:") else f"open_clip:{text}")
    raise ValueError(
        f"no text tower is called {text!r}: use transformers:MODEL, transformers:FOLDER, open_clip:MODEL, or small"
    )


Text = Annotated[TransformersText | OpenClipText | SmallText, Field(discriminator="kind"), BeforeValidator(parse_text)]
"""In a source file a table, or a name (`parse_text`)."""

Blocks = Annotated[int, Field(ge=0)] | Literal["all"]
"""How many of the last blocks of a tower train: 0 freezes it."""

Rate = Annotated[float, Field(ge=0)]


class Model(Table):
    """A dual encoder, its objective, and how it is trained. `preset` gives defaults, which other keys override."""

    preset: str | None = None
    image: Annotated[Network, BeforeValidator(parse_name)] = Field(description="timm:MODEL or open_clip:MODEL")
    image_size: int | None = Field(None, ge=16, le=1024, description="pixels; default: the image tower's own")
    text: Text
    pooling: Literal["first", "mean", "end"] | None = Field(
        None, description="transformers: of the last hidden states: the first token, the mean over the caption, its end"
    )
    context: int = Field(32, ge=4, description="tokens that the text tower reads; a longer caption is cut")
    head: Literal["linear", "residual", "own"] = Field(
        "linear",
        description="residual: Linear, GELU, Linear, dropout, the sum with the first, LayerNorm; own: the projections, "
        "the temperature and the bias of the checkpoint, whose embeddings decide dim",
    )
    dim: int = Field(256, ge=1, description="numbers of an embedding")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the heads")
    objective: Literal["softmax", "sigmoid", "soft-targets"] = "softmax"
    texts: Literal["captions", "template"] = Field("captions", description="template: the name of the pair's class")
    template: str = "a photo of a {name}"
    train_classes: int = Field(0, ge=0, description="pairs of the first classes of the task train; 0: all pairs")
    bias: Literal["paper", "prior"] = Field("prior", description="sigmoid: starts at -10, or at -ln(batch - 1)")
    same_picture: Literal["match", "negative"] = Field("match", description="other captions of a picture in a batch")
    same_text: Literal["match", "negative"] = Field("negative", description="other pictures of a text in a batch")
    image_blocks: Blocks = Field(0, description="0: frozen, all, or so many of the last blocks train")
    text_blocks: Blocks = 0
    batch_norm: Literal["eval", "train"] = "eval"
    head_rate: Rate = Field(1e-3, description="learning rate of the heads and the temperature")
    image_rate: Rate = Field(1e-4, description="of the image tower")
    text_rate: Rate = Field(1e-5, description="of the text tower")
    weight_decay: float = Field(1e-2, ge=0, description="not of norms, biases, temperature and bias")
    schedule: Literal["cosine", "plateau"] = "cosine"
    warmup: float = Field(0.05, ge=0, lt=1, description="cosine: the share of the steps in which the rates rise from 0")
    patience: int = Field(1, ge=0, description="plateau: epochs without a lower validation loss before rates fall")
    factor: float = Field(0.8, gt=0, lt=1, description="plateau: what rates are multiplied by")
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = Field(False, description="computes activations again in place of keeping them")
    cached_batch: int = Field(0, ge=0, description="gradient caching: pairs at a time; 0: the whole batch at once")
    batch: int = Field(256, ge=2)
    steps: int = Field(1500, ge=1)
    tiny: bool = Field(False, description="small pictures, batches and few steps, to try a file")

    _own: frozenset[str] = PrivateAttr(frozenset())

    @model_validator(mode="wrap")
    @classmethod
    def _defaults(cls, table: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(table, dict):
            return validate(table)
        preset = table.get("preset")
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"there is no preset {preset!r}{did_you_mean(str(preset), PRESETS)}")
        whole = {**PRESETS.get(preset, {}), **table} if preset else dict(table)
        model = validate(shrink(whole) if whole.get("tiny") is True else whole)
        model._own = frozenset(table)
        return model

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.pooling is not None and self.text.kind != "transformers":
            raise ValueError(
                f"pooling is for transformers; text.kind = {self.text.kind} pools in its own way: remove it"
            )
        if self.image_size and self.image.kind != "timm":
            raise ValueError("image_size is for timm; an open_clip tower has its own")
        if self.head == "own":
            self._check_own()
        if self.texts == "template" and self.template.count("{name}") != 1:
            raise ValueError(f"template = {self.template!r} needs {{name}} once, where the name of the class stands")
        if self.same_text == "match" and self.objective == "soft-targets":
            raise ValueError('soft-targets knows no matches: remove same_text = "match", or choose another objective')
        if self.checkpointing and self.batch_norm == "train" and self.image_blocks != 0:
            raise ValueError(
                "checkpointing computes each block twice, and batch norm would count its batches twice: "
                'set batch_norm = "eval", or checkpointing = false'
            )
        return self

    def _check_own(self) -> None:
        """Raises ValueError for towers that do not share a space already."""
        if self.image.kind != "open_clip" or self.text.kind != "open_clip":
            raise ValueError('head = "own" is for the two towers of one open_clip model')
        if (self.image.model, self.image.weights) != (self.text.model, self.text.weights):
            raise ValueError(f'head = "own" needs both towers of one model: {self.image.name} is not {self.text.name}')
        if self.dropout:
            raise ValueError('head = "own" has no dropout: remove it')

    @property
    def classes_only(self) -> bool:
        """Whether only pairs with a class of the task train."""
        return self.texts == "template" or self.train_classes > 0

    def under(self, preset: str | None, tiny: bool) -> "Model":
        """The same table with another preset, whose keys it does not set itself, and perhaps tiny.

        Raises ValueError for an unknown preset, and for one that does not go with the table.
        """
        table = self.model_dump()
        if preset != self.preset:
            table = {name: table[name] for name in self._own} | {"preset": preset}
        return Model.model_validate({**table, "tiny": True} if tiny else table)

    @property
    def name(self) -> str:
        """Both towers, for tables and messages."""
        return f"{self.image.name} with {self.text.name}"
