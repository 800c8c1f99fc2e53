"""A model that answers questions about pictures: a table `[vqa.NAME]` of a source file."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.settings.encoder import Network, parse_name
from pipeline.settings.fields import Table
from pipeline.settings.model import TRANSFORMERS, Blocks, Rate, TransformersText, parse_text
from pipeline.settings.model_presets import shrink


def _parse_image(image: Any) -> Any:
    return parse_text(image) if isinstance(image, str) and image.startswith(TRANSFORMERS) else parse_name(image)


Image = Annotated[Network | TransformersText, Field(discriminator="kind"), BeforeValidator(_parse_image)]
"""In a source file a table, or a name: timm:MODEL, open_clip:MODEL, or transformers:MODEL, with @WEIGHTS."""


class Lora(Table):
    """Low-rank adapters (Hu et al. 2021) on modules of the towers, whose own weights stay as they are."""

    rank: int = Field(8, ge=1)
    alpha: float = Field(16, gt=0, description="adapters are scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="of the inputs of adapters")
    targets: Literal["key-value", "linear", "study"] | tuple[str, ...] = Field(
        "key-value",
        description="key-value: keys and values of self-attention; linear: all linear layers and 1 x 1 convolutions of "
        "the towers; study: the list of the study; or names of modules, by their ends",
    )
    after: float = Field(0.0, ge=0, lt=1, description="the share of the steps in which the head trains alone before")
    head: bool = Field(True, description="whether the head trains beside the adapters")
    rate: Rate = Field(5e-4, description="learning rate of the adapters")


class VqaModel(Table):
    """Two towers and a head that chooses an answer from a vocabulary, and how they are trained."""

    image: Image = Field(description="timm:MODEL, open_clip:MODEL or transformers:MODEL")
    image_size: int | None = Field(None, ge=16, le=1024, description="pixels; default: the image tower's own")
    text: Annotated[TransformersText, BeforeValidator(parse_text)] = Field(description="transformers:MODEL or FOLDER")
    pooling: Literal["first", "mean"] = Field(
        "first", description="what a question is summed up by: its first token, or the mean over its tokens"
    )
    context: int = Field(32, ge=4, description="tokens that the text tower reads; a longer question is cut")
    picture: bool = Field(True, description="false: zeros in place of every picture, the question-only baseline")
    head: Literal["co-attention", "concatenation", "advanced"] = "co-attention"
    width: int = Field(0, ge=0, description="numbers of a token in the head; 0: the text tower's")
    hidden: int | None = Field(
        None, ge=0, description="units between the two layers of the classifier; 0: one layer, as co-attention has it"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="of the hidden units")
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(ge=0)]] = Field(
        "none", description="of answers in the loss: balanced, n / (answers * count); or by answer, 1 for the others"
    )
    image_blocks: Blocks = Field(0, description="0: frozen, all, or so many of the last blocks train")
    text_blocks: Blocks = 0
    batch_norm: Literal["eval", "train"] = "eval"
    lora: Lora | None = None
    optimizer: Literal["adam", "adamw"] = "adam"
    head_rate: Rate = Field(1e-3, description="learning rate of the head")
    image_rate: Rate = Field(1e-5, description="of blocks of the image tower that train")
    text_rate: Rate = Field(1e-5, description="of blocks of the text tower that train")
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["step", "cosine"] = "step"
    decay: float = Field(0.2, gt=0, le=1, description="step: what rates are multiplied by")
    decay_epochs: int = Field(2, ge=1, description="step: after every so many epochs")
    warmup: float = Field(0.05, ge=0, lt=1, description="cosine: the share of the steps in which the rates rise from 0")
    batch: int = Field(256, ge=2)
    steps: int = Field(1500, ge=1)
    tiny: bool = Field(False, description="small pictures, batches and few steps, to try a file")

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, table: Any) -> Any:
        tiny = isinstance(table, dict) and table.get("tiny") is True
        return shrink(table) if tiny else table

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.image_size and self.image.kind != "timm":
            raise ValueError("image_size is for timm; another tower has its own")
        if self.lora and (self.image_blocks != 0 or self.text_blocks != 0):
            raise ValueError("lora leaves the towers' own weights as they are: remove image_blocks and text_blocks")
        if not self.picture and self.image_blocks != 0:
            raise ValueError("picture = false has no image tower: remove image_blocks")
        if isinstance(self.class_weights, dict) and not self.class_weights:
            raise ValueError('class_weights names no answer: write class_weights = "none"')
        return self

    @property
    def classifier(self) -> int:
        """Units between the two layers of the classifier, 0 for one layer. The study's base model has one layer."""
        if self.hidden is not None:
            return self.hidden
        return 0 if self.head == "co-attention" else 512

    @property
    def name(self) -> str:
        """Both towers and the head, for tables and messages."""
        image = self.image.name if self.picture else "no picture"
        return f"{image} and {self.text.name}, {self.head}"
