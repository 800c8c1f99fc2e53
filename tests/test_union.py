"""A source that is a union of others: what is drawn, whence, and what is found across."""

import numpy as np
import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters.core import Filter, Recipe
from pipeline.errors import SourceError
from pipeline.ledger import blocklist, checking, ingest
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.url_digests import digest
from pipeline.manifest.manifest import Manifest
from pipeline.review import audit
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store import tarfiles
from pipeline.store.storage import Storage
from pipeline.upkeep import reuse


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def member(folder, name, rows, extra=(), more=""):
    """A source with a Parquet list: rows of url, caption and the extra columns."""
    table = pa.Table.from_pylist([dict(zip(("url", "caption", *extra), row, strict=True)) for row in rows])
    pq.write_table(table, folder / f"{name}.parquet")
    (folder / f"{name}.toml").write_text(f'{more}[pairs]\nlocation = "{name}.parquet"\nextra = {list(extra)}\n')
    return loading.load(folder / f"{name}.toml")


def union(folder, more="", **shares):
    """The source file of a union of sources that lie beside it."""
    named = "".join(f'"{name}.toml" = {share}\n' for name, share in shares.items())
    (folder / "both.toml").write_text(f"{more}[union]\n{named}")
    return loading.load(folder / "both.toml")


def many(start, end):
    return [(f"http://host/{number}.jpg", f"picture number {number}") for number in range(start, end)]


def origins(store, ledger):
    """By URL, whence each pair of the ledger is."""
    tables = [pq.read_table(store.fetch(shard.key)) for shard in ledger.shards]
    current = set(pq.read_table(store.fetch(ledger.current))["entry"].to_pylist()) if ledger.current else None
    rows = [row for table in tables for row in table.to_pylist() if current is None or row["entry"] in current]
    return {row["url"].split("/")[-1]: row["origin"] for row in rows}


def test_pairs_of_two_members_are_counted_once_and_are_the_first_ones(tmp_path, store):
    member(tmp_path, "a", many(0, 8))
    member(tmp_path, "b", many(5, 12))
    ledger = ingest.update(union(tmp_path, a=1, b=1), store)
    assert (ledger.input, ledger.repeated, ledger.rows) == (15, 3, 12)
    assert origins(store, ledger) == {f"{n}.jpg": "a" if n < 8 else "b" for n in range(12)}
    turned = ingest.update(union(tmp_path, b=1, a=1), store)
    assert (turned.rows, turned.new, turned.amended, turned.gone) == (12, 3, 3, 0)
    assert origins(store, turned) == {f"{n}.jpg": "a" if n < 5 else "b" for n in range(12)}


def test_a_share_is_drawn_by_uid(tmp_path, store):
    member(tmp_path, "a", many(0, 400))
    member(tmp_path, "b", many(400, 420))
    few = ingest.update(union(tmp_path, a=0.25, b=1), store)
    drawn = origins(store, few)
    assert 70 <= list(drawn.values()).count("a") <= 130
    assert list(drawn.values()).count("b") == 20
    more = ingest.update(union(tmp_path, a=0.5, b=1), store)
    assert set(drawn) < set(origins(store, more))
    assert (more.gone, more.input) == (0, more.rows)
    assert ingest.update(union(tmp_path, a=0.25, b=1), store).digest == few.digest
    with pytest.raises(SourceError, match="no pair of its members is drawn"):
        ingest.update(union(tmp_path, a=1e-9), store)


def test_extra_columns_of_any_member_travel_along(tmp_path, store):
    """What two members call alike and mean differently is text."""
    member(tmp_path, "a", [("http://host/1.jpg", "one", 7, 1)], ("label", "rank"))
    member(tmp_path, "b", [("http://host/2.jpg", "two", "dog")], ("label",))
    both = union(tmp_path, "[[filters]]\nname = \"a\"\nsql = \"origin = 'a' AND rank = 1 AND label = '7'\"\n", a=1, b=1)
    assert checking.check(str(both.path)).own_recipe.filters
    (shard,) = ingest.update(both, store).shards
    rows = pq.read_table(store.fetch(shard.key), columns=["origin", "label", "rank"]).to_pylist()
    assert rows == [{"origin": "a", "label": "7", "rank": 1}, {"origin": "b", "label": "dog", "rank": None}]


def test_scores_of_the_whole_pool_look_across(tmp_path, store):
    """Picture number n has the hash n: 3 of the first member and 2 of the second are one bit apart, the others far."""
    far = [int("01" * 12, 2), int("10" * 12, 2)]
    member(tmp_path, "a", [("http://host/3.jpg", "A dog"), (f"http://host/{far[0]}.jpg", "a cat")])
    member(tmp_path, "b", [("http://host/2.jpg", "a dog"), (f"http://host/{far[1]}.jpg", "a bird")])
    scorers = "".join(
        f'[scorers.{name}]\nkind = "{name}"\n' for name in ("pixels", "captions", "duplicates", "caption_counts")
    )
    published_sources.published(union(tmp_path, scorers, a=1, b=1), store)
    with Manifest.open(store).connection() as con:
        found = con.execute(
            "SELECT origin, duplicates_count, caption_counts_count FROM rows ORDER BY origin, 2"
        ).fetchall()
    assert found == [("a", 1, 1), ("a", 2, 2), ("b", 1, 1), ("b", 2, 2)]
    rare = Recipe("rare", (Filter("rare", "caption_counts_count = 1 AND origin = 'a'"),))
    told = audit.audit(Manifest.open(store), rare).of("origin")
    assert [(each.value, each.removed.hits, each.removed.of) for each in told] == [("a", 1, 2), ("b", 2, 2)]


VECTORS = np.random.default_rng(0).normal(size=(40, 2, 8)).astype(np.float16)


def settings(folder, shard_size):
    plain = "".join(f'[scorers.{name}]\nkind = "{name}"\n' for name in ("pixels", "captions"))
    return f"[download]\nshard_size = {shard_size}\n{plain}{published_sources.recorded(folder)}"


@pytest.fixture
def root(tmp_path):
    """Two members with results: 25 pairs, and 20 of which 5 are the former's; pictures 3 and 30 failed."""
    for name, numbers in (("a", (0, 25)), ("b", (20, 40))):
        described = member(tmp_path, name, many(*numbers), more=settings(tmp_path, 10))
        published_sources.embedded(described, Storage(tmp_path / "root" / name), VECTORS, failed={3, 30})
    return tmp_path / "root"


def results(store):
    """By key every picture, score and embedding that the store has."""
    found = {}
    for path in [path for path in store.root.rglob("*") if path.suffix in (".tar", ".parquet", ".npy")]:
        key = str(path.relative_to(store.root))
        if path.suffix == ".tar":
            found[key] = list(tarfiles.read(path))
        elif path.suffix == ".npy":
            found[key] = np.load(path).tobytes()
        elif not key.startswith("pairs/"):
            found[key] = pq.read_table(path).to_pylist()
    return found


def fetched(store):
    """The numbers of the shards that have pictures."""
    return [int(key[-9:-4]) for key in sorted(results(store)) if key.endswith(".tar")]


def test_what_the_members_have_done_is_taken_over(tmp_path, root):
    both, taken, anew = (
        union(tmp_path, settings(tmp_path, 7), a=1, b=0.5),
        Storage(root / "both"),
        Storage(tmp_path / "anew"),
    )
    reuse.reuse(Plan.of(both), taken, ingest.update(both, taken).shards)
    published_sources.embedded(both, anew, VECTORS, failed={3, 30})
    assert results(taken) == results(anew)


def test_what_a_member_was_asked_to_forget_is_not_taken_over_and_not_fetched(tmp_path, root):
    seven = "http://host/7.jpg"
    Blocked(urls=frozenset({digest(seven)})).commit(Storage(root / "a"))
    both, store = union(tmp_path, settings(tmp_path, 5), a=1, b=1), Storage(root / "both")
    reuse.reuse(Plan.of(both), store, ingest.update(both, store).shards)
    assert fetched(store) == [0, 2, 3, 4, 5, 6, 7]
    assert blocklist.in_force(both, store).covers("", seven)  # what a download is told


@pytest.mark.slow
def test_what_is_not_the_same_is_not_taken_over(tmp_path, root):
    """Pictures of another size are other results. Without those of b, a shard with a pair of b's is fetched whole."""
    small, store = settings(tmp_path, 5).replace("shard_size", "image_size = 64\nshard_size"), Storage(root / "both")
    both = union(tmp_path, small, a=1, b=1)
    reuse.reuse(Plan.of(both), store, ingest.update(both, store).shards)
    assert results(store) == {}
    for file in (root / "b").rglob("*.tar"):
        file.unlink()
    both = union(tmp_path, settings(tmp_path, 5), a=1, b=1)
    reuse.reuse(Plan.of(both), store, ingest.update(both, store).shards)
    assert fetched(store) == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_one_address_with_two_pictures_is_fetched_anew(tmp_path, root):
    """The members fetched it at different times, for a caption each."""
    more = member(tmp_path, "c", [("http://host/1.jpg", "another caption")], more=settings(tmp_path, 10))
    published_sources.embedded(more, Storage(root / "c"), VECTORS)
    both, store = union(tmp_path, settings(tmp_path, 5), a=1, c=1), Storage(root / "both")
    ledger = ingest.update(both, store)
    (parquet,) = (root / "c").glob("shards-*/*.parquet")
    table = pq.read_table(parquet)
    changed = table.set_column(table.schema.get_field_index("sha256"), "sha256", pa.array(["0" * 64]))
    pq.write_table(changed, parquet)
    reuse.reuse(Plan.of(both), store, ledger.shards)
    assert fetched(store) == [1, 2, 3, 4, 5]
    pq.write_table(table, parquet)
    reuse.reuse(Plan.of(both), store, ledger.shards)
    assert fetched(store) == [0, 1, 2, 3, 4, 5]


FAULTS = {
    "unknown": ("[union]\ncc3 = 1\n", "union.cc3: no source is called 'cc3'; did you mean 'cc3m'?"),
    "gone": ('[union]\n"gone.toml" = 1\n', "union.gone.toml: there is no source file"),
    "nothing": ('[union]\n"a.toml" = 0\n', "union.a.toml: "),
    "more than all": ('[union]\n"a.toml" = 1.5\n', "union.a.toml: "),
    "itself": ('[union]\n"both.toml" = 1\n', "union.both.toml: it has no [pairs] of its own"),
    "the demo": ("[union]\ndemo = 1\n", "union.demo: it has no [pairs] of its own"),
    "two of one name": ('[union]\n"a.toml" = 1\n"./a.toml" = 1\n', "there are two sources called a"),
    "a list besides": ('[pairs]\nlocation = "a.parquet"\n[union]\n"a.toml" = 1\n', "or [union] of others"),
    "none": ("[union]\n", "or [union] of others"),
}


@pytest.mark.parametrize(("text", "told"), FAULTS.values(), ids=FAULTS)
def test_what_is_no_union(tmp_path, text, told):
    member(tmp_path, "a", many(0, 2))
    (tmp_path / "both.toml").write_text(text)
    with pytest.raises(SourceError) as fault:
        loading.load(tmp_path / "both.toml")
    assert str(fault.value).startswith("both.toml: ")
    assert told in str(fault.value)
