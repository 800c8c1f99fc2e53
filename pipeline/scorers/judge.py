"""A judge: a vision-language model that is asked a question about each pair, and answers in typed columns.

The model is behind an endpoint that speaks OpenAI's chat completions, or in a folder of this machine.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import httpx
import pyarrow as pa
from PIL import Image
from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from pipeline.errors import ModelError
from pipeline.judging import answers as typed
from pipeline.judging.asking import Asking, Price
from pipeline.judging.endpoint import Endpoint
from pipeline.judging.replies import Replies, Reply
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec
from pipeline.settings.fields import COLUMN, LOCAL_DIR, ModelName
from pipeline.store import user_cache
from pipeline.store.digests import digest

VERSION = 1

CAUSE = "unanswered"
"""The column of why a pair has no answer."""

QUALITY = 90
"""Of the JPEG that the model sees."""

Name = Annotated[str, StringConstraints(pattern=f"^{COLUMN}$")]
"""A column."""


def _has_host(address: str) -> bool:
    try:
        return bool(httpx.URL(address).host.encode("idna"))
    except (httpx.InvalidURL, UnicodeError):
        return False


def _parsed(described: Any) -> typed.Answer:
    return described if isinstance(described, typed.Answer) else typed.Answer.parse(described)


class JudgeSpec(Spec):
    """A question that a vision-language model answers about each pair."""

    looks_at_pictures: ClassVar[bool] = True
    kind: Literal["judge"]
    model: ModelName = Field(description="the endpoint's name of the model, or local-dir:FOLDER relative to this file")
    endpoint: str | None = Field(
        None, pattern=r"^https?://[^\s@?#]+$", description='such as "http://127.0.0.1:8000/v1"; none for local-dir'
    )
    key: str | None = Field(None, description="the environment variable that has the endpoint's key, not the key")
    question: str = Field(min_length=1, description='{caption} in it is the caption; without it "Caption: ..." follows')
    answers: dict[Name, Annotated[typed.Answer, BeforeValidator(_parsed)]] = Field(
        min_length=1, description='columns: "bool", "1..5", "0.0..1.0", "text", or a list of words'
    )
    size: int = Field(512, ge=32, le=4096, description="pixels of the longer side of what the model sees, at most")
    max_tokens: int = Field(300, ge=1, le=8192, description="of a reply")
    at_once: int = Field(8, ge=1, le=256, description="requests at the same time, of each scoring process")
    seconds: float = Field(60, gt=0, le=3600, description="the time limit of a request")
    price: Price = Field(Price(), description="of a million tokens")
    budget: float | None = Field(None, gt=0, description="money in all, over all runs; nothing is asked beyond it")
    attempt: int = Field(1, ge=1, description="raise it to ask again about pairs that have no answer")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        local = self.model.startswith(LOCAL_DIR)
        if local == (self.endpoint is not None):
            raise ValueError(
                'name an endpoint, or a model = "local-dir:FOLDER"' if not local else "endpoint: remove it"
            )
        if self.endpoint is not None and not _has_host(self.endpoint):
            raise ValueError(f"endpoint: {self.endpoint} is no address of a server")
        if CAUSE in self.answers:
            raise ValueError(f"answers.{CAUSE} is the column of why there is no answer: take another name")
        if self.budget is not None and not (self.price.prompt or self.price.reply):
            raise ValueError("a budget needs price, what a million tokens cost: price = { prompt = 0.15, reply = 0.6 }")
        return self

    def columns(self) -> Mapping[str, pa.DataType]:
        """The answers, NULL where there is none. unanswered: why there is none; NULL where there is."""
        return {name: answer.type for name, answer in self.answers.items()} | {CAUSE: pa.string()}

    @property
    def asked(self) -> Mapping[str, Any]:
        """All that decides a reply, apart from the pair. Raises ModelError for a folder that holds no model."""
        model: Any = self.model
        if self.endpoint is None:
            from pipeline.models import vision_language

            model = vision_language.identity(self._folder)
        answers = {
            name: [answer.kind, answer.least, answer.most, *answer.words] for name, answer in self.answers.items()
        }
        settings = self.model_dump(include={"question", "size", "max_tokens"})
        return {"version": VERSION, "model": model, "answers": answers, **settings}

    def identity(self) -> Mapping[str, Any]:
        """What decides a reply, how it is read, and the attempt. Raises ModelError without the endpoint's key."""
        self._secret()
        return {**self.asked, "reading": typed.VERSION, "attempt": self.attempt}

    def _secret(self) -> str | None:
        """The endpoint's key. Raises ModelError without one, and for one that no request can carry."""
        if not self.key:
            return None
        if not (secret := os.environ.get(self.key, "").strip()):
            raise ModelError(f"the environment variable {self.key} is not set: put the key of {self.endpoint} into it")
        if not (secret.isascii() and secret.isprintable()):
            raise ModelError(f"the environment variable {self.key} has characters that no key of an endpoint has")
        return secret

    @property
    def _folder(self) -> Path:
        return Path(self.model.removeprefix(LOCAL_DIR))

    def prompt(self, caption: str) -> str:
        """What the model is asked about a pair with this caption."""
        if "{caption}" in self.question:
            asked = self.question.replace("{caption}", caption)
        else:
            asked = f"{self.question}\n\nCaption: {caption}"
        return f"{asked}\n\n{typed.instruction(self.answers)}"

    @property
    def replies(self) -> Replies:
        """The replies on this machine. Raises StorageError if they cannot be kept."""
        return Replies(user_cache.place("judge", digest(dict(self.asked))[:32]).with_suffix(".sqlite"))

    def load(self) -> Scorer:
        """The judge. Raises ModelError for a model that cannot be loaded, StorageError if replies cannot be kept."""
        if self.endpoint is None:
            ask, stop, at_once = _local(self._folder, self.max_tokens), _nothing, 1
        else:
            where, schema = self.endpoint.rstrip("/"), typed.schema(self.answers)
            there = Endpoint(where, self.model, self._secret(), self.seconds, self.max_tokens, schema)
            ask, stop, at_once = there.ask, there.close, self.at_once
        asking = Asking(ask, stop, self.answers, self.replies, self.attempt, at_once, self.price, self.budget)
        return Judge(self, asking)


class Judge:
    """Asks about a window of pairs. A picture and caption that were asked about before are not asked about again."""

    embedding_dim = None

    def __init__(self, spec: JudgeSpec, asking: Asking) -> None:
        self._spec, self.asking = spec, asking

    def prepare(self, image: Image.Image) -> bytes:
        """The JPEG that the model sees."""
        small = image.copy()
        small.thumbnail((self._spec.size, self._spec.size), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY)
        return file.getvalue()

    def score(self, batch: Batch) -> Columns:
        """The columns of `JudgeSpec`. Raises ModelError for what fails every request, such as a refused key."""
        prompts = [self._spec.prompt(caption) for caption in batch.captions]
        keys = [
            hashlib.sha256(picture + b"\0" + prompt.encode("utf-8", "replace")).hexdigest()
            for picture, prompt in zip(batch.images, prompts, strict=True)
        ]
        found = self.asking.all(keys, batch.images, prompts)
        columns = {
            name: pa.array([each.values.get(name) for each in found], answer.type)
            for name, answer in self._spec.answers.items()
        }
        return columns | {CAUSE: pa.array([each.cause for each in found], pa.string())}


def _local(folder: Path, max_tokens: int) -> Any:
    from pipeline.models.vision_language import VisionLanguageModel

    model = VisionLanguageModel(folder, max_tokens)

    def ask(picture: bytes, prompt: str) -> Reply:
        text, asked, made, cut = model.answer(picture, prompt)
        return Reply(text, asked, made, "cut_off" if cut else None)

    return ask


def _nothing() -> None:
    """A local model ends by itself."""
