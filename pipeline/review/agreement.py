"""How far two labellers agree: Cohen's kappa with its interval, and the pairs that they disagree on."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.review.rates import Rate
from pipeline.review.sample import LABEL, LABELLER, Labelled

_Z = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""


@dataclass(frozen=True)
class Kappa:
    """Cohen's kappa, -1 to 1, with a 95 % interval.

    All are None where both labellers gave all pairs one and the same label, because chance alone agrees then, too. The
    interval is None where they never disagree: its formula gives no width, whatever the number of pairs.
    """

    value: float | None
    low: float | None
    high: float | None

    @classmethod
    def of(cls, labels: Sequence[tuple[str, str]]) -> "Kappa":
        """Of the labels that two labellers gave the same pairs.

        Cohen (1960), A coefficient of agreement for nominal scales. The interval is normal, cut at -1 and 1, with the
        large-sample variance of Fleiss, Cohen and Everitt (1969), Large sample standard errors of kappa and weighted
        kappa.
        """
        count = len(labels)
        shares = {pair: number / count for pair, number in Counter(labels).items()}
        first, second = (
            {word: number / count for word, number in Counter(pair[side] for pair in labels).items()} for side in (0, 1)
        )
        words = sorted({*first, *second})
        observed = math.fsum(shares.get((word, word), 0.0) for word in words)
        expected = math.fsum(first.get(word, 0.0) * second.get(word, 0.0) for word in words)
        if len(words) == 1:
            return cls(None, None, None)
        kappa = (observed - expected) / (1 - expected)
        if all(one == other for one, other in labels):
            return cls(kappa, None, None)
        same = math.fsum(
            shares.get((word, word), 0.0) * (1 - (first.get(word, 0.0) + second.get(word, 0.0)) * (1 - kappa)) ** 2
            for word in words
        )
        other = (1 - kappa) ** 2 * math.fsum(
            share * (second.get(one, 0.0) + first.get(two, 0.0)) ** 2
            for (one, two), share in shares.items()
            if one != two
        )
        variance = same + other - (kappa - expected * (1 - kappa)) ** 2
        error = _Z * math.sqrt(max(variance, 0.0) / count) / (1 - expected)
        return cls(kappa, max(kappa - error, -1.0), min(kappa + error, 1.0))


@dataclass(frozen=True)
class Disagreement:
    """A pair with another label from each of two labellers."""

    uid: str
    url: str
    caption: str
    labels: tuple[str, str]


@dataclass(frozen=True)
class Agreement:
    """Two labellers: the pairs that both labelled, the share of equal labels, kappa, and the pairs with other labels.

    `agreed` is a 95 % Wilson interval. `remark` says why there is no kappa, or no interval.
    """

    labellers: tuple[str, str]
    pairs: int
    agreed: Rate
    kappa: Kappa
    disagreements: tuple[Disagreement, ...]
    remark: str | None = None


def of(known: Labelled) -> list[Agreement]:
    """The agreement of each two labellers of a sample, the two with most pairs in common first. Empty for one alone."""
    given: dict[str, dict[str, Mapping[str, str]]] = {}
    for vote in known.votes.to_pylist():
        given.setdefault(vote[LABELLER], {})[vote["uid"]] = vote
    found = [_between((one, two), given[one], given[two]) for one, two in itertools.combinations(sorted(given), 2)]
    return sorted(found, key=lambda each: -each.pairs)


def _between(
    labellers: tuple[str, str], one: Mapping[str, Mapping[str, str]], two: Mapping[str, Mapping[str, str]]
) -> Agreement:
    labels = {uid: (vote[LABEL], two[uid][LABEL]) for uid, vote in one.items() if uid in two}
    others = tuple(
        Disagreement(uid, one[uid]["url"], one[uid]["caption"], pair)
        for uid, pair in labels.items()
        if len({*pair}) > 1
    )
    agreed = Rate.count(len(labels) - len(others), len(labels))
    if not labels:
        return Agreement(labellers, 0, agreed, Kappa(None, None, None), (), "they labelled no pair in common")
    kappa = Kappa.of(list(labels.values()))
    remark = None
    if kappa.value is None:
        (word,) = {*itertools.chain(*labels.values())}
        remark = f"kappa is undefined: both gave every pair the label {word!r}"
    elif kappa.low is None:
        remark = "they never disagree, so kappa has no interval"
    return Agreement(labellers, len(labels), agreed, kappa, others, remark)
