"""A grid of trainings of one model: a table `[sweeps.NAME]` of a source file."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from pipeline.errors import did_you_mean
from pipeline.settings.fields import Table
from pipeline.settings.model import Model

TINY_BATCH, TINY_STEPS, TINY_SEEDS = 32, 20, 2
"""The most of each under `tiny = true`."""


class Treatment(Table):
    """What is done to the pairs of a cell: negatives that the loss does not see, and noise on purpose.

    A treatment of no pair is "none", so that equal cells are one.
    """

    pruning: Literal["none", "random", "hard", "easy", "hard-matched"] = Field(
        "none",
        description="which negatives of a batch are kept; hard-matched: with more steps, so that as many are seen",
    )
    masking: float = Field(0.0, ge=0, lt=1, description="the share of the negatives that is left out")
    noise: Literal["none", "images", "texts", "both", "alignment", "all"] = "none"
    noise_share: float = Field(0.0, ge=0, le=1, description="the share of the training pairs that is corrupted")

    @model_validator(mode="before")
    @classmethod
    def _nothing(cls, table: Any) -> Any:
        table = dict(table)
        for kind, share in (("pruning", "masking"), ("noise", "noise_share")):
            if table.get(kind, "none") == "none" or table.get(share) == 0:
                table.pop(kind, None)
                table.pop(share, None)
        return table

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.pruning != "none" and not self.masking:
            raise ValueError(f'pruning = "{self.pruning}" needs masking, the share of the negatives that is left out')
        if self.noise != "none" and not self.noise_share:
            raise ValueError(f'noise = "{self.noise}" needs noise_share')
        return self


VARIED = (set(Model.model_fields) - {"tiny", "steps"}) | set(Treatment.model_fields)
"""The keys that a grid may vary."""


TUNED = {"head_rate", "image_rate", "text_rate", "weight_decay", "dropout", "warmup"}
"""The keys that may be tuned: they do not change what the validation loss is."""


class Cell(NamedTuple):
    """A point of a grid: its `values` by key, those of `tuned` keys, the model, and the treatment."""

    values: Mapping[str, Any]
    tuned: Mapping[str, Any]
    model: Model
    treatment: Treatment


Values = Annotated[tuple[Any, ...], Field(min_length=1)]


class Sweep(Table):
    """Every combination of the values of `grid`, each trained with so many seeds."""

    model: str = Field(description="the name of a table [models.NAME]")
    grid: dict[str, Values] = Field(min_length=1, description="values by key of the model, or of a treatment")
    tune: dict[str, Values] = Field(
        {}, description="as grid; of these values each cell has those with the lowest validation loss"
    )
    seeds: int = Field(3, ge=1, le=100)
    examples: int | None = Field(
        None, ge=1, description="pairs that each training sees, so that steps = examples / batch; default: the model's"
    )
    steps: int | None = Field(
        None,
        ge=1,
        description="in place of examples, steps of every training; with both, each cell is trained under either",
    )
    tiny: bool = Field(False, description="the first and the last value of each key, few steps, to try a file")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in (*self.grid, *self.tune):
            if name not in VARIED:
                raise ValueError(f"no key {name!r} can be varied{did_you_mean(name, VARIED)}")
        for name in self.tune:
            if name not in TUNED:
                raise ValueError(f"{name} cannot be tuned, only {', '.join(sorted(TUNED))}: move it to grid")
            if name in self.grid:
                raise ValueError(f"{name} is in grid and in tune: leave it in one")
        return self

    def cells(self, model: Model, folder: Path) -> list[Cell]:
        """The cells, each once, with as many steps as `examples` or `steps` ask for. Files are relative to `folder`.

        With both, all cells at equal examples come before all at equal steps, which the value `equal` tells apart.

        Raises ValueError for values that do not go together.
        """
        if self.examples and self.steps:
            return [
                cell._replace(values={**cell.values, "equal": name})
                for name, other in (("examples", "steps"), ("steps", "examples"))
                for cell in self.model_copy(update={other: None}).cells(model, folder)
            ]
        grid, tune = (_ends(each) if self.tiny else each for each in (self.grid, self.tune))
        cells = [self._cell(model, folder, *values) for values in product(_points(grid), _points(tune))]
        found: list[Cell] = []
        for cell in cells:
            if not any(cell[2:] == each[2:] for each in found):
                found.append(cell)
        return found

    @property
    def seed_numbers(self) -> range:
        """The seeds of every cell."""
        return range(min(self.seeds, TINY_SEEDS) if self.tiny else self.seeds)

    def _cell(self, named: Model, folder: Path, values: Mapping[str, Any], tuned: Mapping[str, Any]) -> Cell:
        own, given = named.under(named.preset, self.tiny), {**values, **tuned}
        preset = given.pop("preset", named.preset)
        if self.tiny and "batch" in given:
            given["batch"] = min(given["batch"], TINY_BATCH)
        treated = {name: given.pop(name) for name in Treatment.model_fields if name in given}
        try:
            base = named.under(preset, self.tiny)
            treatment = Treatment.model_validate(treated)
            changed = {**base.model_dump(), "preset": None, "tiny": False, **given}
            model = Model.model_validate(changed, context={"folder": folder})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            says = first["msg"].removeprefix("Value error, ")
            raise ValueError(f"{where}: {says}" if where else says) from error
        if treatment.pruning != "none" and model.objective == "soft-targets":
            raise ValueError("soft-targets cannot be pruned: their targets are not matches and negatives")
        if treatment.noise in ("texts", "both", "all") and model.texts == "template":
            raise ValueError('noise in texts is for captions: set texts = "captions"')
        steps = self.steps or max(1, round((self.examples or own.batch * own.steps) / model.batch))
        shown = {name: _settled(name, value, model, treatment) for name, value in values.items()}
        return Cell(
            shown,
            tuned,
            model.model_copy(update={"steps": min(steps, TINY_STEPS) if self.tiny else steps}),
            treatment,
        )


def _ends(grid: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The first and the last value of each key."""
    return {name: values[:: max(len(values) - 1, 1)] for name, values in grid.items()}


def _points(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination; the last key varies fastest."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _settled(name: str, value: Any, model: Model, treatment: Treatment) -> Any:
    """A value as it is shown: a tower by its name, and what a treatment became."""
    if name == "preset":
        return value
    if name in ("image", "text"):
        return getattr(model, name).name
    return getattr(treatment, name) if name in Treatment.model_fields else getattr(model, name, value)
