"""The last step of a recipe, which chooses a set of the pairs that pass every filter and `Distinct`.

A filter judges each pair by itself. A selection sees all remaining pairs at once. These are values: the algorithms are
in `pipeline/selection/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

Unit = Literal["pool", "survivors", "samples"]
"""What a budget counts: times the downloaded pairs, times the pairs that are left to choose from, or samples."""


@dataclass(frozen=True, kw_only=True)
class Budgeted:
    """What every selection has: its size. `budget` is a number of `unit`.

    Raises ValueError for a budget that is not above 0, or is less than one sample.
    """

    budget: float
    unit: Unit = "pool"

    kind: ClassVar[str]
    """Its `kind` in a source file and in a manifest."""

    repeats: ClassVar[bool] = False
    """Whether it may keep a pair more than once."""

    def __post_init__(self) -> None:
        if self.unit not in ("pool", "survivors", "samples"):
            raise ValueError(f'selection: unit is "pool", "survivors" or "samples", not {self.unit!r}')
        if not 0 < self.budget < 2**53:
            raise ValueError(f"selection: the budget must be above 0, not {self.budget:g}")
        if self.unit == "samples" and (self.budget < 1 or self.budget != int(self.budget)):
            raise ValueError(
                f"selection: a budget of samples is a whole number of at least 1, not {self.budget:g}; for a share, "
                'set unit = "pool" or unit = "survivors"'
            )

    def samples(self, pool: int, survivors: int) -> int:
        """The budget in samples, at least 1, of so many downloaded pairs and pairs to choose from."""
        of = {"pool": pool, "survivors": survivors, "samples": 1}[self.unit]
        return max(round(self.budget * of), 1)

    @property
    def values(self) -> Mapping[str, str]:
        """By key of the source file the SQL of the numbers that it needs of each pair, over the columns of `rows`."""
        return {}

    @property
    def embeddings(self) -> str | None:
        """The scorer whose stored embeddings it needs, if any."""
        return None

    @property
    def features(self) -> str | None:
        """The scorer of kind target_features that it needs, if any."""
        return None

    @property
    def described(self) -> str:
        """The step in a line, for a funnel. It cannot be executed."""
        raise NotImplementedError

    @property
    def why(self) -> str:
        """A sentence that tells a person why a pair was dropped."""
        raise NotImplementedError

    @property
    def size(self) -> str:
        """The budget in words."""
        if self.unit == "samples":
            return f"{self.budget:,.0f} samples"
        return f"{self.budget:g} x the {'downloaded pairs' if self.unit == 'pool' else 'pairs that are left'}"


@dataclass(frozen=True, kw_only=True)
class SoftCap(Budgeted):
    """Draw samples by score, so that a good pair is kept several times, and a poor one rarely.

    Soft cap sampling, as M-FLYT does it (Shechter and Carmon 2025, arXiv 2503.08805). A batch is drawn from all pairs
    without replacement, with probabilities softmax(score / temperature). Then `penalty` is subtracted from the scores
    of the pairs that were drawn, and the next batch is drawn from all pairs again, until there are `budget` samples.
    A pair whose score is higher by n penalties is kept about n times more often.

    `by` is SQL for the score, a number. `batch` is the number of samples that are drawn before the penalty is
    subtracted; None takes the published share, 1/1280 of the budget. The paper's scores are logits, for which a
    temperature of 1 is right; for a cosine, divide by a hundredth. A pair without a score is never drawn.
    Raises ValueError for a bad budget, and for a temperature, a penalty or a batch that is not above 0.
    """

    by: str
    penalty: float
    budget: float = 1.0
    temperature: float = 1.0
    batch: int | None = None

    kind: ClassVar[str] = "soft_cap"
    repeats: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.by.strip():
            raise ValueError("selection: by has no sql")
        for name, value in (("temperature", self.temperature), ("penalty", self.penalty), ("batch", self.batch)):
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"selection: the {name} must be above 0, not {value:g}")

    @property
    def values(self) -> Mapping[str, str]:
        """The score."""
        return {"by": self.by}

    @property
    def described(self) -> str:
        """The step in a line, for a funnel. It cannot be executed."""
        batch = f", {self.batch:,} at a time" if self.batch else ""
        return f"soft cap by {self.by}, temperature {self.temperature:g}, penalty {self.penalty:g}, {self.size}{batch}"

    @property
    def why(self) -> str:
        """A sentence that tells a person why a pair was dropped."""
        return "drawn by its score, more than once if it is high"


@dataclass(frozen=True, kw_only=True)
class DensityPruning(Budgeted):
    """Keep fewer of the pictures that many others resemble, and of each kind those that are least typical.

    Density-based pruning (Abbas et al. 2024, arXiv 2401.04578). k-means over the image embeddings of the scorer `of`; a
    cluster keeps more pairs if its pictures are far from its centroid and its centroid is far from others, as a softmax
    with `temperature` says, and of these pairs the farthest from the centroid. `clusters` is the most; one has at least
    100 pairs on average. A pair without an embedding is not kept.
    Raises ValueError for a bad budget, for no clusters, and for a temperature that is not above 0.
    """

    of: str = "clip"
    clusters: int = 500
    temperature: float = 0.1

    kind: ClassVar[str] = "density"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters < 1:
            raise ValueError(f"selection: there must be at least 1 cluster, not {self.clusters}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"selection: the temperature must be above 0, not {self.temperature:g}")

    @property
    def embeddings(self) -> str | None:
        """The scorer `of`."""
        return self.of

    @property
    def described(self) -> str:
        """The step in a line, for a funnel. It cannot be executed."""
        return f"density of {self.of}, {self.clusters:,} clusters, temperature {self.temperature:g}, {self.size}"

    @property
    def why(self) -> str:
        """A sentence that tells a person why a pair was dropped."""
        return "fewer pictures of dense clusters, and of each the least typical"


@dataclass(frozen=True, kw_only=True)
class Matching(Budgeted):
    """Choose the pairs whose pictures, together, are distributed like a target set.

    Greedy choice by a submodular objective (`pipeline.selection.matching`). `of` names a scorer of kind
    target_features, which has the target set. A pair without an embedding is not kept. Raises ValueError for a bad
    budget.
    """

    of: str = "target_features"

    kind: ClassVar[str] = "matching"

    @property
    def features(self) -> str | None:
        """The scorer `of`."""
        return self.of

    @property
    def described(self) -> str:
        """The step in a line, for a funnel. It cannot be executed."""
        return f"matching of {self.of}, {self.size}"

    @property
    def why(self) -> str:
        """A sentence that tells a person why a pair was dropped."""
        return "the pictures that are most like the target set, in the target's proportions"


Selection = SoftCap | DensityPruning | Matching
"""Every kind of selection."""

SELECTIONS: Mapping[str, type[Selection]] = {each.kind: each for each in (SoftCap, DensityPruning, Matching)}
"""By `kind`."""
