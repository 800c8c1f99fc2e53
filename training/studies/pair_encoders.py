"""Models with an image tower and a text tower in one space, by a name: for all that compares pictures with texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ModelError, SourceError
from pipeline.models.clip_folder import MODEL
from pipeline.models.training_record import RECORD
from pipeline.scorers.clip import ClipSpec
from pipeline.settings.encoder import parse_name
from pipeline.settings.fields import LOCAL_DIR
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from training.learners.divergence import check_scores
from training.measures.metrics import Units

if TYPE_CHECKING:
    import torch

    from pipeline.models.clip import Clip
    from training.dual.encoder import DualEncoder

Prepared = npt.NDArray[np.uint8]
"""A picture as the model sees it: [height, width, 3]."""

_ROWS = 64
"""Pictures or texts in a pass of a model of winnow's own."""


class PairEncoder(Protocol):
    """A model by its `name`. All that it computes depends on `identity`, JSON with the digests of its weights.

    Nothing is loaded before something is embedded. Embeddings are L2-normalised, float32 [rows, dim].
    """

    @property
    def name(self) -> str:
        """For tables and messages."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Raises ModelError for weights that are missing."""

    def prepare(self, image: Image.Image) -> Prepared:
        """A picture as the model sees it."""

    def encode_pictures(self, prepared: Sequence[Prepared]) -> Units:
        """Of prepared pictures."""

    def encode_captions(self, captions: Sequence[str]) -> Units:
        """Of texts, cut to what the text tower reads."""


@dataclass(frozen=True)
class OpenClip:
    """A model of open_clip's, as a scorer of kind clip takes it, but in float32."""

    name: str
    spec: ClipSpec

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """As of the scorer."""
        return {"kind": "clip", **self.spec.identity()}

    def prepare(self, image: Image.Image) -> Prepared:
        """As `Clip.prepare`."""
        return self._clip.prepare(image)

    def encode_pictures(self, prepared: Sequence[Prepared]) -> Units:
        """As `Clip.encode_pictures`."""
        return self._clip.encode_pictures(prepared)

    def encode_captions(self, captions: Sequence[str]) -> Units:
        """As `Clip.encode_captions`."""
        return self._clip.encode_captions(captions)

    @cached_property
    def _clip(self) -> "Clip":
        from pipeline.models.clip import Clip

        clip = self.spec.load()
        assert isinstance(clip, Clip)
        return clip


@dataclass(frozen=True)
class Own:
    """A model that `winnow fit` trained and saved in a folder, also one that open_clip cannot hold."""

    name: str
    folder: Path

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Digests of the weights and of what describes the model."""
        from training.dual import trained

        return {"kind": "dual", **trained.identity(self.folder)}

    def prepare(self, image: Image.Image) -> Prepared:
        """As training prepares it, without augmentation."""
        prepared: Prepared = self._model.pictures.prepare(image)
        return prepared

    def encode_pictures(self, prepared: Sequence[Prepared]) -> Units:
        """In passes of `_ROWS`."""
        model = self._model
        return _units(prepared, lambda part: model.encode_image(model.pictures.stack(list(part)).to(_device(model))))

    def encode_captions(self, captions: Sequence[str]) -> Units:
        """Of whole captions, or of as many tokens as the model was trained on."""
        model = self._model
        return _units(captions, lambda part: model.encode_text(model.tokenizer(part).ids.long().to(_device(model))))

    @cached_property
    def _model(self) -> "DualEncoder":
        from pipeline.models import device
        from training.dual import folder

        return folder.load(self.folder).to(device.kind())


def find(source: Source, storage: Storage, name: str | None) -> PairEncoder:
    """The model that a name means: a scorer of kind clip, a model of [models] that `winnow fit` trained,
    open_clip:MODEL@WEIGHTS, or local-dir:FOLDER. Without a name it is the first scorer of kind clip.

    Raises SourceError for a name that is none of these, ModelError for a model that is not trained yet.
    """
    clips = {each: spec for each, spec in source.scorers.items() if isinstance(spec, ClipSpec)}
    if name is None:
        if not clips:
            raise SourceError(f"{source.name} has no scorer of kind clip: name a model with --model")
        name = next(iter(clips))
    if name in clips:
        return OpenClip(name, clips[name].model_copy(update={"precision": "float32"}))
    if name in source.models:
        return Own(name, _newest(storage, source, name))
    folder = Path(name.removeprefix(LOCAL_DIR)).expanduser().resolve()
    if name.startswith(LOCAL_DIR) and (folder / MODEL).is_file():
        return Own(folder.name, folder)
    return OpenClip(name, _spec(name, [*clips, *source.models]))


def _newest(storage: Storage, source: Source, name: str) -> Path:
    """The folder of the newest training of a model, of one that scores no fold."""
    found = [path.parent for path in storage.local.fetch_all(storage.local.find(f"models/{name}-*/{RECORD}"))]
    if not found:
        raise ModelError(f"the model {name!r} is not trained yet: run `winnow fit {source.name} {name}`")
    return max(found, key=lambda folder: (folder / RECORD).stat().st_mtime)


def _spec(name: str, known: Sequence[str]) -> ClipSpec:
    """Of an open_clip name or a folder. Raises SourceError for another name."""
    try:
        table = parse_name(name)
        if not isinstance(table, dict) or table.get("kind") != "open_clip":
            raise ValueError
        made: ClipSpec = TypeAdapter(ClipSpec).validate_python(
            {**table, "kind": "clip", "precision": "float32"}, context={"folder": Path()}
        )
    except ValidationError as error:
        raise SourceError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    except ValueError:
        own = f"one of {', '.join(known)}, " if known else ""
        raise SourceError(
            f"no model is called {name!r}: use {own}open_clip:MODEL@WEIGHTS, or local-dir:FOLDER"
        ) from None
    return made


def _units(rows: Sequence[Any], encode: "Callable[[Sequence[Any]], torch.Tensor]") -> Units:
    import torch
    from torch.nn.functional import normalize

    with torch.inference_mode():
        parts = [normalize(encode(rows[at : at + _ROWS]), dim=-1).cpu() for at in range(0, len(rows), _ROWS)]
    units: Units = check_scores(torch.cat(parts)).numpy()
    return units


def _device(model: "DualEncoder") -> "torch.device":
    return model.logit_scale.device
