"""Cross-fitting: each shard is scored by a model that was not trained on it.

A model learns its training pairs by heart, wrong captions included, the more the longer it trains. Then its scores of
these pairs say little. With K folds, the model of fold k is trained on the shards whose number modulo K is not k, and
scores only the others (the cross-fitting of Chernozhukov et al. 2018, section 3, with shards as units).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from pydantic import Field

from pipeline.errors import ModelError
from pipeline.models.training_record import FOLDER, LEARNED, Fold, Learned, TrainingRecord
from pipeline.scorers.clip import ClipSettings, ClipSpec
from pipeline.scorers.spec import Batch, Columns, Scorer
from pipeline.settings.fields import LOCAL_DIR, ExistingPath
from pipeline.store.digests import file_digest

VERSION = 1


class CrossFittedSpec(ClipSettings):
    """The models of all folds, which `winnow fit --folds` trained on the kept pairs of this source."""

    reads_extra: ClassVar[bool] = True  # whether a pair has a score depends on its shard
    kind: Literal["cross_fitted"]
    folder: ExistingPath = Field(description="what `winnow fit --folds` wrote: a model's folder for each fold")

    @property
    def without_embeddings(self) -> str:
        """The models of two folds do not share a space."""
        return "stores no embeddings, because those of its folds cannot be compared"

    @property
    def model_folders(self) -> Sequence[Path]:
        """The folder of each fold's model, by its number. Raises ModelError for a missing fold, or another's model."""
        return [self.folder / FOLDER.format(number) for number in range(len(self._records))]

    def identity(self) -> Mapping[str, Any]:
        """The identity of each fold's model, and the digest of what it was trained on. Raises ModelError."""
        folds = [
            {**clip.identity(), "learned": file_digest(folder / LEARNED)}
            for folder, clip in zip(self.model_folders, self._clips, strict=True)
        ]
        return {"version": VERSION, "folds": folds, "device": folds[0]["device"], "precision": folds[0]["precision"]}

    def check_source(self, name: str) -> None:
        """Raises ModelError for models of another source, whose folds say nothing about the shards of this one."""
        if self._records[0].source != name:
            raise ModelError(
                f"{self.folder} was trained on the source {self._records[0].source!r}, and its folds do not apply to "
                f'{name!r}: run `winnow fit {name} MODEL --folds {len(self._records)}`, or use kind = "clip"'
            )

    def load(self) -> "CrossFitted":
        """The models of all folds, with their certificates. Raises ModelError as a clip scorer does."""
        learned = [Learned.read(folder) for folder in self.model_folders]
        return CrossFitted(self.folder, [clip.load() for clip in self._clips], learned, self._records[0])

    @property
    def _clips(self) -> list[ClipSpec]:
        shared = self.model_dump(include={"precision", "batch", "sigmoid"})
        return [ClipSpec(kind="clip", model=f"{LOCAL_DIR}{folder}", **shared) for folder in self.model_folders]

    @cached_property
    def _records(self) -> list[TrainingRecord]:
        first = _record(self.folder, 0)
        assert first.fold
        found = [first, *(_record(self.folder, number) for number in range(1, first.fold.of))]
        for number, record in enumerate(found):
            same = (record.source, record.manifest, record.recipe) == (first.source, first.manifest, first.recipe)
            if not same or record.fold != Fold(number, first.fold.of, first.fold.shards):
                raise ModelError(
                    f"{self.folder / FOLDER.format(number)} is not fold {number} of the same training as fold 0: "
                    "run `winnow fit --folds` again, into an empty folder"
                )
        return found


def _record(folder: Path, number: int) -> TrainingRecord:
    path = folder / FOLDER.format(number)
    found = TrainingRecord.read(path)
    if found is None or found.fold is None or not (path / LEARNED).is_file():
        raise ModelError(f"{path} is no fold's model: name the folder that `winnow fit --folds` wrote, with all of it")
    return found


class CrossFitted:
    """The models of all folds. Its certificate has theirs, and their golden scores, fold after fold."""

    def __init__(self, folder: Path, models: Sequence[Any], learned: Sequence[Learned], record: TrainingRecord) -> None:
        """`models` are loaded clip scorers, and `learned` what each was trained on."""
        assert record.fold
        self._folder, self._models, self._learned, self._shards = folder, models, learned, record.fold.shards
        each = [dict(model.certificate) for model in models]
        self.certificate: Mapping[str, Any] = {
            "folds": each,
            "precision": each[0]["precision"],
            "tolerance": each[0]["tolerance"],
            "golden": [score for certificate in each for score in certificate["golden"]],
        }

    def of_shard(self, number: int, key: str | None) -> Scorer:
        """The model that was not trained on the shard. Raises ModelError for another shard of that number."""
        trained = self._shards.get(str(number))
        if trained is not None and key is not None and trained != key:
            raise ModelError(
                f"shard {number} is {key}, and was {trained} when {self._folder} was trained: shards have other "
                "numbers since then, and a model would score its own training pairs; run `winnow fit --folds` again"
            )
        fold = number % len(self._models)
        return FoldScorer(self._models[fold], self._learned[fold])


class FoldScorer:
    """One fold's model, for pairs that it was not trained on."""

    embedding_dim = None

    def __init__(self, model: Any, learned: Learned) -> None:
        self._model, self._learned, self.preparation = model, learned, model.preparation

    def prepare(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """As the model does."""
        prepared: npt.NDArray[np.uint8] = self._model.prepare(image)
        return prepared

    def score(self, batch: Batch) -> Columns:
        """The columns of `ClipSettings`; NULL for a pair that the model was trained on, or whose picture it was.

        This happens to pairs that were appended after the training, to a shard of the other side.
        """
        pictures = batch.extra["sha256"].to_pylist()
        learned = self._learned.has_pairs(batch.uids) | self._learned.has_pictures(pictures)
        found = self._model.score(batch)
        return {name: pa.array(found[name], mask=learned) for name in found if name != "embeddings"}
