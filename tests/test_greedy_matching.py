"""Greedy matching of a target set on arrays: the lazy choice, and what it matches."""

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.neighbours import soft_assignment
from pipeline.neighbours.soft_assignment import Assigned
from pipeline.selection import matching

Floats = npt.NDArray[np.float64]


def silent(done: int, total: int) -> None:
    pass


def gain_of(sums: Floats, more: Floats, shares: Floats) -> float:
    return float((shares * (np.log1p(sums + more) - np.log1p(sums))).sum())


def dense(found: Assigned, count: int) -> Floats:
    full = np.zeros((len(found.values), count))
    np.put_along_axis(full, found.numbers, found.values, axis=1)
    return full


def scaled(full: Floats, shares: Floats, budget: int) -> Floats:
    """Features in units of a tenth of what each should add up to."""
    mass = np.sort(full.sum(axis=1))[len(full) - budget :].mean()
    return full / (0.1 * budget * mass * shares)


def plain_greedy(full: Floats, shares: Floats, budget: int) -> list[int]:
    """Every gain of every row, computed again after every choice."""
    full, sums, chosen = scaled(full, shares, budget), np.zeros(len(shares)), list[int]()
    for _ in range(budget):
        gains = [-np.inf if row in chosen else gain_of(sums, values, shares) for row, values in enumerate(full)]
        chosen.append(int(np.argmax(gains)))
        sums = sums + full[chosen[-1]]
    return chosen


def random_features(rows: int, count: int, seed: int) -> Assigned:
    rng = np.random.default_rng(seed)
    numbers = np.sort(np.array([rng.choice(count, 3, replace=False) for _ in range(rows)]), axis=1)
    return Assigned(numbers, rng.exponential(size=(rows, 3)) ** 3)


@pytest.mark.parametrize("blocks", [(1000,), (7, 3), (1, 1), (30, 8)])
def test_the_lazy_choice_is_the_greedy_choice(blocks: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "BLOCKS", blocks)
    found, shares = random_features(60, 10, 1), np.random.default_rng(2).dirichlet(np.ones(10))
    assert matching.choose(found, shares, 25, silent).tolist() == plain_greedy(dense(found, 10), shares, 25)


def test_every_row_is_chosen_once(monkeypatch):
    monkeypatch.setattr(matching, "BLOCKS", (30, 8))
    found, shares = random_features(60, 10, 1), np.full(10, 0.1)
    chosen = matching.choose(found, shares, 60, silent).tolist()
    assert sorted(chosen) == list(range(60))
    assert chosen == plain_greedy(dense(found, 10), shares, 60)


def test_the_choice_is_within_the_bound_of_the_best() -> None:
    """Nemhauser et al. 1978: at least 1 - 1/e of the best set's value. All sets of 3 of 12 rows are tried."""
    from itertools import combinations

    found, shares = random_features(12, 5, 3), np.random.default_rng(4).dirichlet(np.ones(5))
    full = scaled(dense(found, 5), shares, 3)

    def value(rows: tuple[int, ...]) -> float:
        return gain_of(np.zeros(5), full[list(rows)].sum(axis=0), shares)

    best = max(value(rows) for rows in combinations(range(12), 3))
    assert best >= value(tuple(matching.choose(found, shares, 3, silent).tolist())) >= (1 - 1 / np.e) * best


def test_the_target_is_matched_and_not_only_approached() -> None:
    """Two kinds are wanted 3 : 1. Those of the first are fewer and nearer than those of the second; one kind is far."""
    rng = np.random.default_rng(0)
    kinds = np.eye(48, dtype=np.float32)[:3]

    def pictures(kind: int, count: int, spread: float) -> npt.NDArray[np.float16]:
        made = kinds[kind] + spread * rng.normal(size=(count, 48)) / 48**0.5
        return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float16)

    pool = np.concatenate([pictures(0, 300, 0.9), pictures(1, 300, 0.6), pictures(2, 600, 0.6)])
    kind = np.repeat([0, 1, 2], [300, 300, 600])
    target = np.concatenate([pictures(0, 30, 0.6), pictures(1, 10, 0.6)]).astype(np.float32)
    shares = soft_assignment.assign(target, kinds[:2], 0.1).sums(2)
    shares /= shares.sum()
    chosen = matching.choose(soft_assignment.assign(pool, kinds[:2], 0.1), shares, 200, silent)
    counts = np.bincount(kind[chosen], minlength=3)
    assert counts[2] == 0  # a random choice has 100 of the kind that is not wanted
    near = np.argsort(-(pool.astype(np.float32) @ kinds[:2].T).max(axis=1))[:200]
    assert abs(counts[0] / 200 - 0.75) < 0.1 < abs(np.bincount(kind[near])[0] / 200 - 0.75)


def test_features_are_those_of_the_nearest_centroids() -> None:
    centroids = np.eye(12, dtype=np.float32)
    row = np.sqrt(np.arange(1, 13, dtype=np.float32) / 78)[None]
    found = soft_assignment.assign(row, centroids, 0.5)
    assert found.numbers.tolist() == [list(range(4, 12))]
    assert found.values[0] == pytest.approx(np.exp((row[0, 4:] - 1) / 0.5))
    assert found.sums(12)[:4].tolist() == [0, 0, 0, 0]


def test_limits_of_the_budget() -> None:
    found, shares = random_features(9, 4, 5), np.full(4, 0.25)
    assert sorted(matching.choose(found, shares, 50, silent).tolist()) == list(range(9))
    assert len(matching.choose(found, shares, 0, silent)) == 0
    empty = Assigned(np.zeros((0, 3), np.int64), np.zeros((0, 3)))
    assert len(matching.choose(empty, shares, 5, silent)) == 0
    nothing = Assigned(np.zeros((4, 1), np.int64), np.zeros((4, 1)))
    assert sorted(matching.choose(nothing, shares, 2, silent).tolist()) == [0, 1]
