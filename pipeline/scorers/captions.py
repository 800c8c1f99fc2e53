"""What the caption says about itself: length, language, and marks of alt texts that describe nothing."""

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa

from pipeline.score import Scorer, Spec

VERSION = 1


class CaptionsSpec(Spec):
    """Length, words, repetition, language and spam marks."""

    kind: Literal["captions"]

    def columns(self) -> Mapping[str, pa.DataType]:
        """See the module's `Captions`."""
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
        """Versions of the rules and of the language model."""
        raise NotImplementedError

    def load(self) -> Scorer:
        """The language model, 1 MB."""
        raise NotImplementedError
