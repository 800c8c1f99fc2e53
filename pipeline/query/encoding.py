"""The query of a search as an embedding, by the model that made the stored embeddings."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError, SourceError, StorageError, did_you_mean
from pipeline.failure import RowError
from pipeline.images import decoders
from pipeline.images.limits import Limits
from pipeline.images.sandbox import Decoders
from pipeline.manifest.manifest import Manifest
from pipeline.scorers.clip import ClipSpec
from pipeline.sources.source import Source
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    from pipeline.models.clip import Clip

MODEL = ("kind", "version", "model", "weights", "config", "preprocess")
"""What must be equal in the stage's key and in the source file. Libraries, device, precision and batch may differ."""


@dataclass(frozen=True)
class Query:
    """A normalised embedding: float32 [dim]. `cut` counts the tokens that the model did not read."""

    vector: npt.NDArray[np.float32]
    cut: int = 0


@dataclass(frozen=True)
class Model:
    """A clip scorer of a source: its name, its spec, and the folder of its results, such as "clip-1a2b3c4d"."""

    name: str
    spec: ClipSpec
    stage: str

    def embed_text(self, text: str) -> Query:
        """The embedding of a text. What is longer than the model reads is cut off. Raises ModelError."""
        text = text.encode(errors="replace").decode()  # bytes of a command line that are no UTF-8
        clip = self._clip
        return Query(_finite(clip.encode_captions([text])[0], self.name), clip.tokens_cut(text))

    def embed_picture(self, path: Path, source: Source) -> Query:
        """The embedding of a picture in a file, decoded and resized as a download of the source.

        Raises SourceError for a file that is no picture, ModelError.
        """
        picture = decoders.decoder(source.decoder)(_stored_jpeg(path, source))
        clip = self._clip
        return Query(_finite(clip.encode_pictures([clip.prepare(picture)])[0], self.name))

    @cached_property
    def _clip(self) -> "Clip":
        from pipeline.models.clip import Clip

        clip = self.spec.load()
        assert isinstance(clip, Clip)
        return clip


def find(source: Source, storage: Storage, manifest: Manifest, name: str | None) -> Model:
    """The clip scorer of that name, or the first one, if its model is the one that made the manifest's embeddings.

    Raises SourceError for a scorer that cannot embed a query, StorageError if the manifest has no scores of it, and
    ModelError for another model. Loads no model, but computes the digest of its weights.
    """
    specs = {each: spec for each, spec in source.scorers.items() if isinstance(spec, ClipSpec)}
    if name is None:
        if not specs:
            raise SourceError(f"{source.name} has no scorer of kind clip, which search needs: add one, and curate it")
        name = next(iter(specs))
    if name not in source.scorers:
        raise SourceError(f"{source.name} has no scorer {name!r}{did_you_mean(name, specs)}")
    if name not in specs:
        raise SourceError(
            f"scorers.{name} is of kind {source.scorers[name].kind}, which cannot embed a query: use clip"
        )
    key = manifest.stages.scores.get(name)
    if key is None:
        raise StorageError(
            f"manifest {manifest.id[:12]} has no embeddings of {name!r}: run "
            f"`winnow score {source.name} --scorer {name}`"
        )
    model = Model(name, specs[name], f"{name}-{key}")
    _check_same(storage, model)
    return model


def _check_same(storage: Storage, model: Model) -> None:
    described = f"scores/{model.stage}/key.json"
    made_by = json.loads(storage.fetch(described).read_bytes())
    now = {"kind": model.spec.kind, **model.spec.identity()}
    if changed := [each for each in MODEL if made_by.get(each) != now.get(each)]:
        raise ModelError(
            f"scorers.{model.name} is not the model that made the stored embeddings ({', '.join(changed)} differ from "
            f"{described}): put that model back, or run `winnow curate`"
        )


def _stored_jpeg(path: Path, source: Source) -> bytes:
    """The picture as a download would store it. The file is decoded in a confined process."""
    limits = source.download
    try:
        with path.open("rb") as file:
            data = file.read(limits.max_bytes + 1)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limits.max_bytes:
        raise SourceError(f"{path} has more than {limits.max_bytes:,} bytes, the download.max_bytes of the source")
    try:
        with Decoders(Limits.of(limits)) as decoder:
            return decoder.decode(data).jpeg
    except RowError as error:
        raise SourceError(f"{path} is no picture that can be decoded: {error}") from None


def _finite(vector: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.float32]:
    if not np.isfinite(vector).all():
        raise ModelError(f"scorers.{name}: the embedding of the query is not finite, so nothing can be compared")
    return vector
