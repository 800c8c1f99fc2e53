"""Typed answers: what a question asks for, as words for a model and as a JSON schema, and how a reply is read.

A type is "bool", a range of whole numbers "1..5" or of decimal numbers "0.0..1.0" (both ends included), "text", or a
list of words of which one is chosen.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import pyarrow as pa

VERSION = 1
"""Raised whenever a reply is read differently. Replies that were paid for are then read again, not asked for again."""

TEXT = 2_000
"""Characters of a text that are kept."""

TRIES = 100
"""Places of a reply at which a JSON object may begin: a reply of braces alone takes no longer."""

WHOLE = 2**31 - 1
"""The largest bound of whole numbers, whose column is int32."""

_THOUGHT = "</think>"
"""Ends the draft of a model that reasons in its reply."""

_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\.\.(-?\d+(?:\.\d+)?)")
_BOOLS = {"true": True, "yes": True, "false": False, "no": False}


class AnswerError(ValueError):
    """A reply that is not an answer. The message is its cause, one word."""


@dataclass(frozen=True)
class Answer:
    """The type of one answer: a `kind` of bool, int32, float, text or word; bounds of a number, or the words."""

    kind: str
    least: float = 0.0
    most: float = 0.0
    words: tuple[str, ...] = ()

    @classmethod
    def parse(cls, described: Any) -> Self:
        """The type that a source file describes: a text, or a list of words. Raises ValueError for anything else."""
        if isinstance(described, list) and all(isinstance(word, str) for word in described):
            words = tuple(described)
            if len(words) < 2 or len({word.lower() for word in words}) < len(words) or not all(map(str.strip, words)):
                raise ValueError(f"{list(words)}: name at least two different words to choose from")
            return cls("word", words=words)
        if described in ("bool", "text"):
            return cls(described)
        found = _RANGE.fullmatch(described) if isinstance(described, str) else None
        if found is None or float(found[1]) >= float(found[2]):
            raise ValueError(
                f'{described!r}: an answer is "bool", "text", a range such as "1..5" or "0.0..1.0", or a list of words'
            )
        answer = cls("number" if "." in found[1] + found[2] else "integer", float(found[1]), float(found[2]))
        if answer.kind == "integer" and max(-answer.least, answer.most) > WHOLE:
            raise ValueError(f"{described!r}: whole numbers lie within {WHOLE:,} of 0; write 0.0.. for larger ones")
        return answer

    @property
    def type(self) -> pa.DataType:
        """The type of its column."""
        return {"bool": pa.bool_(), "integer": pa.int32(), "number": pa.float32()}.get(self.kind, pa.string())

    @property
    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        if self.kind in ("integer", "number"):
            whole = self.kind == "integer"
            bounds = {"minimum": int(self.least) if whole else self.least}
            return {"type": self.kind, **bounds, "maximum": int(self.most) if whole else self.most}
        if self.kind == "word":
            return {"type": "string", "enum": list(self.words)}
        return {"type": "boolean" if self.kind == "bool" else "string"}

    @property
    def says(self) -> str:
        """In words for the model."""
        if self.kind == "integer":
            return f"a whole number from {self.least:g} to {self.most:g}"
        if self.kind == "number":
            return f"a number from {self.least:g} to {self.most:g}"
        if self.kind == "word":
            return "one of " + ", ".join(f'"{word}"' for word in self.words)
        return "true or false" if self.kind == "bool" else "a text"

    def read(self, value: Any) -> bool | int | float | str:
        """The value of a reply. Numbers and booleans may be written as text. Raises AnswerError."""
        text = value.strip() if isinstance(value, str) else None
        if self.kind == "bool":
            found = value if isinstance(value, bool) else _BOOLS.get((text or "").lower())
            if found is None:
                raise AnswerError("wrong_type")
            return bool(found)
        if self.kind in ("integer", "number"):
            return self._number(value if text is None else text)
        if not text:
            raise AnswerError("empty" if text == "" else "wrong_type")
        if self.kind == "text":
            return valid(text[:TEXT])
        for word in self.words:
            if word.lower() == text.lower():
                return word
        raise AnswerError("unknown_word")

    def _number(self, value: Any) -> int | float:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):  # OverflowError: a whole number above every float
            number = math.nan
        if not math.isfinite(number) or (self.kind == "integer" and number != int(number)):
            raise AnswerError("wrong_type")
        if not self.least <= number <= self.most:
            raise AnswerError("out_of_range")
        return int(number) if self.kind == "integer" else number


Answers = Mapping[str, Answer]
"""The answers of a question by column."""


def schema(answers: Answers) -> dict[str, Any]:
    """The JSON schema of a reply."""
    return {
        "type": "object",
        "properties": {name: answer.schema for name, answer in answers.items()},
        "required": list(answers),
        "additionalProperties": False,
    }


def instruction(answers: Answers) -> str:
    """What the model is told about the form of its reply."""
    listed = ", ".join(f'"{name}": {answer.says}' for name, answer in answers.items())
    return f"Reply with one JSON object and nothing else: {{{listed}}}"


def read(reply: str, answers: Answers) -> dict[str, bool | int | float | str]:
    """The answers in a reply, which may have words or a code fence around its JSON. Raises AnswerError.

    What a model thinks before `</think>` is no reply.
    """
    reply = reply.rpartition(_THOUGHT)[2]
    found = next((each for each in _objects(reply) if answers.keys() <= each.keys()), None)
    if found is None:
        raise AnswerError("no_answer" if any(_objects(reply)) else "no_json")
    return {name: answer.read(found[name]) for name, answer in answers.items()}


def valid(text: str) -> str:
    """The text with a question mark for each lone surrogate, which JSON may have and UTF-8 has not."""
    return text.encode("utf-8", "replace").decode()


def _objects(reply: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, the outer ones first."""
    decoder, at = json.JSONDecoder(), 0
    for _ in range(TRIES):
        at = reply.find("{", at)
        if at < 0:
            return
        try:
            found, at = decoder.raw_decode(reply, at)
            yield found
        except (ValueError, RecursionError):
            at += 1
