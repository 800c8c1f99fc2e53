"""Words of a list in captions: the classes of a task, ImageNet's synsets, unwanted names."""

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.errors import ModelError
from pipeline.scorers.captions import plain_words
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec
from pipeline.settings.fields import ExistingPath
from pipeline.text_files import read_text

VERSION = 1


class WordsSpec(Spec):
    """A list of words to look for in captions."""

    kind: Literal["words"]
    file: ExistingPath = Field(description="UTF-8 text, a word a line; letter case and punctuation are ignored")

    def columns(self) -> Mapping[str, pa.DataType]:
        """count: distinct words of the caption that are in the list. Phrases of several words are never found."""
        return {"count": pa.int32()}

    def identity(self) -> Mapping[str, Any]:
        """The version, and the list. Raises ModelError for a file that cannot be read."""
        try:
            content = self.file.read_bytes()
        except OSError as error:
            raise ModelError(f"{self.file} cannot be read: {error.strerror}; name a file of words") from None
        return {"version": VERSION, "file": hashlib.sha256(content).hexdigest()}

    def load(self) -> Scorer:
        """The scorer with its list. Raises ModelError for a list without words."""
        try:
            lines = read_text(self.file).splitlines()
        except UnicodeDecodeError:
            raise ModelError(f"{self.file} is no UTF-8 text, a word a line") from None
        words = frozenset(word for line in lines for word in plain_words(line) if len(line.split()) == 1)
        if not words:
            raise ModelError(f"{self.file} has no words")
        return Words(words)


class Words:
    """Counts the words of the list in each caption."""

    embedding_dim = None

    def __init__(self, words: frozenset[str]) -> None:
        self._words = words

    def score(self, batch: Batch) -> Columns:
        """The column of `WordsSpec`."""
        found = [len(self._words.intersection(plain_words(caption))) for caption in batch.captions]
        return {"count": np.array(found, np.int32)}
