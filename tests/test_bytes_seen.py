"""What bytes behind URLs tell: one picture under many of them, and URLs that give others than before."""

import made
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import bytes_seen, download, publish, queries, query
from pipeline.manifest import Manifest
from pipeline.source import Download
from pipeline.storage import Storage

UNSHARED = {"name": "unshared", "sql": "picture_counts_urls < 5"}
COUNTS = '[scorers.picture_counts]\nkind = "picture_counts"\n'


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def told(store):
    return bytes_seen.remarks(Manifest.open(store).card)


def ask(store, name):
    return query.run(queries.named(name), [store]).to_pylist()


def test_a_placeholder_is_found_told_and_dropped(tmp_path, store):
    """Five sites and a second caption show picture 7, four sites picture 8."""
    many = [(f"a thing that is gone from site {n}", f"http://site-{n}/7.jpg") for n in range(5)]
    few = [(f"a thing on site {n}", f"http://site-{n}/8.jpg") for n in range(4)]
    rows = [*many, *few, ("another thing", "http://site-0/7.jpg")]
    described = made.listed(tmp_path, range(40, 44), [UNSHARED], shard_size=3, rows=rows, more=COUNTS)
    published = made.published(described, store, failed={43})
    assert (published.counts.kept, published.counts.dropped, published.counts.failed) == (7, 6, 1)
    with Manifest.open(store).connection() as con:
        counted = con.execute("SELECT DISTINCT right(url, 5), picture_counts_urls FROM rows ORDER BY 1").fetchall()
    assert counted == [("0.jpg", 1), ("1.jpg", 1), ("2.jpg", 1), ("3.jpg", None), ("7.jpg", 5), ("8.jpg", 4)]
    assert told(store) == ["1 pictures stand behind 5 URLs or more each, 6 pairs in all: winnow sql @placeholders"]
    (found,) = ask(store, "@placeholders")
    assert (found["sha256"], found["urls"], found["pairs"], found["kept"]) == (f"{7:064x}", 5, 6, 0)


def visited(described, store, number, seen, failed=()):
    """Fetch all of it anew, as under other settings, and publish. `seen` names the bytes of some URLs by a digit."""
    anew = described.model_copy(update={"download": Download(shard_size=10, image_size=100 + number)})
    ledger = made.finish(anew, store, failed=failed)
    for shard in ledger.shards:
        key = download.stage(anew).item(shard.number, ".parquet")
        rows, urls = pq.read_table(store.fetch(key)), pq.read_table(store.fetch(shard.key))["url"].to_pylist()
        known = [
            seen[url][0] * 64 if old and url in seen else old
            for url, old in zip(urls, rows["sha256"].to_pylist(), strict=True)
        ]
        made.put_table(store, key, rows.set_column(rows.schema.names.index("sha256"), "sha256", pa.array(known)))
    return publish.publish(anew, store, ledger, {}).id[:12]


def test_changed_bytes_are_told_at_once_and_later(tmp_path, store):
    one, two = "http://host/45.jpg", "http://host/46.jpg"
    described = made.listed(tmp_path, range(40, 50))
    first = visited(described, store, 1, {one: "a", two: "b"})
    assert told(store) == []
    second = visited(described, store, 2, {one: "c", two: "b"})
    assert told(store) == ["1 URLs gave other bytes than before: winnow sql @rewritten"]
    visited(described, store, 3, {one: "a"}, failed={46})
    assert told(store) == []  # as it was at first
    fourth = visited(described, store, 4, {one: "a", two: "d"})
    assert told(store) == ["1 URLs gave other bytes than before: winnow sql @rewritten"]
    names = ("url", "first_seen", "last_seen", "first_in", "last_in")
    assert [tuple(row[name] for name in names) for row in ask(store, "@rewritten")] == [
        (one, "a" * 64, "c" * 64, first, second),
        (two, "b" * 64, "d" * 64, first, fourth),
    ]


def test_a_second_pair_of_a_url_may_bring_other_bytes(tmp_path, store):
    """The same manifest has both then, of two shards."""
    made.published(made.listed(tmp_path, range(40, 45)), store)
    described = made.listed(tmp_path, range(40, 45), rows=[("a second caption", "http://host/44.jpg")])
    ledger = made.finish(described, store)
    key = download.stage(described).item(1, ".parquet")
    rows = pq.read_table(store.fetch(key))
    other = rows.set_column(rows.schema.names.index("sha256"), "sha256", pa.array(["e" * 64]))
    made.put_table(store, key, other)
    publish.publish(described, store, ledger, {})
    assert told(store) == ["1 URLs gave other bytes than before: winnow sql @rewritten"]
    (found,) = ask(store, "@rewritten")
    assert (found["first_seen"], found["last_seen"]) == (f"{44:064x}", "e" * 64)
