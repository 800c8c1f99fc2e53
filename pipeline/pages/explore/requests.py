"""The requests of the page of `winnow explore`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from filters.core import Distinct, Filter, Recipe
from pipeline.errors import RecipeError
from pipeline.settings.selection import SelectionRow


class Request(BaseModel):
    """The body of a request. Unknown keys are an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class FilterRequest(Request):
    """A filter on the page."""

    name: str = Field(max_length=64)
    sql: str = Field(max_length=10_000)
    why: str = Field("", max_length=10_000)


class DistinctRequest(Request):
    """The `Distinct` at the end of the recipe on the page."""

    radius: int | float
    best_by: str = Field(max_length=10_000)
    of: str = Field("duplicates", max_length=64)


class RecipeRequest(Request):
    """A recipe on the page."""

    filters: list[FilterRequest] = Field(max_length=63)
    distinct: DistinctRequest | None = None
    selection: SelectionRow | None = None

    def recipe(self, name: str = "draft") -> Recipe:
        """The recipe. Raises RecipeError for a bad or a repeated name, or a bad radius."""
        try:
            return Recipe(
                name,
                tuple(Filter(each.name, each.sql, each.why) for each in self.filters),
                Distinct(**self.distinct.model_dump()) if self.distinct else None,
                self.selection.value() if self.selection else None,
            )
        except ValueError as error:
            raise RecipeError(str(error)) from None


class Draft(RecipeRequest):
    """The recipe on the page, and the recipe that it is compared with, if any."""

    other: RecipeRequest | None = None


class NamedRecipe(RecipeRequest):
    """A recipe with the name that it is published or copied under."""

    name: str = Field(max_length=64)


class PairsRequest(Draft):
    """Which pairs to show."""

    show: Literal["all", "kept", "dropped", "edge", "only_this", "only_other"]
    edge: str = Field("", max_length=64, description="the filter whose threshold the pairs are near")
    text: str = Field("", max_length=1000)
    unlabelled: bool = False
    seed: int = Field(0, ge=0, lt=2**32)
    start: int = Field(0, ge=0)


class PairRequest(Draft):
    """One pair, by its place among the downloaded pairs."""

    place: int = Field(ge=0)


class LabelRequest(Request):
    """A label of a pair, or None to remove it."""

    place: int = Field(ge=0)
    label: Literal["match", "no match", "good", "bad picture"] | None


class MapRequest(Request):
    """The map of a scorer's embeddings."""

    scorer: str = Field(max_length=64)


class ColourRequest(RecipeRequest, MapRequest):
    """What points are coloured by: kept, cluster, or a score."""

    by: str = Field(max_length=256)


class SimilarRequest(RecipeRequest, MapRequest):
    """The pairs that are like this one."""

    place: int = Field(ge=0)


class RegionRequest(RecipeRequest, MapRequest):
    """Pairs of a map that a person drew around, by their places."""

    places: list[int] = Field(max_length=500_000)


class NearRequest(RegionRequest):
    """The same with a name, to make a filter of it."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,24}$")
