"""Names, passwords and tokens in URLs: fetched with, and never shown."""

import json
import traceback

import main_job
import pyarrow as pa
import pytest
from loopback_web import Web

from pipeline import uids
from pipeline.errors import SourceError
from pipeline.failure import RowError
from pipeline.ledger import lists
from pipeline.manifest.manifest import Manifest
from pipeline.pages import report
from pipeline.query import sandbox
from pipeline.redact import redact, redact_column
from pipeline.settings.download import Download
from pipeline.settings.pairs import Pairs
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.web import trusted
from pipeline.web.trusted import AddressError
from pipeline.web.url import Url

ADDRESSES = {
    "http://host/a.jpg?w=200&h=3#top": "http://host/a.jpg?w=200&h=3#top",
    "http://host/@me/a@2x.jpg?mail=a@b": "http://host/@me/a@2x.jpg?mail=a@b",
    "http://me:s3cret@host:80/a.jpg": "http://host:80/a.jpg",
    " HTTPS://me:a@b@host/a.jpg": " HTTPS://host/a.jpg",
    "//me:s3cret@host/a.jpg": "//host/a.jpg",
    "me:s3cret@host/a.jpg": "host/a.jpg",
    "http://me:s3cret/3@host/a.jpg": "http://host/a.jpg",
    "http://host:80/a@2x.jpg": "http://host:80/a@2x.jpg",
    "http://host/a?token=s3cret&w=1": "http://host/a?token=hidden&w=1",
    "http://host/a?w=1&X-Amz-Signature=s3cret&X-Amz-Credential=s3cret": (
        "http://host/a?w=1&X-Amz-Signature=hidden&X-Amz-Credential=hidden"
    ),
    "http://host/a?Key=s3cret;sig=s3cret#access_token=s3cret": "http://host/a?Key=hidden;sig=hidden#access_token=hidden",
    "http://host/a?monkey=1&keyword=2&design=3": "http://host/a?monkey=1&keyword=2&design=3",
    "": "",
}


def test_what_is_hidden_of_an_address():
    assert {text: redact(text) for text in ADDRESSES} == ADDRESSES
    assert redact_column(pa.chunked_array([list(ADDRESSES)])).to_pylist() == list(ADDRESSES.values())


@pytest.mark.parametrize(
    "url", ["http://me:s3cret/a@host/", "http://host:s3cret/", "http://me:s3cret@℀host/", "http://[s3cret/"]
)
def test_no_message_quotes_an_address(url):
    with pytest.raises(RowError) as told:
        Url.parse(url)
    assert "s3cret" not in str(told.value)


FAULTS = {
    "gone.tsv": "cannot be fetched: 404",
    "list.bin": "unknown ending",
    "empty.tsv": "has no rows",
    "other.tsv": "has no column 'url'",
    "short.csv": "the first row has 1 of 2 columns",
    "other.jsonl": "the first line is no JSON",
    "other.parquet": "cannot be read as parquet",
}


def test_no_message_about_a_list_quotes_its_address(tmp_path, caplog, httpserver_folder):
    folder, place = httpserver_folder
    caplog.set_level(0)
    for name in ("list.bin", "empty.tsv", "short.csv", "other.tsv", "other.jsonl", "other.parquet"):
        (folder / name).write_text({"empty": "", "short": "url,caption\nx\n"}.get(name[:5], "a\tb\nc\td\n"))
    for name, told in FAULTS.items():
        location = place.replace("//", "//me:s3cret@") + f"/{name}?token=s3cret"
        with pytest.raises(SourceError, match=told) as raised:
            list(lists.read(Pairs(location=location), tmp_path))
        assert f"/{name}?token=hidden" in str(raised.value)
        assert "s3cret" not in "".join(traceback.format_exception(raised.value)) + caplog.text


@pytest.mark.parametrize("port", ["1", "s3cret", "99999"])
def test_nor_does_one_about_an_address_that_cannot_be_reached(port):
    url = "http://me:s3cret@127.0.0.1:" + port
    with pytest.raises(AddressError) as raised, trusted.stream(url):
        pass
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.slow
def test_secrets_go_to_the_server_and_nowhere_else(tmp_path, capfd, caplog, httpserver_folder):
    hosts = ("fine", "missing", "html", "private", "cut", "failing")
    urls = [f"http://me:s3cret@pictures.test/{kind}/1.jpg?token=s3cret" for kind in hosts]
    urls += ["http://me:s3cret/@pictures.test/", "ftp://me:s3cret@pictures.test/"]
    folder, place = httpserver_folder
    (folder / "list.jsonl").write_text("".join(json.dumps({"url": url, "caption": "a b c"}) + "\n" for url in urls))
    location = place.replace("//", "//me:s3cret@") + "/list.jsonl?token=s3cret"
    described = Source(name="t", pairs=Pairs(location=location), download=Download(retries=0))
    storage = Storage(tmp_path / "store")
    caplog.set_level(0)
    with Web() as web:
        published = main_job.bring_in(described, storage, web.guard(["pictures.test"], retries=0))
        assert web.hits["http://pictures.test/fine/1.jpg?token=s3cret"] == 1
    assert (published.counts.kept, published.counts.failed) == (1, len(urls) - 1)
    manifest = Manifest.open(storage)
    report.write(storage, manifest, None, storage.root / "report.html")
    told = sandbox.run("SELECT * FROM rows", [storage]).to_pylist()
    assert "s3cret" not in str(told)
    assert {row["uid"] for row in told} == {uids.uid(url, "a b c") for url in urls}
    assert "s3cret" not in capfd.readouterr().out + caplog.text
    for path in storage.root.rglob("*"):
        if path.is_file() and path.parent.name not in ("pairs", "rows"):
            assert b"s3cret" not in path.read_bytes(), path
