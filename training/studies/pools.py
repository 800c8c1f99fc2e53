"""Differences over new pools: an interval that holds the chance of the pool, where a source can draw pools anew.

The interval of one gain is about one pool. Another pool of the same kind gives another difference, and repeating seeds
does not show by how much. Here each pool is one observation, and the interval is Student's t over their differences.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import t as student

from training.measures.intervals import LEVEL

MIN_POOLS = 3
"""With two, the interval is 13 times as wide as the spread between them."""


def summarize(gains: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The differences of the gains of several pools, `MIN_POOLS` or more, by learner and by name, as JSON.

    Each has its mean over pools (`difference`), `low` and `high`, whether 0 is outside of them (`clear`), and the
    differences of the single pools (`pools`), in order. Raises ValueError for fewer pools.
    """
    if len(gains) < MIN_POOLS:
        raise ValueError(f"an interval over pools needs {MIN_POOLS} or more, not {len(gains)}")
    learners = []
    for number, learner in enumerate(gains[0]["learners"]):
        by_name: dict[str, list[float]] = {each["name"]: [] for each in learner["differences"]}
        for gain in gains:
            for each in gain["learners"][number]["differences"]:
                by_name[each["name"]].append(each["difference"])
        learners.append({"name": learner["name"], "differences": [_over(*each) for each in by_name.items()]})
    return {
        "manifests": [gain["manifest"] for gain in gains],
        "metric": gains[0]["metrics"][0][1],
        "seeds": gains[0]["budget"]["seeds"],
        "interval": f"{LEVEL:.0%}, Student's t over {len(gains)} pools, each drawn anew",
        "learners": learners,
    }


def _over(name: str, differences: Sequence[float]) -> dict[str, Any]:
    mean, count = float(np.mean(differences)), len(differences)
    half = float(student.ppf((1 + LEVEL) / 2, count - 1) * np.std(differences, ddof=1) / count**0.5)
    low, high = mean - half, mean + half
    return {
        "name": name,
        "difference": mean,
        "low": low,
        "high": high,
        "clear": low > 0 or high < 0,
        "pools": list(differences),
    }
