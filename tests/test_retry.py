"""Pairs that failed are fetched once more, by cause: nothing else is touched, and every row is still counted once."""

import json

import main_job
import published_sources
import pytest
from loopback_web import Web, kind_in_path

from pipeline.errors import SourceError
from pipeline.failure import is_transient
from pipeline.ledger.ledger import committed
from pipeline.manifest.manifest import Manifest
from pipeline.settings.download import Download
from pipeline.settings.pairs import Pairs
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.upkeep import retry

HOST = "pictures.test"
ILL = {"failing", "silent"}


def rows(storage, id_=None):
    with Manifest.open(storage, id_).connection() as con:
        found = con.execute("SELECT uid, url, cause, shard, member FROM rows ORDER BY uid").fetchall()
    assert len({row[0] for row in found}) == len(found)
    return found


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def test_the_newest_attempt_counts_and_the_rest_stays(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 65))
    first = published_sources.published(described, store, failed={41, 52, 53})
    before = rows(store)
    assert retry.append(described, store, ["http_404"]) == 3
    assert retry.append(described, store, ["http_404"]) == 0  # as after a kill before the download
    assert [shard.revised for shard in committed(store)] == [None, None, None, "retried"]
    second = published_sources.published(described, store, failed={52})
    assert (first.counts.failed, second.counts.failed, second.counts.input) == (3, 1, 25)
    now = rows(store)
    assert {row[:2] for row in now} == {row[:2] for row in before}
    assert len(set(now) - set(before)) == 3
    assert {row[1]: row[2] for row in now if row[3] == 3} == {
        "http://host/41.jpg": None, "http://host/52.jpg": "http_404", "http://host/53.jpg": None,
    }  # fmt: skip
    assert published_sources.published(described, store).new is False
    assert rows(store, first.id) == before

    assert retry.append(described, store, ["http_404"]) == 1
    third = published_sources.published(described, store)
    assert (third.counts.failed, third.counts.input) == (0, 25)


@pytest.mark.slow
def test_a_list_that_shrinks_after_a_retry(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 60))
    published_sources.published(described, store, failed={41, 52})
    retry.append(described, store, ["http_404"])
    whole = published_sources.published(described, store)
    shrunken = published_sources.published(published_sources.listed(tmp_path, [41, 45, 52, 99]), store)
    assert (shrunken.counts.input, shrunken.counts.failed) == (4, 0)
    back = published_sources.published(published_sources.listed(tmp_path, range(40, 60)), store)
    assert (back.id, back.new) == (whole.id, True)


def test_which_causes_are_tried_again(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 50))
    published_sources.published(described, store, failed={41})
    assert retry.choose_causes(Manifest.open(store), []) == []
    with pytest.raises(SourceError, match="no pair failed with the cause 'http_40'; did you mean 'http_404'"):
        retry.choose_causes(Manifest.open(store), ["http_40"])
    with pytest.raises(SourceError, match="taken down are not fetched again"):
        retry.choose_causes(Manifest.open(store), ["forgotten"])
    assert all(map(is_transient, ("dns", "reset", "http_429", "http_500", "http_503")))
    assert not any(map(is_transient, ("http_404", "opt_out", "undecodable", "robots_txt", "forgotten", "timeout")))


@pytest.mark.slow
def test_a_web_that_recovers(tmp_path, store):
    kinds = ("fine", "failing", "silent", "missing", "cut")
    listed = [(f"http://{HOST}/{kind}/{number}.jpg", f"a {kind} thing") for kind in kinds for number in range(4)]
    listed += [(f"http://{HOST}/failing/0.jpg", "the same address")]
    lines = [json.dumps({"url": url, "caption": words}) + "\n" for url, words in listed]
    (tmp_path / "list.jsonl").write_text("".join(lines))
    download = Download(shard_size=30, retries=0)
    described = Source(name="test", pairs=Pairs(location=str(tmp_path / "list.jsonl")), download=download)
    with Web() as web:
        guard = web.guard([HOST], timeout=1, retries=0)
        first = main_job.bring_in(described, store, guard)
        assert (first.counts.kept, first.counts.failed) == (4, 17)
        hits = web.hits.copy()

        web.kind = lambda url: "fine" if kind_in_path(url) in ILL else kind_in_path(url)
        assert retry.append(described, store, ["timeout"]) == 4
        second = main_job.bring_in(described, store, guard)
        assert (second.counts.kept, second.counts.failed) == (8, 13)
        assert {url for url in web.hits if web.hits[url] > hits[url]} == {url for url in hits if "/silent/" in url}
        assert retry.append(described, store, []) == 5
        third = main_job.bring_in(described, store, guard)
        assert (third.counts.kept, third.counts.failed) == (13, 8)
    with Manifest.open(store).connection() as con:
        causes = con.execute("SELECT cause, count(*) FROM rows GROUP BY ALL ORDER BY ALL").fetchall()
    assert causes == [("http_404", 4), ("undecodable", 4), (None, 13)]
