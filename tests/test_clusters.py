"""Clusters of the pool's pictures: k-means against scipy's, and which pictures share one with a target."""

import numpy as np
import published_sources
import pytest
from scipy.cluster.vq import kmeans2

from pipeline.errors import ModelError, SourceError
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours import kmeans, kmeans_tree
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def crowds(seed=0):
    """Forty pictures, [40, 2, 8] with their captions: 25 lie about one direction, the others about another."""
    random = np.random.default_rng(seed)
    about = np.repeat(np.eye(8)[:2], (25, 15), axis=0)
    pictures = unit(about + random.normal(0, 0.05, (40, 8)))
    return np.stack([pictures, unit(random.normal(size=(40, 8)))], axis=1).astype(np.float16)


def clustered(folder, vectors, numbers, settings="count = 2\n", **failed):
    """By picture number its cluster, the size of that, and whether a target is in it."""
    described = published_sources.listed(
        folder,
        numbers,
        filters=(),
        more=published_sources.recorded(folder)
        + f'[scorers.clusters]\nkind = "clusters"\nof = "recorded"\ntargets = "targets.npy"\n{settings}',
    )
    storage = Storage(folder / "store")
    ledger = published_sources.embedded(described, storage, vectors, **failed)
    pool.run(Plan.of(described), storage, ledger, {})
    publish.publish(Plan.of(described), storage, ledger, {})
    with Manifest.open(storage).connection() as con:
        rows = con.execute("SELECT url, clusters_cluster, clusters_size, clusters_near_target FROM rows").fetchall()
    return {int(url.split("/")[-1].removesuffix(".jpg")): told for url, *told in rows}


def test_k_means_is_scipys():
    vectors = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    theirs, _ = kmeans2(vectors, vectors[:7].astype(np.float64), iter=kmeans.ROUNDS, minit="matrix")
    told = []
    ours = kmeans.k_means(vectors, 7, lambda *progress: told.append(progress))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert told[-1][0] == told[-1][1]
    near = kmeans.assign(vectors, ours, (ours**2).sum(axis=1) / 2)
    assert (near == np.linalg.norm(vectors[:, None] - ours, axis=2).argmin(axis=1)).all()


def test_a_centroid_of_nobody_stays_until_somebody_is_nearest():
    """Two centroids begin on one spot: in the first round all vectors are nearest to one of them."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float16)
    assert sorted(kmeans.k_means(vectors, 2, lambda *_: None).tolist()) == [[0, 1], [1, 0]]


def square_distances(vectors, centroids, cluster):
    return float(((vectors - centroids[cluster]) ** 2).sum())


@pytest.mark.parametrize("topics", [0, 300])
def test_two_levels_are_as_good_as_one(monkeypatch, topics):
    """Vectors without any structure, and around topics; 400 centroids, as plain k-means finds them and in 20 groups."""
    random = np.random.default_rng(1)
    about = random.normal(size=(topics, 16))[random.integers(0, topics, 8000)] if topics else 0
    vectors = unit(about + random.normal(size=(8000, 16)) * (0.4 if topics else 1)).astype(np.float16)
    told = []
    with monkeypatch.context() as patched:
        patched.setattr(kmeans_tree, "ONE_LEVEL", 400)
        plain = kmeans_tree.grow(vectors, 400, lambda *_: None)
    with monkeypatch.context() as patched:
        patched.setattr(kmeans_tree, "ONE_LEVEL", 399)
        tree = kmeans_tree.grow(vectors, 400, lambda *progress: told.append(progress))
    assert told[-1][0] == told[-1][1]
    assert (len(plain.ends), len(tree.ends), tree.ends[-1], tree.centroids.shape) == (1, 20, 400, (400, 16))
    exact = [kmeans.assign(vectors, each.centroids, (each.centroids**2).sum(axis=1) / 2) for each in (plain, tree)]
    ours = tree.assign(vectors, nearest=True)
    theirs = square_distances(vectors, plain.centroids, exact[0])
    assert square_distances(vectors, tree.centroids, ours) < (1.02 if topics else 1.03) * theirs
    assert (ours == exact[1]).mean() > 0.99
    assert (tree.assign(vectors) == kmeans.assign(vectors, tree.centroids)).mean() > 0.97


def test_no_group_gets_more_centroids_than_it_has_vectors():
    sizes = np.array([1, 0, 7, 100, 2])
    for count in (1, 5, 50, 109, 110):
        shares = kmeans_tree._shares(sizes, count)
        assert shares.sum() == count
        assert (shares <= sizes).all()


def test_pictures_share_a_cluster_with_a_target(tmp_path):
    """Picture 3 failed, and 30 has no embedding: 24 and 14 are left of the crowds, and the target is in the second."""
    vectors = crowds()
    vectors[30, 0] = np.nan
    np.save(tmp_path / "targets.npy", np.eye(8, dtype=np.float32)[1:2])
    found = clustered(tmp_path, vectors, range(40), failed={3})
    assert [found[number] for number in (3, 30)] == [[None] * 3] * 2
    left = {number: told for number, told in found.items() if number not in (3, 30)}
    assert {number for number, (_, _, near) in left.items() if near} == set(range(25, 40)) - {30}
    assert {(number < 25, size) for number, (_, size, _) in left.items()} == {(True, 24), (False, 14)}
    assert len({cluster for cluster, _, _ in left.values()}) == 2
    other = tmp_path / "other"
    other.mkdir()
    np.save(other / "targets.npy", np.eye(8, dtype=np.float32)[1:2])
    assert clustered(other, vectors, range(39, -1, -1), failed={3}) == found  # in whatever order the list is


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "sizes"), [("", {40}), ("count = 99\n", {1}), ("count = 2\nsample = 1\n", None)])
def test_as_many_centroids_as_fit_the_pool(tmp_path, settings, sizes):
    np.save(tmp_path / "targets.npy", np.eye(8, dtype=np.float32)[1:2])
    found = clustered(tmp_path, crowds(), range(40), settings)
    assert any(near for _, _, near in found.values())
    if sizes:
        assert {size for _, size, _ in found.values()} == sizes
    assert sum(1 / size for _, size, _ in found.values()) == pytest.approx(len({told[0] for told in found.values()}))


def test_a_pool_without_pictures_has_no_clusters(tmp_path):
    np.save(tmp_path / "targets.npy", np.eye(8, dtype=np.float32)[:1])
    found = clustered(tmp_path, crowds(), range(3), failed={0, 1, 2})
    assert list(found.values()) == [[None] * 3] * 3


@pytest.mark.parametrize(
    ("of", "targets", "error", "told"),
    [
        ("pixels", "targets.npy", SourceError, "scorers.clusters: 'pixels' stores no embeddings"),
        ("recorded", ".", ModelError, "'recorded' is of kind 'recorded' and encodes no pictures"),
        ("recorded", "narrow.npy", ModelError, "the targets have 3 numbers each, and the embeddings 8"),
    ],
)
def test_what_cannot_be_clustered(tmp_path, of, targets, error, told):
    np.save(tmp_path / "targets.npy", np.eye(8, dtype=np.float32))
    np.save(tmp_path / "narrow.npy", np.eye(3, dtype=np.float32))
    toml = f'[scorers.clusters]\nkind = "clusters"\nof = "{of}"\ntargets = "{targets}"\n'
    described = published_sources.listed(
        tmp_path, range(3), filters=(), more=published_sources.recorded(tmp_path) + toml
    )
    storage = Storage(tmp_path / "store")
    with pytest.raises(error, match=told):
        pool.run(Plan.of(described), storage, published_sources.embedded(described, storage, crowds()), {})
