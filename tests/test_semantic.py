"""Semantic duplicates: neighbours by cosine, `distinct` over them, and SemDeDup's rule."""

import numpy as np
import published_sources
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from filters import catalog
from filters.core import Distinct, Recipe
from pipeline.errors import RecipeError, SourceError
from pipeline.filtering import distinct
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours import cosine
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage

SEMANTIC = '[scorers.semantic]\nkind = "semantic"\nof = "recorded"\nradius = 0.1\n'


def ring(degrees):
    """Unit vectors in a plane, as float16 [n, 4]."""
    radians = np.radians(np.asarray(degrees, float))
    return np.stack([np.cos(radians), np.sin(radians), 0 * radians, 0 * radians], axis=1).astype(np.float16)


def apart(degrees):
    return 1 - np.cos(np.radians(degrees))


def exact(vectors, radius):
    wide = cosine.normalize(vectors).astype(np.float64)
    low, high = np.nonzero(np.triu(1 - wide @ wide.T <= radius, 1))
    return {*zip(low.tolist(), high.tolist(), strict=True)}


def photographs(count, dim=32, seed=0):
    """Unit vectors around some topics, a quarter of them near copies of others, up to 0.1 from these."""
    random = np.random.default_rng(seed)
    topics = random.normal(size=(count // 40 + 1, dim))
    made_ = topics[random.integers(len(topics), size=count)] + 0.6 * random.normal(size=(count, dim))
    copies = random.permutation(count)[: count // 4]
    made_[copies] = made_[random.integers(count, size=len(copies))]
    made_ /= np.linalg.norm(made_, axis=1, keepdims=True)
    away = random.normal(size=(len(copies), dim)) / np.sqrt(dim) * random.uniform(0, 0.45, (len(copies), 1))
    made_[copies] += away
    return (made_ / np.linalg.norm(made_, axis=1, keepdims=True)).astype(np.float16)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_who_goes_is_near_somebody_before_who_stays(data):
    """For any rows and any neighbours: just the greedy choice, so that no chain loses an end without a neighbour."""
    pictures = data.draw(st.lists(st.integers(0, 11), max_size=30))
    edges = data.draw(st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)).filter(lambda e: e[0] < e[1])))
    near = edges | {(high, low) for low, high in edges} | {(each, each) for each in pictures}
    low, high = (np.array([edge[end] for edge in sorted(edges)], np.uint64) for end in (0, 1))
    gone = distinct.has_better_neighbour(np.array(pictures, np.uint64), low, high)
    kept = []
    for picture, goes in zip(pictures, gone, strict=True):
        assert goes == any((picture, other) in near for other in kept)
        kept += [] if goes else [picture]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 359), min_size=1, max_size=40), st.integers(1, 4), st.floats(0.01, 0.5))
def test_pairs_are_neighbours_and_of_one_cluster_none_is_missed(degrees, clusters, radius):
    vectors = ring(degrees)
    found = cosine.within(vectors, radius, clusters)
    pairs = {*zip(found.low.tolist(), found.high.tolist(), strict=True)}
    loose, strict = exact(vectors, radius + 1e-5), exact(vectors, radius - 1e-5)
    assert pairs <= loose
    own = {(low, high) for low, high in strict if found.cluster[low] == found.cluster[high]}
    assert own <= pairs
    wide = cosine.normalize(vectors)
    places = found.low.astype(int), found.high.astype(int)
    np.testing.assert_allclose(found.distance, np.maximum(1 - (wide[places[0]] * wide[places[1]]).sum(1), 0), atol=1e-6)
    for cluster in range(clusters):
        members = np.flatnonzero(found.cluster == cluster)
        order = members[np.argsort(found.centrality[members], kind="stable")]
        for rank, member in enumerate(order):
            nearest = max([0, *(wide[order[:rank]] @ wide[member])])
            assert found.harder[member] == pytest.approx(1 - nearest, abs=1e-6)


def test_hardly_a_neighbour_is_missed_on_the_borders_of_clusters():
    vectors = photographs(3000)
    expected = exact(vectors, 0.05)
    found = cosine.within(vectors, 0.05, clusters=12)
    pairs = {*zip(found.low.tolist(), found.high.tolist(), strict=True)}
    assert len(expected) > 400
    assert len(expected & pairs) >= 0.98 * len(expected)
    assert not pairs - exact(vectors, 0.05 + 1e-5)
    alone = cosine.within(vectors, 0.05, clusters=1)
    assert {*zip(alone.low.tolist(), alone.high.tolist(), strict=True)} >= exact(vectors, 0.05 - 1e-5)


def test_a_crowd_is_capped_and_told(monkeypatch):
    vectors = ring(np.linspace(0, 1, 60))
    whole = cosine.within(vectors, 0.1)
    assert (whole.capped, len(whole.low)) == (0, 60 * 59 / 2)
    monkeypatch.setattr(cosine, "MOST", 5)
    fewer = cosine.within(vectors, 0.1)
    assert len(fewer.low) + fewer.capped == len(whole.low)
    assert len(fewer.low) == 55 * 5 + 4 + 3 + 2 + 1
    monkeypatch.setattr(cosine, "LARGEST", 20)
    assert cosine.within(vectors, 0.1).capped == 3 * (190 - 15 * 5 - 10) + 20 * 40 + 20 * 20


def test_no_vectors_have_no_neighbours():
    found = cosine.within(np.empty((0, 0), np.float16), 0.1)
    assert (len(found.low), len(found.cluster), found.capped) == (0, 0, 0)


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def published(folder, store, degrees, more="", **results):
    """Picture number n looks into direction `degrees[n]`; None for one that has no embedding."""
    described = published_sources.listed(
        folder, range(len(degrees)), filters=(), shard_size=4, more=more + published_sources.recorded(folder) + SEMANTIC
    )
    images = ring([0 if each is None else each for each in degrees])
    images[[number for number, each in enumerate(degrees) if each is None]] = np.nan
    ledger = published_sources.embedded(described, store, np.stack([images, images], axis=1), **results)
    pool.run(Plan.of(described), store, ledger, {})
    return publish.publish(Plan.of(described), store, ledger, {})


def ask(store, sql):
    with Manifest.open(store).connection() as con:
        return con.execute(sql).fetchall()


def test_groups_counts_and_the_nearest(tmp_path, store):
    published(tmp_path, store, [0, 20, 40, 120, 120, None, 200, 0], failed={7})
    rows = ask(
        store,
        "SELECT r.pixels_sharpness, r.semantic_count, g.pixels_sharpness, r.semantic_nearest, r.semantic_cluster "
        "FROM rows r LEFT JOIN rows g ON r.semantic_group = g.uid ORDER BY ALL",
    )
    nearest = pytest.approx(apart(20), abs=1e-3)
    chain = [(number, 3, 0, nearest, 0) for number in range(3)]
    twins = [(number, 2, 3, 0, 0) for number in (3, 4)]
    nobody = [(5, None, None, None, None), (6, 1, None, None, 0), (None,) * 5]
    assert rows == [*chain, *twins, *nobody]
    pictures = ask(store, "SELECT semantic_picture FROM rows ORDER BY pixels_sharpness")
    assert pictures == [(0,), (1,), (2,), (3,), (3,), (None,), (4,), (None,)]
    assert Manifest.open(store).card["neighbours"] == {"semantic": {"edges": 2, "capped": 0}}
    (key,) = store.root.glob("scores/semantic-*/edges.parquet")
    assert pq.read_table(key).select(["low", "high"]).to_pylist() == [{"low": 0, "high": 1}, {"low": 1, "high": 2}]


@pytest.mark.parametrize(("best_by", "left"), [("pixels_sharpness", [0, 2, 3]), ("pixels_sharpness = 1", [1, 3])])
def test_distinct_takes_semantic_neighbours_as_it_takes_hashes(tmp_path, store, best_by, left):
    end = f'[distinct]\nradius = 0.07\nbest_by = "{best_by}"\nof = "semantic"\n'
    done = published(tmp_path, store, [0, 20, 40, 120, None], end)
    assert [n for (n,) in ask(store, "SELECT pixels_sharpness FROM rows WHERE kept")] == left
    assert (done.counts.dropped, done.counts.unscored) == (5 - len(left), 1)
    manifest = Manifest.open(store)
    assert manifest.select(manifest.recipe) == manifest.select()
    narrower = Recipe("narrower", distinct=Distinct(0.01, best_by, "semantic"))
    assert len(manifest.select(narrower)) == 4
    with pytest.raises(RecipeError, match="distinct.radius is 0.2, and neighbours were looked for up to 0.1"):
        manifest.select(Recipe("wider", distinct=Distinct(0.2, best_by, "semantic")))
    with pytest.raises(RecipeError, match="no scorer 'duplicates' says .*; there is semantic"):
        manifest.select(Recipe("other", distinct=Distinct(2, best_by)))


def test_semdedup_keeps_the_least_central_and_loses_both_ends_of_a_chain(tmp_path, store):
    """All are one cluster, whose centre is at about 40 degrees; steps of 15 degrees are 0.034 apart."""
    published(tmp_path, store, [0, 15, 30, 60, 100, None])
    kept = Manifest.open(store).select(catalog.recipes()["semdedup"])["uid"].to_pylist()
    rows = ask(store, "SELECT uid, pixels_sharpness, semantic_harder FROM rows ORDER BY semantic_centrality")
    assert [n for uid, n, _ in rows if uid in kept] == [
        4,
        0,
        3,
    ]  # 15 degrees goes for 0, and 30 for 15, which goes itself
    assert rows[2][2] == pytest.approx(apart(15), abs=1e-3)
    greedy = Manifest.open(store).select(Recipe("greedy", distinct=Distinct(0.05, "-semantic_centrality", "semantic")))
    assert len(greedy) == 4


def test_pairs_that_are_equal_in_a_column(tmp_path, store):
    """Exact duplicates, of bytes or of anything else that a column says."""
    again = [("the same", "http://host/3.jpg"), ("another", "http://host/5.jpg")]
    described = published_sources.listed(tmp_path, [3, 4, 5], filters=(), rows=again)
    published_sources.published(described, store, failed={5})
    manifest = Manifest.open(store)
    bytes_, pixels = (Recipe(of, distinct=Distinct(0, "length(caption)", of)) for of in ("sha256", "pixels_digest"))
    kept = manifest.select(pixels)
    assert ask(store, f"SELECT caption FROM rows WHERE uid IN {tuple(kept['uid'].to_pylist())}") == [
        ("picture number 3",),
        ("picture number 4",),
    ]
    assert [each.kept for each in manifest.compare([bytes_, pixels]).funnels] == [2, 2]
    assert manifest.select(bytes_) == kept
    with pytest.raises(RecipeError, match="distinct.radius is 2, and sha256 is a column: set radius = 0"):
        manifest.select(Recipe("end", distinct=Distinct(2, "width", "sha256")))


def test_semantic_duplicates_need_embeddings(tmp_path, store):
    described = published_sources.listed(tmp_path, range(3), more=SEMANTIC.replace("recorded", "captions"))
    with pytest.raises(SourceError, match="scorers.semantic: 'captions' stores no embeddings"):
        published_sources.published(described, store)
