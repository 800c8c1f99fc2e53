"""What bytes behind URLs tell: one picture under many of them, and URLs that give others than before."""

import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.download import download
from pipeline.manifest import placeholders, publish
from pipeline.manifest.manifest import Manifest
from pipeline.pages import report
from pipeline.query import named, sandbox
from pipeline.scoring.plan import Plan
from pipeline.settings.download import Download
from pipeline.store.storage import Storage

UNSHARED = {"name": "unshared", "sql": "picture_counts_urls < 5"}
COUNTS = '[scorers.picture_counts]\nkind = "picture_counts"\n'


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def told(store):
    return placeholders.remarks(Manifest.open(store).card)


def ask(store, name):
    return sandbox.run(named.resolve(name), [store]).to_pylist()


@pytest.mark.slow
def test_a_placeholder_is_found_told_and_dropped(tmp_path, store):
    """Five sites and a second caption show picture 7, four sites picture 8."""
    many = [(f"a thing that is gone from site {n}", f"http://site-{n}/7.jpg") for n in range(5)]
    few = [(f"a thing on site {n}", f"http://site-{n}/8.jpg") for n in range(4)]
    rows = [*many, *few, ("another thing", "http://site-0/7.jpg")]
    described = published_sources.listed(tmp_path, range(40, 44), [UNSHARED], shard_size=3, rows=rows, more=COUNTS)
    published = published_sources.published(described, store, failed={43})
    assert (published.counts.kept, published.counts.dropped, published.counts.failed) == (7, 6, 1)
    with Manifest.open(store).connection() as con:
        counted = con.execute("SELECT DISTINCT right(url, 5), picture_counts_urls FROM rows ORDER BY 1").fetchall()
    assert counted == [("0.jpg", 1), ("1.jpg", 1), ("2.jpg", 1), ("3.jpg", None), ("7.jpg", 5), ("8.jpg", 4)]
    report.write(store, Manifest.open(store), None, tmp_path / "report.html")
    assert "winnow sql @placeholders" in (tmp_path / "report.html").read_text()
    assert told(store) == ["1 pictures have 5 URLs or more each, 6 pairs in all: winnow sql @placeholders"]
    (found,) = ask(store, "@placeholders")
    assert (found["sha256"], found["urls"], found["pairs"], found["kept"]) == (f"{7:064x}", 5, 6, 0)


def visited(described, store, visit, seen, failed=()):
    """Fetch what is not there yet, all of it under the settings of another visit, and publish. Gives the manifest's id.

    `seen` names the bytes of pairs by a digit: those that the server gave at this visit.
    """
    described = described.model_copy(update={"download": Download(shard_size=10, image_size=100 + visit)})
    ledger, stage = published_sources.finish(described, store, failed=failed), download.stage(described)
    for shard in ledger.shards:
        rows = pq.read_table(store.fetch(stage.item(shard.number, ".parquet")))
        captions = pq.read_table(store.fetch(shard.key))["caption"].to_pylist()
        digests = [
            seen[caption] * 64 if digest and caption in seen else digest
            for caption, digest in zip(captions, rows["sha256"].to_pylist(), strict=True)
        ]
        rows = rows.set_column(rows.schema.names.index("sha256"), "sha256", pa.array(digests))
        published_sources.put_table(store, stage.item(shard.number, ".parquet"), rows)
    return publish.publish(Plan.of(described), store, ledger, {}).id[:12]


def test_changed_bytes_are_told_at_once_and_later(tmp_path, store):
    one, two, more = "picture number 45", "picture number 46", "its second caption"
    described = published_sources.listed(tmp_path, range(45, 48))
    first = visited(described, store, 1, {one: "a", two: "b"})
    assert told(store) == []
    second = visited(described, store, 2, {one: "c"}, failed={46})
    assert told(store) == ["1 URLs gave other bytes than before: winnow sql @rewritten"]
    described = published_sources.listed(tmp_path, range(45, 48), rows=[(more, "http://host/47.jpg")])
    third = visited(described, store, 3, {one: "a", two: "d", more: "e"})  # 45 is as at first; 47 has two at once
    assert told(store) == ["2 URLs gave other bytes than before: winnow sql @rewritten"]
    assert [tuple(row.values()) for row in ask(store, "@rewritten")] == [
        ("http://host/45.jpg", "a" * 64, "c" * 64, first, second),
        ("http://host/46.jpg", "b" * 64, "d" * 64, first, third),
        ("http://host/47.jpg", f"{47:064x}", "e" * 64, first, third),
    ]
