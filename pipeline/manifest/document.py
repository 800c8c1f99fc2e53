"""The manifest document: the JSON object of a publication. Its digest is the manifest's id."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

from filters.core import Distinct, Filter, Recipe
from filters.selections import SELECTIONS, Selection
from pipeline.errors import StorageError
from pipeline.filtering.distinct import Neighbours
from pipeline.store.digests import canonical_json, digest
from pipeline.store.parquet import Rows


@dataclass(frozen=True)
class Counts:
    """The number of rows of the source's list by outcome: input = repeated + kept + dropped + failed + quarantined.

    `unscored` rows are the `dropped` rows for which a filter had no answer. Raises StorageError if a row is missing.
    """

    input: int
    repeated: int
    kept: int
    dropped: int
    unscored: int
    failed: int
    quarantined: int

    def __post_init__(self) -> None:
        total = self.repeated + self.kept + self.dropped + self.failed + self.quarantined
        if total != self.input or not 0 <= self.unscored <= self.dropped:
            raise StorageError(
                f"{self.input} rows were read and {total} are accounted for ({asdict(self)}): report this"
            )

    @property
    def pool(self) -> int:
        """The number of downloaded pairs, from which the filters select."""
        return self.kept + self.dropped


@dataclass(frozen=True)
class LedgerState:
    """The state of the ledger: a digest of the source's pairs, the rows of its list, and how many are repetitions."""

    digest: str
    input: int
    repeated: int


@dataclass(frozen=True)
class StageKeys:
    """The keys of the stages that made the rows: the download, and every scorer by its name."""

    shards: str
    scores: Mapping[str, str]


@dataclass(frozen=True)
class Inputs:
    """The inputs of a manifest. The same inputs give the same verdicts, the same counts and the same id.

    `format` is `pipeline.manifest.parts.FORMAT`, `quarantined` the numbers of shards without results, `rows` the parts
    in ledger order. `recipe` has no `why`, because sentences do not change results. `neighbours` has the edges between
    near-duplicates by scorer; it is None in a manifest of an older winnow, which stored them in another form.
    """

    format: int
    source: str
    ledger: LedgerState
    stages: StageKeys
    quarantined: tuple[int, ...]
    rows: tuple[Rows, ...]
    recipe: Recipe
    neighbours: Mapping[str, Neighbours] | None

    def under(self, recipe: Recipe) -> Self:
        """The same rows under another recipe."""
        return replace(self, recipe=without_why(recipe))

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """The inputs in a document. Other keys are ignored."""
        return cls(
            value["format"],
            value["source"],
            LedgerState(**value["ledger"]),
            StageKeys(**value["stages"]),
            tuple(value["quarantined"]),
            tuple(Rows(**each) for each in value["rows"]),
            _parse_recipe(value["recipe"]),
            _parse_neighbours(value.get("neighbours", {})),
        )

    def to_json(self) -> dict[str, Any]:
        """The reverse of `parse`: plain JSON values. The key `neighbours` is present only if there are any."""
        if self.neighbours is None:
            raise StorageError("neighbours of an older winnow cannot be written: run `winnow curate`")
        neighbours = {name: asdict(each) for name, each in self.neighbours.items()}
        return {
            "format": self.format,
            "source": self.source,
            "ledger": asdict(self.ledger),
            "stages": {"shards": self.stages.shards, "scores": dict(self.stages.scores)},
            "quarantined": list(self.quarantined),
            "rows": [asdict(each) for each in self.rows],
            "recipe": _recipe_json(self.recipe),
            **({"neighbours": neighbours} if neighbours else {}),
        }


@dataclass(frozen=True)
class Document:
    """A manifest as it is stored: its inputs, the key of the verdict file of each part, and the counts."""

    inputs: Inputs
    verdicts: tuple[str, ...]
    counts: Counts

    @cached_property
    def id(self) -> str:
        """The manifest's id: the first 32 hex digits of sha256 over the canonical JSON."""
        return digest(self._json())[:32]

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The document in these bytes."""
        value = json.loads(data)
        return cls(Inputs.parse(value), tuple(value["verdicts"]), Counts(**value["counts"]))

    def to_bytes(self) -> bytes:
        """The reverse of `parse`: canonical JSON."""
        return canonical_json(self._json())

    def _json(self) -> dict[str, Any]:
        return self.inputs.to_json() | {"verdicts": list(self.verdicts), "counts": asdict(self.counts)}


def without_why(recipe: Recipe) -> Recipe:
    """The recipe without its sentences, which do not change what it keeps."""
    return replace(recipe, filters=tuple(replace(each, why="") for each in recipe.filters))


def _parse_recipe(value: Mapping[str, Any]) -> Recipe:
    filters = tuple(Filter(each["name"], each["sql"]) for each in value["filters"])
    distinct = Distinct(**value["distinct"]) if "distinct" in value else None
    return Recipe(value["name"], filters, distinct, _parse_selection(value.get("selection")))


def _parse_selection(value: Mapping[str, Any] | None) -> Selection | None:
    if value is None:
        return None
    if value["kind"] not in SELECTIONS:
        raise StorageError(f"this winnow does not know the selection {value['kind']!r} of the manifest: update it")
    return SELECTIONS[value["kind"]](**{key: each for key, each in value.items() if key != "kind"})


def selection_json(selection: Selection) -> dict[str, Any]:
    """The kind and the settings of a selection, as plain JSON values: its table in a source file.

    A whole number is an integer, because 2 and 2.0 are one budget and must give one manifest id.
    """
    settings = {"kind": selection.kind} | asdict(selection)
    return {
        key: int(value) if isinstance(value, float) and value.is_integer() else value for key, value in settings.items()
    }


def _recipe_json(recipe: Recipe) -> dict[str, Any]:
    filters = [{"name": each.name, "sql": each.sql} for each in recipe.filters]
    return {"name": recipe.name, "filters": filters, **last_steps_json(recipe)}


def last_steps_json(recipe: Recipe) -> dict[str, Any]:
    """The steps after the filters, `distinct` and `selection`, as plain JSON values. Only those that are set."""
    distinct, selection = recipe.distinct, recipe.selection
    return {
        **({"distinct": asdict(distinct)} if distinct else {}),
        **({"selection": selection_json(selection)} if selection else {}),
    }


def _parse_neighbours(value: Mapping[str, Any]) -> dict[str, Neighbours] | None:
    try:
        return {name: Neighbours(**each) for name, each in value.items()}
    except TypeError:  # fields of another form
        return None
