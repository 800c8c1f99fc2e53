"""Scores that need all rows, and `distinct`. Picture n has the hash n and sharpness n (see published_sources.py)."""

import multiprocessing
import os

import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.core import Distinct, Filter, Recipe
from pipeline.errors import RecipeError, SourceError
from pipeline.filtering import distinct as end
from pipeline.manifest import publish
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours import hamming
from pipeline.scorers.edges import EDGES
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.store import duck
from pipeline.store.storage import Storage

A, B, C, FAR = 0b0000, 0b0011, 0b1111, 0b11_1111_0000_0000
"""A chain: A and B differ in 2 bits, B and C in 2, A and C in 4; nobody is near FAR."""
ALONE = 0xFF << 16

DUPLICATES = '[scorers.duplicates]\nkind = "duplicates"\nradius = 4\n'
COUNTS = '[scorers.caption_counts]\nkind = "caption_counts"\n'
BLUNT = {"name": "blunt", "sql": "pixels_sharpness < 10"}


def distinct(radius=2, best_by="pixels_sharpness"):
    return f'[distinct]\nradius = {radius}\nbest_by = "{best_by}"\n'


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def ask(store, sql):
    with Manifest.open(store).connection() as con:
        return con.execute(sql).fetchall()


def kept(store):
    return [number for (number,) in ask(store, "SELECT pixels_phash FROM rows WHERE kept")]


def brute(hashes, radius):
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= radius
    low, high = np.nonzero(np.triu(near, 1))
    return np.stack([hashes[low], hashes[high]])


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 6, 8, 12])
def test_neighbours_are_those_of_an_exact_search(radius):
    random = np.random.default_rng(radius)
    hashes = random.integers(0, 2**64, 700, dtype=np.uint64)
    copies = hashes[:300].copy()
    for _ in range(radius + 1):
        copies ^= np.uint64(1) << random.integers(0, 64, len(copies)).astype(np.uint64)
    crowd = random.integers(0, 2**10, 300, dtype=np.uint64)  # all of whose neighbours share most of their bits
    hashes = np.unique(np.concatenate([hashes, copies, crowd]))
    told = []
    edges = hamming.within(hashes, radius, lambda *progress: told.append(progress))
    assert np.array_equal(np.stack([edges.low, edges.high]), brute(hashes, radius))
    assert np.array_equal(edges.distance, np.bitwise_count(edges.low ^ edges.high))
    assert edges.capped == 0
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize("count", [0, 1])
def test_no_neighbours_of_one(count):
    assert len(hamming.within(np.arange(count, dtype=np.uint64), 6)) == 0


def test_a_crowd_is_capped_and_told():
    crowd = np.arange(2 * hamming.LONGEST, dtype=np.uint64)
    edges = hamming.within(crowd, 1)
    assert edges.capped > 0
    assert 0 < len(edges) <= len(brute(crowd, 1).T)


def test_groups_counts_and_the_nearest(tmp_path, store):
    again = [("the same picture", f"http://host/{FAR}.jpg")]
    described = published_sources.listed(
        tmp_path, [A, C, FAR, B, ALONE, ALONE + 1], filters=(), rows=again, more=DUPLICATES
    )
    published_sources.published(described, store, failed={ALONE + 1})
    rows = ask(
        store,
        "SELECT r.pixels_phash, r.duplicates_count, g.pixels_phash, r.duplicates_nearest FROM rows r LEFT JOIN rows g "
        "ON r.duplicates_group = g.uid ORDER BY ALL",
    )
    chain = [(A, 3, A, 2), (B, 3, A, 2), (C, 3, A, 2)]
    assert rows == [*chain, *[(FAR, 2, FAR, 0)] * 2, (ALONE, 1, None, None), (None, None, None, None)]
    (key,) = [key for key in keys(store, "duplicates") if key.endswith(EDGES)]
    edges = pq.read_table(store.fetch(key)).to_pylist()
    assert [tuple(edge.values()) for edge in edges] == [(A, B, 2), (A, C, 4), (B, C, 2)]
    assert Manifest.open(store).card["neighbours"] == {"duplicates": {"edges": 3, "capped": 0}}


def test_captions_are_counted_over_the_whole_pool(tmp_path, store):
    captions = ["A dog", "a  DOG ", "a dog", "a dog.", "caf\u00e9", "cafe\u0301", "gone dog", "a dog"]
    rows = [(caption, f"http://host/{number}.jpg") for number, caption in enumerate(captions)]
    described = published_sources.listed(tmp_path, [], filters=(), shard_size=3, rows=rows, more=COUNTS)
    published_sources.published(described, store, failed={6, 7})
    counted = ask(store, "SELECT caption_counts_count FROM rows")
    assert [count for (count,) in counted] == [3, 3, 3, 1, 2, 2, None, None]


@pytest.mark.parametrize(
    ("best_by", "left"),
    [
        ("pixels_sharpness", [A, C]),
        ("-pixels_sharpness", [A, C]),
        (f"pixels_phash = {B}", [B]),
        (f"CASE WHEN pixels_phash = {B} THEN 0 END", [B]),  # NULL last
    ],
)
def test_a_chain_loses_no_end_without_a_neighbour(tmp_path, store, best_by, left):
    described = published_sources.listed(tmp_path, [A, B, C, FAR], filters=(), more=DUPLICATES + distinct(2, best_by))
    done = published_sources.published(described, store)
    assert kept(store) == [*left, FAR]
    assert (done.counts.kept, done.counts.dropped) == (len(left) + 1, 3 - len(left))
    assert set(map(str, ask(store, "SELECT dropped_by FROM rows WHERE NOT kept"))) == {"(['distinct'],)"}


def test_a_representative_that_fails_a_filter_does_not_take_its_group_along(tmp_path, store):
    described = published_sources.listed(tmp_path, [A, B, C, FAR], filters=(BLUNT,), more=DUPLICATES + distinct(4))
    published_sources.published(described, store)
    assert ask(store, "SELECT pixels_phash, kept, dropped_by FROM rows") == [
        (A, False, ["distinct"]),
        (B, True, []),
        (C, False, ["blunt"]),
        (FAR, False, ["blunt"]),
    ]


def test_a_picture_without_a_hash_is_unscored(tmp_path, store):
    described = published_sources.listed(tmp_path, [A, B, C, FAR], filters=(), more=DUPLICATES + distinct(4))
    done = published_sources.published(described, store, unscored={B})
    assert (done.counts.kept, done.counts.dropped, done.counts.unscored) == (2, 2, 1)
    assert ask(store, "SELECT dropped_by, unknown FROM rows WHERE pixels_phash IS NULL") == [
        (["distinct"], ["distinct"])
    ]


def test_ties_are_settled_by_uid(tmp_path, store):
    described = published_sources.listed(
        tmp_path, [A, B, C, FAR], filters=(), more=DUPLICATES + distinct(4, "NULL::INTEGER")
    )
    published_sources.published(described, store)
    chain = ask(store, f"SELECT uid, kept FROM rows WHERE pixels_phash <> {FAR} ORDER BY uid")
    assert [stays for _, stays in chain] == [True, False, False]


@pytest.mark.parametrize("seed", range(4))
def test_who_goes_is_near_somebody_better_who_stays(tmp_path, store, seed):
    random = np.random.default_rng(seed)
    numbers = random.choice(2**12, 120, replace=False).tolist()
    described = published_sources.listed(
        tmp_path, numbers, filters=(), more=DUPLICATES + distinct(2, "pixels_sharpness % 100")
    )
    published_sources.published(described, store, failed=set(numbers[:5]))
    rows = np.array(ask(store, "SELECT pixels_phash, pixels_sharpness % 100, kept FROM rows WHERE status = 'ok'"), int)
    number, quality, stays = rows[:, 0], rows[:, 1], rows[:, 2] == 1
    near = np.bitwise_count(number[:, None] ^ number[None]) <= 2
    assert not np.triu(near[stays][:, stays], 1).any()
    assert (near[:, stays] & (quality[None, stays] >= quality[:, None])).any(axis=1).all()
    assert 0 < stays.sum() < len(stays)


def test_funnel_selection_and_verdicts_agree(tmp_path, store):
    described = published_sources.listed(
        tmp_path, [A, B, C, FAR, 40, 41, 42], filters=(BLUNT,), shard_size=2, more=DUPLICATES + distinct(2)
    )
    done = published_sources.published(described, store, failed={42})
    manifest = Manifest.open(store)
    assert manifest.recipe == described.own_recipe
    steps = manifest.funnel(manifest.recipe)
    assert [(step.filter, step.alone, step.fails, step.unscored, step.sequence) for step in steps] == [
        ("blunt", 2, 4, 0, 2),
        ("distinct", 4, 2, 0, 1),
    ]
    assert steps[-1].sequence == done.counts.kept
    for step in steps:
        assert step.costs == len(manifest.select(manifest.recipe.without(step.filter))) - done.counts.kept
    plain = manifest.recipe.without("distinct")
    assert [each.both for each in manifest.compare([manifest.recipe, plain]).shared] == [done.counts.kept]
    assert manifest.select(described.own_recipe) == manifest.select()
    assert len(manifest.select(described.own_recipe.without("distinct"))) == 2
    only = Recipe("only", distinct=Distinct(4, "-pixels_sharpness"))
    assert [step.sequence for step in manifest.funnel(only)] == [len(manifest.select(only))]


def test_places_are_right_across_parts(tmp_path, store):
    """The places that go are those among all rows of all parts, in any order of the files' sizes."""
    hashes = [[FAR, A, None], [FAR], [C, B, A, None]]
    files = []
    for number, part in enumerate(hashes):
        table = {"uid": [f"{number}{row}" for row in range(len(part))], "status": ["ok"] * len(part)}
        files.append(tmp_path / f"{number}.parquet")
        pq.write_table(pa.table(table | {"pixels_phash": pa.array(part, pa.uint64())}), files[-1])
    published_sources.put_table(
        store,
        "edges.parquet",
        pa.table(
            {
                name: pa.array([each], pa.uint64())
                for name, each in zip(("low", "high", "distance"), (A, B, 2), strict=True)
            }
        ),
    )
    with duck.connect(tmp_path) as con:
        lost = end.losers(
            con,
            store,
            files,
            [3, 1, 4],
            Recipe("ended", (Filter("any", "uid <> '00'"),), Distinct(2, "uid")),
            end.Neighbours("edges.parquet", "pixels_phash", 2),
        )
    assert lost.rejected.tolist() == [1, 5]  # the second A is the best, and B its neighbour; of FAR the first fails
    assert lost.unknown.tolist() == [2, 7]
    assert [part.tolist() for part in (lost.of(4, 4).rejected, lost.of(4, 4).unknown)] == [[1], [3]]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (distinct(2), r"add \[scorers.duplicates\]"),
        (DUPLICATES + distinct(5), "neighbours were looked for up to 4"),
        (DUPLICATES + distinct(2, "clip_similarity"), "distinct.best_by: there is no column 'clip_similarity'"),
        (DUPLICATES + distinct(2, "random()"), "distinct.best_by: random is not known to depend on the pair alone"),
        (DUPLICATES + distinct(2, "caption::INTEGER"), "'distinct' fails on a row"),
    ],
)
def test_a_bad_end_publishes_nothing(tmp_path, store, more, told):
    with pytest.raises(RecipeError, match=told):
        published_sources.published(published_sources.listed(tmp_path, range(50, 60), more=more), store)
    assert commits(store) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (DUPLICATES + 'of = "pixel"\n', "there is no scorer 'pixel'; did you mean 'pixels'?"),
        (DUPLICATES + distinct(-1), "distinct.radius: "),
        (DUPLICATES + distinct(2, " "), "best_by has no sql"),
    ],
)
def test_a_bad_source_file_is_told(tmp_path, more, told):
    with pytest.raises(SourceError, match=told.replace("?", r"\?")):
        published_sources.listed(tmp_path, range(3), more=more)


def test_duplicates_need_hashes(tmp_path, store):
    described = published_sources.listed(tmp_path, range(3), more=DUPLICATES + 'of = "captions"\n')
    with pytest.raises(SourceError, match="scorers.duplicates: 'captions' makes no phash"):
        published_sources.published(described, store)


def test_a_name_for_distinct_alone():
    with pytest.raises(ValueError, match="two filters called 'distinct'"):
        Recipe("both", (Filter("distinct", "true"),), Distinct(2, "width"))


def test_the_same_pool_computes_nothing_again_and_a_grown_one_all(tmp_path, store):
    numbers, more = list(range(40, 60)), DUPLICATES + COUNTS
    first = published_sources.published(published_sources.listed(tmp_path, numbers, more=more), store)
    before = keys(store, "")
    assert published_sources.published(
        published_sources.listed(tmp_path, numbers, more=more), store
    ) == publish.Published(first.id, False, first.counts)
    assert keys(store, "") == before
    told = []
    grown = published_sources.listed(tmp_path, [*numbers, 60], more=more)
    ledger = published_sources.finish(grown, store)
    pool.run(Plan.of(grown), store, ledger, {}, lambda *progress: told.append(progress[0]))
    assert set(told) == {"duplicates", "caption_counts"}
    second = publish.publish(Plan.of(grown), store, ledger, {})
    assert second.id != first.id
    assert len({key.split("/")[1] for key in keys(store, "duplicates")}) == 2
    assert len({key.split("/")[1] for key in keys(store, "pixels")}) == 1


def test_who_left_the_pool_is_nobodys_neighbour(tmp_path, store):
    published_sources.published(published_sources.listed(tmp_path, [A, B, FAR], filters=(), more=DUPLICATES), store)
    published_sources.published(published_sources.listed(tmp_path, [B, FAR], filters=(), more=DUPLICATES), store)
    assert ask(store, "SELECT pixels_phash, duplicates_count FROM rows") == [(B, 1), (FAR, 1)]
    quarantined = published_sources.listed(tmp_path, [FAR, B, *range(0xFF000, 0xFF00C)], filters=(), more=DUPLICATES)
    done = published_sources.published(quarantined, store, quarantined={1: "killed"})
    assert done.counts.quarantined > 0
    assert ask(store, f"SELECT duplicates_count FROM rows WHERE pixels_phash = {B}") == [(1,)]


def _die_after(root, toml_folder, puts):
    described = published_sources.listed(toml_folder, range(40, 70), more=DUPLICATES + COUNTS)

    class Dying(Storage):
        left = puts

        def put_file(self, key, local):
            if "duplicates" in key or "caption_counts" in key:
                if not self.left:
                    os._exit(9)
                self.left -= 1
            super().put_file(key, local)

    storage = Dying(root)
    pool.run(Plan.of(described), storage, published_sources.finish(described, storage), {})


@pytest.mark.parametrize("puts", [1, 4, *(pytest.param(puts, marks=pytest.mark.slow) for puts in (0, 2, 5))])
def test_killed_between_two_shards_the_next_run_goes_on(tmp_path, store, puts):
    before = published_sources.published(
        published_sources.listed(tmp_path, range(40, 60), more=DUPLICATES + COUNTS), store
    )
    process = multiprocessing.get_context("fork").Process(target=_die_after, args=(store.root, tmp_path, puts))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert Manifest.open(store).id == before.id
    after = published_sources.published(
        published_sources.listed(tmp_path, range(40, 70), more=DUPLICATES + COUNTS), store
    )
    elsewhere = Storage(tmp_path / "elsewhere")
    published_sources.published(published_sources.listed(tmp_path, range(40, 60), more=DUPLICATES + COUNTS), elsewhere)
    whole = published_sources.published(
        published_sources.listed(tmp_path, range(40, 70), more=DUPLICATES + COUNTS), elsewhere
    )
    assert after.id == whole.id


def keys(store, scorer):
    found = (path.relative_to(store.root).as_posix() for path in store.root.glob(f"scores/{scorer}*/*"))
    return sorted(found)
