"""The real validation list of CC3M, all of it, against a loopback web that answers for every one of its hosts."""

import gzip
import hashlib
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from loopback_web import CAUSES, Web, picture_of, seen, share

from pipeline import uids
from pipeline.download import download
from pipeline.engine import local
from pipeline.ledger import ingest
from pipeline.ledger.ledger import Ledger
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.settings.download import Download
from pipeline.settings.pairs import Pairs
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.web.guard import Guard
from pipeline.web.url import Url

ROWS, HOSTS = 15_833, 3_377

SHARES = {
    "missing": 0.12,  # of CC12M's, today
    "html": 0.04,
    "moved": 0.04,
    "packed": 0.02,
    "opt_out": 0.02,
    "cut": 0.02,
    "flaky": 0.01,
    "dead": 0.01,
    "short": 0.01,
    "failing": 0.01,
    "empty": 0.01,
    "bomb": 0.01,
    "oversize": 0.01,
    "stated": 0.01,
    "private": 0.01,
    "neighbour": 0.01,
    "local": 0.01,
    "loop": 0.01,
    "drip": 0.003,
    "silent": 0.003,
}
"""Of the URLs. The rest is fine."""

HOST_SHARES = {"dns": 0.02, "refused": 0.02, "tls": 0.02, "blocked_address": 0.01, "http_429": 0.002}
"""Of the hosts: unknown, closed, with a certificate of nobody's, at a private address, tired of everybody."""


def drawn(text, shares):
    """One of the kinds, by the text's hash; None for the rest."""
    place = share(text)
    for kind, part in shares.items():
        place -= part
        if place < 0:
            return kind
    return None


def kind(url):
    return "limited" if fate(Url.parse(url).host) == "http_429" else drawn("url " + url, SHARES) or "fine"


def fate(host):
    return drawn("host " + host, HOST_SHARES)


def cause(url):
    """What must become of a URL of the list."""
    parsed = Url.parse(url)
    planted = fate(parsed.host)
    if planted and (planted != "tls" or parsed.secure):
        return planted
    return CAUSES[kind(seen(url))]


@dataclass
class Fetched:
    """The list after its download."""

    source: Source
    storage: Storage
    guard: Guard
    ledger: Ledger
    web: Web
    listed: list

    def rows(self):
        """(URL, row of the shard's Parquet), in ledger order."""
        stage = download.stage(self.source)
        for shard in self.ledger.shards:
            urls = pq.read_table(self.storage.fetch(shard.key))["url"].to_pylist()
            rows = pq.read_table(self.storage.fetch(stage.item(shard.number, ".parquet"))).to_pylist()
            yield from zip(urls, rows, strict=True)


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    if "WINNOW_DATA" not in os.environ:
        pytest.skip("WINNOW_DATA does not name the folder of real test data")
    location = Path(os.environ["WINNOW_DATA"]) / "urls" / "cc3m_val.tsv.gz"
    with gzip.open(location, "rt", encoding="utf-8", newline="\n") as lines:
        listed = [line.rstrip("\n").split("\t") for line in lines]
    hosts = {Url.parse(url).host for _, url in listed}
    having = {planted: frozenset(host for host in hosts if fate(host) == planted) for planted in HOST_SHARES}
    folder = tmp_path_factory.mktemp("cc3m")
    source = Source(
        name="cc3m",
        pairs=Pairs(location=str(location), columns=("caption", "url")),
        download=Download(threads=64, image_size=64, max_bytes=200_000),
        scorers={"captions": CaptionsSpec(kind="captions"), "pixels": PixelsSpec(kind="pixels")},
        recipe="datacomp-basic-like",
    )
    storage = Storage(folder / "store")
    with Web(kind, tuple(hosts), untrusted=having["tls"]) as web:
        (folder / "ca.pem").write_bytes(web.ca_pem)
        guard = web.guard(
            hosts - having["blocked_address"],
            resolve=web.resolver(unknown=having["dns"], closed=having["refused"], private=having["blocked_address"]),
            ca_file=folder / "ca.pem",
            max_bytes=source.download.max_bytes,
            timeout=5,  # what is not planted must not time out on a busy machine
        )
        ledger = ingest.update(source, storage)
        begun = time.monotonic()
        for _, error in local.run_wide(download.Downloading(source, storage, guard), ledger.shards):
            assert error is None
        print(f"{ROWS / (time.monotonic() - begun):.0f} URLs/s")
        yield Fetched(source, storage, guard, ledger, web, listed)


@pytest.mark.slow
def test_every_row_of_the_list_has_the_outcome_that_was_planted(fetched):
    assert (fetched.ledger.input, len({Url.parse(url).host for _, url in fetched.listed})) == (ROWS, HOSTS)
    rows = list(fetched.rows())
    assert len(rows) == fetched.ledger.rows == ROWS - fetched.ledger.repeated
    assert {uids.uid(url, caption) for caption, url in fetched.listed} == {row["uid"] for _, row in rows}
    wrong = Counter((cause(url), row["cause"]) for url, row in rows if row["cause"] != cause(url))
    assert not wrong
    assert {row["cause"] for _, row in rows} == {*CAUSES.values(), *HOST_SHARES}
    for url, row in rows:
        assert row["status"] == ("failed" if row["cause"] else "ok")
        if row["status"] == "ok":
            assert row["sha256"] == hashlib.sha256(picture_of(seen(url))).hexdigest()


@pytest.mark.slow
def test_nothing_private_was_reached_and_nobody_was_asked_too_often(fetched):
    assert fetched.web.canary == []
    assert {
        url for url in fetched.web.hits if fate(Url.parse(url).host) in ("dns", "refused", "blocked_address")
    } == set()
    opted_out = [url for url in fetched.web.hits if kind(url) == "opt_out"]
    assert opted_out
    assert {fetched.web.hits[url] for url in opted_out} == {1}
    assert max(fetched.web.hits.values()) == 6  # of a redirect that leads to itself


@pytest.mark.slow
def test_all_of_it_is_scored_and_published(fetched):
    for _, error in local.run(lambda: Scoring(Plan.of(fetched.source), fetched.storage), fetched.ledger.shards):
        assert error is None
    counts = publish.publish(Plan.of(fetched.source), fetched.storage, fetched.ledger, {}).counts
    causes = Counter(cause(url) for _, url in fetched.listed)
    assert (counts.input, counts.repeated, counts.quarantined) == (ROWS, fetched.ledger.repeated, 0)
    assert counts.failed == ROWS - causes[None]
    assert counts.kept + counts.dropped == causes[None]
    assert 0 < counts.kept < causes[None]
    with Manifest.open(fetched.storage).connection() as con:
        told = con.execute("SELECT cause, count(*) FROM rows GROUP BY cause").fetchall()
        language = con.execute("SELECT mode(captions_language) FROM rows WHERE status = 'ok'").fetchall()
    assert dict(told) == causes
    assert language == [("en",)]
