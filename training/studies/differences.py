"""Differences of scores with intervals, and what can be told from them: above 0, below 0, none, or nothing."""

from typing import NamedTuple

import numpy as np

from training.measures.intervals import LEVEL, Mean

HOLDS, NOT, OPEN = "HOLDS", "DOES NOT HOLD", "CANNOT BE TOLD"

MARGIN = 0.01
"""A mean recall that differs by less is the same."""


class Difference(NamedTuple):
    """A difference of scores with its interval."""

    says: str
    point: float
    low: float
    high: float

    @classmethod
    def of(cls, says: str, better: Mean, worse: Mean) -> "Difference":
        """The first less the second."""
        low, high = np.quantile(better.resampled - worse.resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        return cls(says, better.point - worse.point, low, high)

    @property
    def above(self) -> bool:
        """Whether it is clearly positive."""
        return self.low > 0

    @property
    def below(self) -> bool:
        """Whether it is clearly negative."""
        return self.high < 0

    @property
    def none(self) -> bool:
        """Whether it is clearly too small to matter."""
        return self.low > -MARGIN and self.high < MARGIN

    def __str__(self) -> str:
        return f"{self.says} {self.point:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


Judgement = tuple[str, list[Difference]]
"""A verdict, and the differences that decide it."""


def judge_one(difference: Difference) -> Judgement:
    """Whether it is above 0, as `judge_all`."""
    return judge_all([difference])


def judge_all(differences: list[Difference]) -> Judgement:
    """Whether all are above 0: so if each is; not if one is below 0, or none."""
    if all(each.above for each in differences):
        return HOLDS, differences
    if any(each.below or each.none for each in differences):
        return NOT, differences
    return OPEN, differences
