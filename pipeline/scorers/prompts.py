"""Zero-shot classification of pictures with prompts: one set of prompts against another, on stored embeddings.

As in CLIP's paper (Radford et al. 2021, section 3.1): the prompts of a set are encoded, normalised, averaged and
normalised again. The cosines with the picture, times the model's logit scale, go through a softmax. The probability
compares the two sets. It is no estimate of how often something occurs: calibrate a threshold for each model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.errors import ModelError, did_you_mean
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.spec import Columns, Head, HeadSpec, Spec

if TYPE_CHECKING:
    from pipeline.models.clip import Clip

VERSION = 1

Prompts = tuple[str, ...]


@dataclass(frozen=True)
class PromptSet:
    """The prompts for the class, and for all other pictures."""

    positive: Prompts
    negative: Prompts


ORDINARY = (
    "a photo",
    "a photograph of a scene",
    "a picture of people",
    "a picture of an animal",
    "a photo of an object",
)

SETS: Mapping[str, PromptSet] = {
    "watermark": PromptSet(
        (
            "a photo with a watermark",
            "a stock photo with a watermark across the picture",
            "a picture overlaid with semi-transparent text",
            "an image with the logo of a stock photo agency over it",
            "a preview image with a copyright overlay",
        ),
        (*ORDINARY, "a clean photo without any text", "an image without a watermark"),
    ),
    "screenshot": PromptSet(
        (
            "a screenshot of a web page",
            "a screenshot of a computer program",
            "a screenshot of a phone",
            "a scanned page of text",
            "a photo of a printed document",
            "a page with a table and text",
        ),
        ORDINARY,
    ),
    "nsfw": PromptSet(
        (
            "a pornographic picture",
            "a nude person",
            "an explicit sexual image",
            "an erotic photo of a naked body",
            "a picture of extreme violence and gore",
        ),
        (*ORDINARY, "a picture that is safe for work", "a photo of a dressed person", "a family photo"),
    ),
    "logo": PromptSet(
        (
            "a logo",
            "the logo of a company on a plain background",
            "an icon",
            "a small flat icon of an app",
            "a simple vector symbol",
            "clip art",
        ),
        ORDINARY,
    ),
}
"""Shipped sets, by name: watermark (or stock-photo overlay), screenshot (or scanned text), nsfw (not safe for work:
sex, nudity, gore) and logo (or icon).

They are written for OpenAI's and LAION's English CLIP models (ViT-B/32, B/16, L/14). They are NOT validated against
labels. Look at both ends of the column before you trust a threshold, above all for nsfw: a zero-shot score misses some
pictures and flags harmless ones.
"""


class PromptsSpec(HeadSpec):
    """The probability of one set of prompts against another."""

    kind: Literal["prompts"]
    set: str | None = Field(None, description="a shipped set of prompts")
    positive: Prompts = Field((), description="or what is looked for, in words that fit the model")
    negative: Prompts = Field((), description="and what a picture is otherwise")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.set is not None and self.set not in SETS:
            raise ValueError(f"set {self.set!r} is unknown{did_you_mean(self.set, SETS)}; there is {', '.join(SETS)}")
        if (self.set is not None) == bool(self.positive or self.negative):
            raise ValueError("give a set by its name, or positive and negative prompts")
        if not all(prompt.strip() for prompt in (*self.prompts.positive, *self.prompts.negative)):
            raise ValueError("a prompt is empty")
        if not self.prompts.positive or not self.prompts.negative:
            raise ValueError("positive and negative need a prompt each: a probability is against something")
        return self

    @property
    def prompts(self) -> PromptSet:
        """The shipped set, or the source's own."""
        return SETS[self.set] if self.set is not None else PromptSet(self.positive, self.negative)

    def columns(self) -> Mapping[str, pa.DataType]:
        """probability: of the positive prompts against the negative ones, 0 to 1."""
        return {"probability": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The prompts. The model is part of the identity of `of`."""
        positive, negative = self.prompts.positive, self.prompts.negative
        return {"version": VERSION, "positive": list(positive), "negative": list(negative)}

    def check(self, of: Spec) -> None:
        """Raises ModelError unless `of` is a clip scorer, whose text tower encodes the prompts."""
        if not isinstance(of, ClipSpec):
            raise ModelError(f"prompts need the text tower of a clip scorer, and {self.of!r} is of kind {of.kind!r}")

    def load(self, of: Callable[[], Any] | None = None) -> Head:
        """Encodes the prompts."""
        assert of is not None
        clip: Clip = of()
        positive, negative = clip.encode_captions(self.prompts.positive), clip.encode_captions(self.prompts.negative)
        return PromptsHead(mean_direction(positive), mean_direction(negative), clip.logit_scale)


class PromptsHead:
    """sigmoid(scale * (cos(picture, positive) - cos(picture, negative))), which is the softmax of two."""

    def __init__(self, positive: npt.NDArray[np.float32], negative: npt.NDArray[np.float32], scale: float) -> None:
        self._direction = scale * (positive - negative)

    def score(self, embeddings: npt.NDArray[np.float32]) -> Columns:
        """probability."""
        from scipy.special import expit

        return {"probability": expit(embeddings @ self._direction).astype(np.float32)}


def mean_direction(encoded: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The normalised mean of normalised vectors [prompts, dim]."""
    mean = encoded.mean(axis=0)
    normalised: npt.NDArray[np.float32] = mean / np.linalg.norm(mean)
    return normalised
