"""The table `[selection]`: chooses a set of the pairs that pass the filters and `[distinct]`."""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from filters.selections import DensityPruning, Matching, Selection, SoftCap, Unit
from pipeline.settings.fields import Table


class BudgetedRow(Table):
    """What every selection has."""

    makes: ClassVar[Callable[..., Selection]]
    unit: Unit = Field("pool", description="times the downloaded pairs, times the survivors, or samples")

    def value(self) -> Selection:
        """The selection of a recipe. Raises ValueError for a bad budget.

        Also for one of more than all pairs where none is kept more than once. Such a manifest can still be read.
        """
        made = type(self).makes(**self.model_dump(exclude={"kind"}))
        if made.budget > 1 and made.unit != "samples" and not made.repeats:
            raise ValueError(
                f"selection: the budget is {made.budget:g} times the pairs, and kind {made.kind} keeps none more than "
                'once: set at most 1, or a number of pairs and unit = "samples"'
            )
        return made


class SoftCapRow(BudgetedRow):
    """Soft cap sampling: draws samples by score, so that a good pair is kept several times."""

    makes = SoftCap
    kind: Literal["soft_cap"]
    by: str = Field(description="SQL over the columns of rows; pairs with a higher value are drawn more often")
    penalty: float = Field(gt=0, description="subtracted from the score of a pair each time that it is drawn")
    budget: float = Field(1.0, gt=0, description="samples to draw, in the unit")
    temperature: float = Field(1.0, gt=0, description="the probabilities are softmax(score / temperature)")
    batch: int | None = Field(None, ge=1, description="samples between penalties; unset, 1/1280 of the budget")


class DensityRow(BudgetedRow):
    """Density-based pruning: keeps fewer pairs of dense clusters, and of each those that are least typical."""

    makes = DensityPruning
    kind: Literal["density"]
    budget: float = Field(gt=0, description="pairs to keep, in the unit")
    of: str = Field("clip", description="the scorer whose image embeddings are clustered")
    clusters: int = Field(500, ge=1, description="at most; a cluster has at least 100 pairs on average")
    temperature: float = Field(0.1, gt=0, description="of the softmax; higher: the same number of every cluster")


class MatchingRow(BudgetedRow):
    """Greedy matching: chooses the pairs whose pictures, together, are distributed like a target set."""

    makes = Matching
    kind: Literal["matching"]
    budget: float = Field(gt=0, description="pairs to keep, in the unit")
    of: str = Field("target_features", description="the scorer of kind target_features that has the target set")


SelectionRow = Annotated[SoftCapRow | DensityRow | MatchingRow, Field(discriminator="kind")]
