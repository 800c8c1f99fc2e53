"""A share of a labelled sample, with its interval."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Rate:
    """`hits` of `of`, as a share with its 95 % Wilson interval; None of nothing."""

    hits: int
    of: int
    share: float | None
    low: float | None
    high: float | None

    @classmethod
    def count(cls, hits: int, of: int) -> Self:
        """The share and its interval."""
        from scipy.stats import binomtest

        if not of:
            return cls(hits, of, None, None, None)
        interval = binomtest(hits, of).proportion_ci(0.95, "wilson")
        return cls(hits, of, hits / of, float(interval.low), float(interval.high))
