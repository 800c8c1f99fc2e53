"""A learned mix of score columns, for a reference set of clean pairs.

After M-FLYT (Shechter and Carmon 2025, arXiv 2503.08805), which learns a linear mix of standardised scores so that a
model that trains on what the mix weights does well on labelled data (`pipeline.mixing.step`); or, simpler, logistic
regression of reference pairs against the pool (`pipeline.mixing.logistic`). Every pair is scored by weights that were
learned without the pairs of its picture's fold. Folds are drawn by the picture's bytes, not by shards.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from pipeline.errors import ModelError, SourceError, did_you_mean
from pipeline.images import picture_lists, picture_sets
from pipeline.mixing.learn import Method
from pipeline.mixing.pairs import Floats, Pairs
from pipeline.progress import StepProgress
from pipeline.schema import score_column
from pipeline.scorers import gathering, mixed_pool, mixed_reference, mixture_file, target_leaks
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.mixed_pool import Inside
from pipeline.scorers.mixed_reference import UID, Reference
from pipeline.scorers.spec import Columns, Pool, PoolSpec, Spec
from pipeline.settings.task import TestSet

VERSION = 1


class MixedSpec(PoolSpec):
    """A mix of columns of other scorers, learned for reference pairs."""

    files: ClassVar[Sequence[str]] = (mixture_file.NAME,)
    kind: Literal["mixed"]
    of: str = Field("clip", description="the scorer whose embeddings the reference learner reads")
    mixes: tuple[str, ...] = Field(
        min_length=2, description='the columns, as SCORER.COLUMN: ["clip.similarity", "pixels.sharpness"]'
    )
    reference: Reference = Field(description="clean pairs: a table with location, and perhaps folder, image, caption")
    method: Method = Field("step", description="one differentiable step of a reference learner, or logistic regression")
    keep: float = Field(0.3, gt=0, lt=1, description="the share of the pool at which the mix is compared with columns")
    refits: int = Field(10, ge=3, le=100, description="times that each fold is learned, on halves of the reference")
    folds: int = Field(2, ge=2, le=10, description="parts of the pool; each is scored by weights of the others")
    hashes: str | None = Field(
        None, description="a pixels scorer: reference pairs of the pool are compared with the task's test pictures"
    )
    test: TestSet | None = Field(None, description="where no reference picture may be; unset, that of task.test")

    @field_validator("mixes")
    @classmethod
    def _named(cls, mixes: tuple[str, ...]) -> tuple[str, ...]:
        for name in mixes:
            if name.count(".") != 1:
                raise ValueError(f"write {name!r} as SCORER.COLUMN, such as clip.similarity")
            if mixes.count(name) > 1:
                raise ValueError(f"{name!r} is named twice")
        return mixes

    @property
    def builds_on(self) -> Sequence[str]:
        """The scorer of the embeddings, those of the columns, and that of the hashes."""
        scorers = [self.of, *(name.split(".")[0] for name in self.mixes), *([self.hashes] if self.hashes else [])]
        return tuple(dict.fromkeys(scorers))

    @property
    def model_of(self) -> str | None:
        """The scorer whose model encodes reference pictures; None for a reference of pairs of the pool."""
        return self.of if self.reference.folder else None

    @property
    def mixed_columns(self) -> list[str]:
        """The names of the columns in `rows`."""
        return [score_column(*name.split(".")) for name in self.mixes]

    def columns(self) -> Mapping[str, pa.DataType]:
        """score: the mix of the standardised columns, higher is better; NULL where one of the columns is NULL."""
        return {"score": pa.float32()}

    def identity(self) -> Mapping[str, Any]:
        """The settings, the reference, the test set that it must not touch, and the versions of what computes."""
        from importlib.metadata import version

        settings = self.model_dump(include={"mixes", "method", "keep", "refits", "folds"}, mode="json")
        if self.test and not self.reference.folder:
            pictures = picture_lists.list_pictures(self.test)
            settings |= {"hashes": self.hashes, "test": picture_sets.digest(self.test.folder, pictures)}
        return {"version": VERSION, **settings, "reference": self.reference.identity(), "torch": version("torch")}

    def check(self, scorers: Mapping[str, Spec]) -> None:
        """Raises SourceError without embeddings, for a missing column or one that is no number, and for a reference of
        few pictures; ModelError for a reference in the test set, or pictures that the scorer `of` cannot encode.
        """
        gathering.check(scorers, self.of)
        for name in self.mixes:
            _check_column(name, scorers)
        named = self.reference.read(self.mixed_columns if self.method == "logistic" else ())
        pictures = len(pc.unique(named[self.reference.image if self.reference.folder else UID]))
        if pictures < mixed_pool.LEAST:
            raise SourceError(
                f"{self.reference.location.name} names {pictures} reference picture{'s' if pictures > 1 else ''}, and "
                f"{mixed_pool.LEAST} are the fewest: add some"
            )
        listed = self.reference.listed
        if listed is None:
            self._check_hashes(scorers)
            return
        if not isinstance(scorers[self.of], ClipSpec):
            raise ModelError(
                f"{self.of!r} is of kind {scorers[self.of].kind!r} and encodes no pictures: remove reference.folder, "
                "and give the uids of pairs of the source"
            )
        target_leaks.refuse(listed.folder, self.test, picture_lists.list_pictures(listed))

    def load(self, of: Callable[[], Any] | None = None) -> "Mixed":
        """The scorer with its reference. Raises ModelError for a broken picture."""
        if self.reference.folder is None:
            return Mixed(self, Inside(self.reference, self.hashes, self.test))
        assert of is not None
        columns = self.mixed_columns if self.method == "logistic" else ()
        return Mixed(self, mixed_reference.outside(self.reference, columns, of))

    def _check_hashes(self, scorers: Mapping[str, Spec]) -> None:
        if self.test and not self.hashes:
            raise SourceError(
                "set hashes to a scorer of kind pixels: reference pairs are compared with the test set of the task"
            )
        if self.hashes and scorers[self.hashes].columns().get("phash") != pa.uint64():
            raise SourceError(f"{self.hashes!r} makes no phash; set hashes to a scorer of kind pixels")


class Mixed:
    """Learns from a sample of the pool, compares the mix with its columns, and scores every pair."""

    def __init__(self, spec: MixedSpec, reference: Inside | Pairs) -> None:
        self._spec, self._reference = spec, reference

    def score(self, pool: Pool, progress: StepProgress) -> Columns:
        """The column of `MixedSpec`. Raises ModelError for a constant column, and where there is too little data."""
        from pipeline.mixing.comparison import compare
        from pipeline.mixing.learn import learn

        spec = self._spec
        columns = _read(pool, spec.mixed_columns)
        complete: npt.NDArray[np.bool_] = np.isnan(columns).sum(axis=1) == 0
        if not len(pool) or not complete.any():
            mixture_file.write_empty(pool.folder)
            return {"score": pa.nulls(len(pool), pa.float32())}
        _check_values(spec.mixed_columns, columns, complete)
        fold = mixed_pool.folds(pool, spec.folds)
        pairs, reference = mixed_pool.learnable(pool, spec.of, columns, fold, self._reference)
        mixed_pool.check_enough(pairs, reference, spec.folds)
        mixture = learn(pairs, reference, spec.method, spec.refits, spec.folds, progress)
        comparison = compare(pairs, reference, mixture, spec.keep, progress)
        facts = {"method": spec.method, "keep": spec.keep, "reference": len(reference), "pairs": len(pairs)}
        mixture_file.write(pool.folder, spec.mixed_columns, mixture, comparison, facts)
        scores = mixture.score(np.nan_to_num(columns), fold)
        return {"score": pa.array(scores, mask=~complete)}


def _check_column(name: str, scorers: Mapping[str, Spec]) -> None:
    scorer, column = name.split(".")
    spec = scorers[scorer]
    known = spec.columns()
    if column not in known:
        raise SourceError(f"mixes: {scorer!r} has no column {column!r}{did_you_mean(column, known)}")
    if isinstance(spec, MixedSpec):
        raise SourceError(f"mixes: {name} is a mix itself; name its columns")
    kind = known[column]
    number = pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
    if not number or kind == pa.uint64():
        raise SourceError(f"mixes: {name} is {kind}, and only numbers can be mixed; remove it")


def _read(pool: Pool, names: Sequence[str]) -> Floats:
    """float64 [rows, columns], NaN for NULL."""
    read = [pc.cast(pool.column(name), pa.float64()).combine_chunks() for name in names]
    return np.column_stack([each.fill_null(np.nan).to_numpy(zero_copy_only=False) for each in read])


def _check_values(names: Sequence[str], columns: Floats, complete: npt.NDArray[np.bool_]) -> None:
    for name, values in zip(names, columns[complete].T, strict=True):
        if values.min() == values.max():
            raise ModelError(f"mixes: {name} is {values[0]:g} for every pair, and says nothing; remove it")
