"""Density-based pruning on arrays: quotas, complexity, and which rows a cluster keeps."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

from pipeline.selection import density, quotas

Floats = npt.NDArray[np.float32]


def silent(done: int, total: int) -> None:
    pass


def around(centre: Floats, count: int, spread: float, seed: int) -> npt.NDArray[np.float16]:
    """Unit vectors around a centre, with noise of this length."""
    noise = np.random.default_rng(seed).normal(size=(count, len(centre)))
    found = centre + spread * noise / len(centre) ** 0.5
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def shuffled(*parts: npt.NDArray[np.float16]) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int64]]:
    """The rows of all parts in a random order, and the part of each."""
    part = np.repeat(np.arange(len(parts)), [len(each) for each in parts])
    order = np.random.default_rng(1).permutation(len(part))
    return np.concatenate(parts)[order], part[order]


@pytest.mark.parametrize("seed", range(5))
def test_quotas_solve_the_quadratic_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, 12).astype(np.int64)
    total = int(sizes.sum() * 0.4)
    wanted = total * rng.dirichlet(np.full(12, 0.5))
    found = quotas.nearest(wanted, np.ones(12), sizes.astype(np.float64), total)
    assert found.sum() == pytest.approx(total)
    assert (found >= 1).all()
    assert (found <= sizes).all()
    solved = minimize(
        lambda quota: ((quota - wanted) ** 2).sum(),
        np.clip(wanted, 1, sizes),
        jac=lambda quota: 2 * (quota - wanted),
        bounds=[(1, int(size)) for size in sizes],
        constraints={"type": "eq", "fun": lambda quota: quota.sum() - total, "jac": lambda quota: np.ones(12)},
        options={"ftol": 1e-12},
    )
    assert ((found - wanted) ** 2).sum() == pytest.approx(solved.fun, rel=1e-6)
    whole = quotas.allot(wanted, sizes, total)
    assert whole.sum() == total
    assert (np.abs(whole - found) < 1).all()
    assert (whole <= sizes).all()


def test_quotas_at_their_limits() -> None:
    sizes = np.array([2, 3, 5])
    assert quotas.allot(np.array([9.0, 0.5, 0.5]), sizes, 10).tolist() == [2, 3, 5]
    assert quotas.allot(np.array([9.0, 0.5, 0.5]), sizes, 99).tolist() == [2, 3, 5]
    assert quotas.allot(np.array([2.5, 0.25, 0.25]), sizes, 3).tolist() == [1, 1, 1]
    assert quotas.allot(np.array([0.0, 0.0, 2.0]), sizes, 2).tolist() == [0, 0, 2]
    assert quotas.allot(np.array([4.0, 0.0, 0.0]), sizes, 4).tolist() == [2, 1, 1]


def test_complexity_is_the_product_of_the_mean_distances() -> None:
    """Worked out by hand: three clusters of two rows in the plane, 90 degrees and 180 degrees apart."""
    centroids = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    found = density.Clusters(np.array([0, 1, 2, 0, 1, 2]), np.array([0.1, 0.2, 0, 0.3, 0.2, 0], np.float32), centroids)
    assert density.complexity(found) == pytest.approx([0.2 * 1.5, 0.2 * 1, 0])


def test_a_cluster_keeps_its_farthest_rows() -> None:
    distance = np.array([0.1, 0.5, 0.3, 0.9, 0.3, 0.2], np.float32)
    found = density.Clusters(np.array([0, 0, 0, 1, 0, 1]), distance, np.eye(2, dtype=np.float32))
    assert density.farthest(found, np.array([2, 1])).tolist() == [1, 2, 3]  # of the equal 2 and 4 the first
    assert density.farthest(found, np.array([0, 2])).tolist() == [3, 5]


def test_planted_near_copies_are_kept_less_than_varied_pictures() -> None:
    centres = np.eye(64, dtype=np.float32)[:6]
    copies = [around(each, 400, 0.05, number) for number, each in enumerate(centres[:3])]
    varied = [around(each, 400, 1.0, number) for number, each in enumerate(centres[3:], 3)]
    vectors, part = shuffled(*copies, *varied)
    kept = density.prune(vectors, 600, 6, 0.1, silent)
    assert len(kept) == len(set(kept.tolist())) == 600
    of_copies = int((part[kept] < 3).sum())
    assert of_copies < 200  # a random choice keeps 300
    even = density.prune(vectors, 600, 6, 1000.0, silent)
    assert abs(int((part[even] < 3).sum()) - 300) < 60  # a high temperature wants the same of every cluster


def test_every_cluster_keeps_a_row_and_a_full_budget_keeps_all() -> None:
    centres = np.eye(64, dtype=np.float32)
    vectors, part = shuffled(around(centres[0], 1000, 0.01, 0), around(centres[1], 1000, 1.0, 1))
    kept = density.prune(vectors, 50, 2, 0.001, silent)
    assert set(part[kept].tolist()) == {0, 1}
    assert density.prune(vectors, 2000, 2, 0.1, silent).tolist() == list(range(2000))
    assert len(density.prune(vectors[:0], 10, 2, 0.1, silent)) == 0


def test_a_pool_smaller_than_a_cluster_is_one_cluster() -> None:
    vectors = around(np.eye(16, dtype=np.float32)[0], 30, 1.0, 0)
    found = density.cluster(vectors, 500, silent)
    assert len(found.centroids) == 1
    kept = density.prune(vectors, 10, 500, 0.1, silent)
    assert sorted(kept) == sorted(np.argsort(-found.distance, kind="stable")[:10])


def test_the_same_rows_give_the_same_choice() -> None:
    vectors, _ = shuffled(*(around(each, 200, 0.7, 9) for each in np.eye(32, dtype=np.float32)[:5]))
    once, again = (density.prune(vectors, 333, 5, 0.1, silent) for _ in range(2))
    assert once.tolist() == again.tolist()
