"""A source file (`data_manifests/*.toml`), checked before anything runs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from filters.core import DISTINCT, SELECTION, Distinct, Filter, Recipe
from pipeline.errors import did_you_mean
from pipeline.filtering.recipes import find_recipe
from pipeline.images import decoders
from pipeline.scorers.duplicates import DuplicatesSpec
from pipeline.scorers.kinds import AnySpec
from pipeline.scorers.semantic import SemanticSpec
from pipeline.scorers.target_features import TargetFeaturesSpec
from pipeline.settings.choice import Calibration, DistinctRow, DriftRow, FilterRow
from pipeline.settings.download import Download
from pipeline.settings.engine import EngineName, Ray
from pipeline.settings.fields import Table
from pipeline.settings.model import Model
from pipeline.settings.pairs import Demo, Pairs
from pipeline.settings.schedule import check_schedule
from pipeline.settings.selection import SelectionRow
from pipeline.settings.sweep import Sweep
from pipeline.settings.task import Task
from pipeline.settings.vqa import VqaModel
from pipeline.sources.columns import check_columns


def _source_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name):
        raise ValueError(
            f"{name!r} cannot be the name of a source: it begins with a small letter a to z, and has at most 41 small "
            "letters, digits, _ and -; rename the file, or set name in it"
        )
    return name


def _name_of(what: str) -> Callable[[str], str]:
    """The check of a name that is part of columns or folders."""

    def check(name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
            raise ValueError(
                f"{name!r} cannot be the name of a {what}: it begins with a small letter a to z, and has at most 31 "
                "small letters, digits and _"
            )
        return name

    return check


def _words(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("write a line of text")
    return text.strip()


def _page(address: str) -> str:
    if not re.fullmatch(r"https?://[^\s<>]+", address):
        raise ValueError(f"{address!r} is no web address: it begins with https://")
    return address


Words = Annotated[str, AfterValidator(_words)]


class Source(Table):
    """The tables and keys of a source file. Read one with `pipeline.sources.loading.load`."""

    name: Annotated[str, AfterValidator(_source_name)]
    title: Words | None = Field(None, description="the data set's name for people, in the card of an export")
    license: Words | None = Field(None, description="of the data, in the card of an export, such as cc-by-4.0")
    homepage: Annotated[str, AfterValidator(_page)] | None = Field(None, description="a web page about the data")
    schedule: Annotated[str, AfterValidator(check_schedule)] | None = Field(None, description="cron, in UTC")
    pairs: Pairs | None = None
    demo: Demo | None = None
    union: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, description="other sources, by name or file, and the share of the pairs of each that is drawn"
    )
    engine: EngineName = Field("local", description="what downloads and scores: this machine, or a Ray cluster")
    ray: Ray = Ray()
    download: Download = Download()
    decoder: decoders.Name = Field("pillow", description="decodes the stored pictures; the others resize faster")
    scorers: dict[Annotated[str, AfterValidator(_name_of("scorer"))], AnySpec] = Field({}, description="by name")
    recipe: str | None = Field(None, description="a named recipe")
    filters: tuple[FilterRow, ...] | None = Field(None, description="in place of recipe, a list of filters")
    distinct: DistinctRow | None = Field(None, description="removes duplicates after the recipe or the filters")
    selection: SelectionRow | None = Field(None, description="chooses a set of the pairs that are then left")
    calibration: Calibration = Calibration()
    drift: DriftRow = DriftRow()
    models: dict[Annotated[str, AfterValidator(_name_of("model"))], Model] = Field(
        {}, description="dual encoders, by name: winnow fit trains one, and a learner of the task may name one"
    )
    vqa: dict[Annotated[str, AfterValidator(_name_of("model"))], VqaModel] = Field(
        {}, description="models that answer questions, by name, for learners of a task of kind vqa"
    )
    sweeps: dict[Annotated[str, AfterValidator(_name_of("sweep"))], Sweep] = Field(
        {}, description="grids of trainings of a model, by name, for winnow sweep"
    )
    task: Task | None = None
    path: Path = Field(Path(), exclude=True)

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        tables = [table for table in (self.pairs, self.demo, self.union or None) if table is not None]
        if len(tables) != 1:
            raise ValueError(
                "name where the pairs come from: [pairs], or [demo] for the embedded source, or [union] of others"
            )
        if self.recipe is not None and self.filters is not None:
            raise ValueError("give recipe or filters, not both")
        check_columns(self.pairs.extra if self.pairs else (), self.scorers)
        for name, spec in self.scorers.items():
            for of in spec.builds_on:
                if of not in self.scorers:
                    raise ValueError(f"scorers.{name}: there is no scorer {of!r}{did_you_mean(of, self.scorers)}")
        for name, learner in (self.task.learners if self.task else {}).items():
            for wanted, known in ((learner.model, self.models), (learner.vqa, self.vqa)):
                if wanted is not None and wanted not in known:
                    hint = did_you_mean(wanted, known)
                    raise ValueError(f"task.learners.{name}: there is no model {wanted!r}{hint}")
        self._check_sweeps((info.context or {}).get("folder", Path()))
        for row in self.filters or ():
            for label in set(row.catches) & set(self.calibration.good):
                raise ValueError(f"filter {row.name!r} catches {label!r}, which calibration.good lists as good")
        _ = self.own_recipe  # raises ValueError for an unknown recipe, a bad filter name, or two filters of one name
        return self

    def _check_sweeps(self, folder: Path) -> None:
        for name, sweep in self.sweeps.items():
            if sweep.model not in self.models:
                hint = did_you_mean(sweep.model, self.models)
                raise ValueError(f"sweeps.{name}: there is no model {sweep.model!r}{hint}")
            try:
                sweep.cells(self.models[sweep.model], folder)
            except ValueError as error:
                raise ValueError(f"sweeps.{name}: {error}") from error

    @property
    def neighbour_scorers(self) -> Mapping[str, DuplicatesSpec | SemanticSpec]:
        """The scorers that find near-duplicates, by name."""
        return {name: spec for name, spec in self.scorers.items() if isinstance(spec, DuplicatesSpec | SemanticSpec)}

    @property
    def embedding_scorers(self) -> list[str]:
        """The scorers that store embeddings, by name."""
        return [name for name, spec in self.scorers.items() if spec.encoder is not None]

    @property
    def features_scorers(self) -> list[str]:
        """The scorers that have the features of a target set, by name."""
        return [name for name, spec in self.scorers.items() if isinstance(spec, TargetFeaturesSpec)]

    @property
    def own_recipe(self) -> Recipe:
        """The recipe that this source publishes; without `recipe` and `filters`, every downloaded pair is kept."""
        if self.filters is not None:
            recipe = Recipe(self.name, tuple(Filter(row.name, row.sql, row.why) for row in self.filters))
        else:
            recipe = find_recipe(self.recipe or "everything")
        if self.distinct is not None:
            recipe = replace(recipe, distinct=Distinct(**self.distinct.model_dump()))
        if self.selection is not None:
            recipe = replace(recipe, selection=self.selection.value())
        added = [DISTINCT] * (self.distinct is not None) + [SELECTION] * (self.selection is not None)
        return replace(recipe, name="-".join([recipe.name, *added] if self.filters is None else [recipe.name]))
