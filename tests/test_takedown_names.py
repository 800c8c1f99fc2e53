"""What the lines of a takedown list fit: a URL in any spelling, digests in any case; and what fits nothing."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flows.cli import app
from pipeline.ledger import ingest
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import committed
from pipeline.ledger.url_digests import digest
from pipeline.settings.pairs import Pairs
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request
from pipeline.uids import uid
from pipeline.upkeep import forget

SPELLINGS = {
    "fragment": ("http://cats.example/tabby.jpg", "http://cats.example/tabby.jpg#gallery"),
    "case of the scheme": ("http://cats.example/tabby.jpg", "hTTp://cats.example/tabby.jpg"),
    "case of the host": ("https://cats.example/Tabby.JPG", "https://Cats.EXAMPLE/Tabby.JPG"),
    "default port": ("http://cats.example/tabby.jpg", "http://cats.example:80/tabby.jpg"),
    "default port of https": ("https://cats.example/tabby.jpg", "https://cats.example:443/tabby.jpg"),
    "unreserved, encoded": ("http://cats.example/~mia/no_1-a.jpg", "http://cats.example/%7Emia/no%5F1%2da%2Ejpg"),
    "unreserved, in the query": ("http://cats.example/view?n=7&size=big", "http://cats.example/view?%6e=7&size=b%69g"),
    "case of percent-encoding": ("http://cats.example/a%2Fb%C3%BC.jpg", "http://cats.example/a%2fb%c3%bc.jpg"),
    "letters beyond ASCII": ("http://cats.example/k%C3%A4tzchen.jpg", "http://cats.example/kätzchen.jpg"),
    "a space": ("http://cats.example/my%20cat.jpg", "http://cats.example/my cat.jpg"),
    "a bar, which no URL holds": ("http://cats.example/a%7Cb.jpg", "http://cats.example/a|b.jpg"),
    "a lone percent sign": ("http://cats.example/100%25.jpg", "http://cats.example/100%.jpg"),
    "blanks around": ("http://cats.example/tabby.jpg", "  http://cats.example/tabby.jpg\t"),
    "a no-break space": ("http://cats.example/tabby.jpg", "\u00a0http://cats.example/tabby.jpg\u200b"),
    "backslashes": ("http://cats.example/old/tabby.jpg", "http:\\\\cats.example\\old\\tabby.jpg"),
    "dot segments": ("http://cats.example/old/tabby.jpg", "http://cats.example/./new/../old/tabby.jpg"),
    "encoded dot segments": ("http://cats.example/old/tabby.jpg", "http://cats.example/new/%2E%2e/old/tabby.jpg"),
    "IDN": ("http://xn--ktzchen-5wa.example/tabby.jpg", "http://Kätzchen.example/tabby.jpg"),
    "a dot behind the host": ("http://cats.example/tabby.jpg", "http://cats.example./tabby.jpg"),
    "an address in hex": ("http://192.0.2.7/tabby.jpg", "http://0xC0.0.2.7/tabby.jpg"),
    "no path": ("http://cats.example/", "http://cats.example"),
    "an empty query": ("http://cats.example/tabby.jpg", "http://cats.example/tabby.jpg?"),
    "a password": ("http://cats.example/tabby.jpg", "http://mia:s3cret@cats.example/tabby.jpg"),
    "a token": ("http://cats.example/t.jpg?w=9&token=a7f3", "http://cats.example/t.jpg?w=9&token=hidden"),
    "a token and a capital": ("http://cats.example/t.jpg?Sig=a%2f7", "http://CATS.example/t.jpg?Sig=hidden#x"),
}
DIRECTIONS = [
    pytest.param(*pair, id=f"{name}, {direction}")
    for name, forms in SPELLINGS.items()
    for direction, pair in (("listed plain", forms), ("listed so", forms[::-1]))
]
OTHER = "http://cats.example/siamese.jpg"


@pytest.fixture
def update(tmp_path):
    """A function that makes (URL, caption) rows the list of a source and reads it into the ledger of a store."""
    listed, storage = tmp_path / "cats.parquet", Storage(tmp_path / "root" / "cats")

    def read(*rows):
        pq.write_table(pa.table({"url": [url for url, _ in rows], "caption": [words for _, words in rows]}), listed)
        ingest.update(Source(name="cats", pairs=Pairs(location=str(listed))), storage)
        return storage

    return read


def request(tmp_path, *lines):
    (tmp_path / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    return Request.read(tmp_path / "list.txt")


def captions(storage):
    """All words that the ledger holds."""
    tables = [pq.read_table(storage.fetch(shard.key)) for shard in committed(storage)]
    return {caption for table in tables for caption in table["caption"].to_pylist()} - {""}


@pytest.mark.parametrize(("listed", "named"), DIRECTIONS)
def test_a_url_is_compared_as_it_is_fetched(tmp_path, update, listed, named):
    storage = update((listed, "a tabby"), (OTHER, "a siamese"))
    asked = request(tmp_path, named)
    counted = forget.preview(storage, asked)
    assert (counted.names, counted.pairs, counted.unmatched) == (1, 1, ())
    done = forget.forget(storage, asked, None)
    assert (done.pairs, done.unknown, captions(storage)) == (1, 0, {"a siamese"})
    assert forget.forget(storage, asked, None).unmatched == ()


@pytest.mark.parametrize(("listed", "named"), DIRECTIONS)
def test_a_blocked_url_stays_away_in_every_spelling(tmp_path, update, listed, named):
    """Named before the list has it, and blocked with the pair that had the other spelling."""
    storage = update((OTHER, "a siamese"))
    assert forget.forget(storage, request(tmp_path, named), None).unknown == 1
    storage = update((OTHER, "a siamese"), (listed, "a tabby"))
    assert captions(storage) == {"a siamese"}
    if "=hidden" not in listed:
        assert forget.preview(storage, request(tmp_path, named)).unmatched == ()


def test_a_pair_takes_along_the_other_spellings_of_its_url(tmp_path, update):
    plain, *others = urls = [
        "http://cats.example/5.jpg",
        "HTTP://cats.example/%35.jpg",
        "http://cats.example:80/5.jpg#top",
    ]
    storage = update(*((url, f"cat {n}") for n, url in enumerate(urls)), (OTHER, "a siamese"))
    assert forget.forget(storage, request(tmp_path, uid(others[0], "cat 1").upper()), None).pairs == 3
    update(*((f"{plain}?#{n}", f"late {n}") for n in range(3)), (OTHER, "a siamese"))
    assert captions(storage) == {"a siamese"}


def test_what_is_fetched_differently_stays(tmp_path, update):
    near = [
        "https://cats.example/tabby.jpg",
        "http://cats.example:8080/tabby.jpg",
        "http://cats.example/Tabby.jpg",
        "http://cats.example/tabby.jpg?size=big",
        "http://cats.example/tabby.jpg/",
        "http://cats.example/%2574abby.jpg",
        "http://www.cats.example/tabby.jpg",
    ]
    storage = update(*((url, url) for url in near))
    assert forget.forget(storage, request(tmp_path, "http://cats.example/tabby.jpg"), None).pairs == 0
    tokens = [f"http://cats.example/t.jpg?token={each}" for each in ("one", "two")]
    storage = update(*((url, url) for url in near + tokens))
    assert captions(storage) == {*near, *tokens}
    assert forget.forget(storage, request(tmp_path, tokens[0]), None).pairs == 1
    assert captions(storage) == {*near, tokens[1]}


def test_no_address_is_compared_as_it_is_written(tmp_path, update):
    bad = "http://mia:s3/cret@cats.example/tabby.jpg"
    storage = update((bad, "a tabby"), ("http://", "nothing"), ("cats/tabby.jpg", "a path"))
    assert forget.forget(storage, request(tmp_path, bad), None).pairs == 1
    assert captions(storage) == {"nothing", "a path"}


def test_a_block_list_of_digests_of_urls_as_written_still_blocks(tmp_path, update):
    """Those of the first versions, which have the plain spelling or another."""
    plain, odd = "http://cats.example/tabby.jpg", "HTTP://cats.example/%74om.jpg#x"
    storage = update((OTHER, "a siamese"))
    Blocked(urls=frozenset(map(digest, (plain, odd)))).commit(storage)
    update((OTHER, "a siamese"), (plain, "a"), (f"{plain}#top", "b"), (odd, "c"))
    assert captions(storage) == {"a siamese"}


MISFITS = ("http://cats.example/lynx.jpg", uid("a", "b"), "ab" * 32)


def test_names_that_fit_nothing_are_listed_each_time(tmp_path, update):
    fits = "http://cats.example/tabby.jpg"
    storage = update((fits, "a tabby"), (OTHER, "a siamese"))
    asked = request(tmp_path, fits, f"{fits}#top", *(each.upper() for each in MISFITS[1:]), MISFITS[0])
    expected = (5, 1, 3, {*MISFITS})
    for look in (forget.preview, lambda *given: forget.forget(*given, None)):
        done = look(storage, asked)
        assert (done.names, done.pairs, done.unknown, set(done.unmatched)) == expected
    objects = storage.keys("forgotten")
    again = forget.forget(storage, asked, None)
    assert (again.names, again.pairs, set(again.unmatched)) == (5, 0, {*MISFITS})
    assert storage.keys("forgotten") == objects
    update((OTHER, "a siamese"), (f"{MISFITS[0]}#late", "a lynx"))
    assert set(forget.preview(storage, asked).unmatched) == {*MISFITS[1:]}


def test_the_command_lists_them_without_secrets_and_fails(tmp_path, update):
    storage = update(("http://cats.example/tabby.jpg", "a tabby"), (OTHER, "a siamese"))
    (storage.root.parent / "dogs" / "ledger").mkdir(parents=True)
    file = tmp_path / "list.txt"
    words = ["forget", "--all", "--file", str(file), "--root", str(storage.root.parent)]

    def run(*more):
        done = CliRunner().invoke(app, [*words, *more], prog_name="winnow")
        return done.exit_code, done.stdout, done.stderr

    file.write_text("http://cats.example/tabby.jpg\nhttp://cats.example/lynx.jpg?token=abc\nhttp://cats.example/puma\n")
    for more in (["--dry-run"], []):
        status, out, err = run(*more)
        assert status == 1
        lines = out.splitlines()
        assert "http://cats.example/lynx.jpg?token=hidden" in lines
        assert "http://cats.example/puma" in lines
        assert "http://cats.example/tabby.jpg" not in lines
        assert err.startswith("winnow: 2 of 3 names fit no pair; they ")
    status, out, _ = run("--json")
    assert status == 1
    assert json.loads(out)["unmatched"] == ["http://cats.example/lynx.jpg?token=hidden", "http://cats.example/puma"]
    file.write_text("http://cats.example/tabby.jpg#top\n")
    assert run()[0] == 0
