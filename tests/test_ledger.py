import gzip
import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import uids
from pipeline.errors import SourceError, StorageError
from pipeline.ledger import ingest
from pipeline.sources import loading
from pipeline.store.storage import Storage


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def listed(tmp_path, rows, **settings):
    """A source over a TSV of (caption, url, *extra) rows."""
    (tmp_path / "list.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    extra = settings.pop("extra", [])
    columns = json.dumps(["caption", "url", *extra])
    toml = f'[pairs]\nlocation = "list.tsv"\ncolumns = {columns}\nextra = {json.dumps(extra)}\n'
    toml += "[download]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items())
    (tmp_path / "tiny.toml").write_text(toml)
    return loading.load(tmp_path / "tiny.toml")


def many(count, start=0):
    return [(f"caption {number}", f"http://host/{number}.jpg") for number in range(start, start + count)]


def stored(store, ledger):
    return {shard.number: pq.read_table(store.fetch(shard.key)) for shard in ledger.shards}


def test_uid_is_pinned_for_ever():
    assert uids.uid("http://host/a.jpg", "a dog") == "41c195d3b396c8469311628e73881902"
    assert uids.uid("http://host/a.jpg", "a d\ufffdg") != uids.uid("http://host/a.jpg", "a dog")


def test_every_row_is_counted_and_cut_into_shards(tmp_path, store):
    rows = many(25)
    ledger = ingest.update(listed(tmp_path, rows + rows[:3], shard_size=10), store)
    assert (ledger.input, ledger.repeated, ledger.rows, ledger.new, ledger.gone) == (28, 3, 25, 25, 0)
    assert [shard.rows for shard in ledger.shards] == [10, 10, 5]
    captions = [caption for table in stored(store, ledger).values() for caption in table["caption"].to_pylist()]
    assert captions == [caption for caption, _ in rows]


def test_nothing_new_appends_nothing(tmp_path, store):
    first = ingest.update(listed(tmp_path, many(25), shard_size=10), store)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*.*") if path.is_file()}
    again = ingest.update(listed(tmp_path, many(25), shard_size=10), store)
    assert again.shards == first.shards
    assert again.digest == first.digest
    assert again.new == 0
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*.*") if path.is_file()} == before


def test_an_inserted_line_moves_nothing(tmp_path, store):
    rows = many(25)
    first = ingest.update(listed(tmp_path, rows, shard_size=10), store)
    grown = ingest.update(listed(tmp_path, [("new", "http://host/new.jpg"), *rows], shard_size=10), store)
    assert grown.shards[:3] == first.shards
    assert [shard.rows for shard in grown.shards[3:]] == [1]
    assert (grown.new, grown.rows, grown.gone, grown.current) == (1, 26, 0, None)
    assert grown.digest != first.digest


def test_order_means_nothing(tmp_path, store):
    rows = many(25)
    first = ingest.update(listed(tmp_path, rows, shard_size=10), store)
    random.Random(0).shuffle(rows)
    assert ingest.update(listed(tmp_path, rows, shard_size=10), store).digest == first.digest


def test_a_shrunken_source_names_what_is_left(tmp_path, store):
    rows = many(25)
    ingest.update(listed(tmp_path, rows, shard_size=10), store)
    left = ingest.update(listed(tmp_path, rows[12:], shard_size=10), store)
    assert (left.rows, left.gone, left.new) == (13, 12, 0)
    assert [shard.number for shard in left.shards] == [1, 2]
    current = set(pq.read_table(store.fetch(left.current))["entry"].to_pylist())
    assert current == {uids.uid(url, caption) for caption, url in rows[12:]}
    back = ingest.update(listed(tmp_path, rows, shard_size=10), store)
    assert (back.rows, back.new, back.current) == (25, 0, None)


def test_captions_of_one_url_share_a_shard_and_a_number(tmp_path, store):
    rows = many(12)
    rows.insert(9, ("another", rows[1][1]))
    rows.append(("a third", rows[1][1]))
    tables = stored(store, ingest.update(listed(tmp_path, rows, shard_size=5), store))
    assert tables[0]["url_number"].to_pylist() == [0, 1, 1, 1, 2]
    assert sum(len(table) for table in tables.values()) == 14
    where = {url: number for number, table in tables.items() for url in table["url"].to_pylist()}
    assert all(where[url] == number for number, table in tables.items() for url in table["url"].to_pylist())


def test_changed_extra_columns_are_a_new_entry_of_the_same_pair(tmp_path, store):
    rows = [(*pair, "dog") for pair in many(5)]
    ingest.update(listed(tmp_path, rows, extra=["label"]), store)
    rows[2] = (*rows[2][:2], "cat")
    ledger = ingest.update(listed(tmp_path, rows, extra=["label"]), store)
    assert (ledger.rows, ledger.new, ledger.amended, ledger.gone) == (5, 1, 1, 0)
    current = set(pq.read_table(store.fetch(ledger.current))["entry"].to_pylist())
    labels = [
        row["label"] for table in stored(store, ledger).values() for row in table.to_pylist() if row["entry"] in current
    ]
    assert sorted(labels) == ["cat", "dog", "dog", "dog", "dog"]


def test_a_killed_append_is_begun_again(tmp_path, store):
    """Shards without their commit are as if they had never been."""
    uninterrupted = ingest.update(listed(tmp_path, many(25), shard_size=10), Storage(tmp_path / "other"))
    ingest.update(listed(tmp_path, many(25), shard_size=10), store)
    (store.root / "ledger/00000000.json").unlink()
    (store.root / uninterrupted.shards[2].key).unlink()
    assert ingest.update(listed(tmp_path, many(25), shard_size=10), store) == uninterrupted


def test_bytes_that_are_no_text_and_lines_that_are_no_pairs_stay_rows(tmp_path, store):
    tiny = listed(tmp_path, many(2))
    with (tmp_path / "list.tsv").open("ab") as file:
        file.write(b"caf\xe9\thttp://host/c.jpg\r\nno tab at all\na\tb\tc\n\n")
    ledger = ingest.update(tiny, store)
    rows = stored(store, ledger)[0].to_pylist()
    assert ledger.input == 5
    assert [row["caption"] for row in rows[2:]] == ["caf\ufffd", "no tab at all", "a\tb\tc"]
    assert [row["url"] for row in rows[2:]] == ["http://host/c.jpg", "", ""]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "tsv.gz"])
def test_every_format_gives_the_same_pairs(tmp_path, store, kind):
    rows = [
        ("a dog, really", "http://host/1.jpg"),
        ('the "best"\ncat' if kind != "tsv.gz" else "cat", "http://host/2.jpg"),
    ]
    path = tmp_path / f"list.{kind}"
    if kind == "csv":
        quoted = ['"' + caption.replace('"', '""') + f'",{url}' for caption, url in rows]
        path.write_text("\n".join(["TEXT,URL", *quoted]) + "\n")
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps({"TEXT": caption, "URL": url, "n": 1}) for caption, url in rows))
    elif kind == "parquet":
        pq.write_table(pa.table({"URL": [url for _, url in rows], "TEXT": [text for text, _ in rows]}), path)
    else:
        path.write_bytes(gzip.compress("".join(f"{text}\t{url}\n" for text, url in [("TEXT", "URL"), *rows]).encode()))
    toml = f'[pairs]\nlocation = "{path.name}"\nurl = "URL"\ncaption = "TEXT"\n'
    (tmp_path / "tiny.toml").write_text(toml)
    table = stored(store, ingest.update(loading.load(tmp_path / "tiny.toml"), store))[0]
    assert list(zip(table["caption"].to_pylist(), table["url"].to_pylist(), strict=True)) == rows


def test_a_list_over_http(tmp_path, store, httpserver_folder):
    folder, address = httpserver_folder
    (folder / "list.tsv.gz").write_bytes(gzip.compress(b"a dog\thttp://host/1.jpg\n"))
    toml = f'[pairs]\nlocation = "{address}/%s"\ncolumns = ["caption", "url"]\n'
    (tmp_path / "tiny.toml").write_text(toml % "list.tsv.gz")
    assert ingest.update(loading.load(tmp_path / "tiny.toml"), store).rows == 1
    (tmp_path / "tiny.toml").write_text(toml % "missing.tsv")
    with pytest.raises(SourceError, match=r"missing.tsv cannot be fetched: .*404"):
        ingest.update(loading.load(tmp_path / "tiny.toml"), store)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"caption,url\n", "the first row has 1 of 2 columns"),
        (gzip.compress(b"a dog\thttp://host/1.jpg\n" * 9999)[:-40], "cannot be read as tsv"),
    ],
)
def test_a_list_that_is_none_is_one_clear_line_and_appends_nothing(tmp_path, store, content, message):
    tiny = listed(tmp_path, many(1))
    (tmp_path / "list.tsv").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        ingest.update(tiny, store)
    assert not store.keys("ledger")


def test_a_missing_column_names_the_nearest(tmp_path, store):
    pq.write_table(pa.table({"URL": ["http://host/1.jpg"], "TEXT": ["a"]}), tmp_path / "list.parquet")
    (tmp_path / "tiny.toml").write_text('[pairs]\nlocation = "list.parquet"\nurl = "URL"\ncaption = "TEXTS"\n')
    with pytest.raises(SourceError, match="has no column 'TEXTS'; did you mean 'TEXT'"):
        ingest.update(loading.load(tmp_path / "tiny.toml"), store)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_column_that_the_list_has_twice_is_one_clear_line(tmp_path, store, kind):
    if kind == "parquet":
        table = pa.table(
            [pa.array([text]) for text in ("http://host/1.jpg", "a", "b")], names=["url", "caption", "caption"]
        )
        pq.write_table(table, tmp_path / "list.parquet")
    else:
        (tmp_path / "list.csv").write_text("url,caption,caption\nhttp://host/1.jpg,a,b\n")
    (tmp_path / "tiny.toml").write_text(f'[pairs]\nlocation = "list.{kind}"\n')
    with pytest.raises(SourceError, match="has 2 columns called 'caption': rename all but one"):
        ingest.update(loading.load(tmp_path / "tiny.toml"), store)


def test_a_lost_file_of_the_ledger_is_one_line_with_what_is_lost_and_a_way_out_that_works(tmp_path, store):
    tiny = listed(tmp_path, many(25), shard_size=10)
    first = ingest.update(tiny, store)
    lost = store.fetch(first.shards[1].key)
    lost.rename(tmp_path / "backup.parquet")
    with pytest.raises(StorageError) as fault:
        ingest.update(tiny, store)
    said = str(fault.value)
    assert f"{first.shards[1].key} is missing from {store.root}, and with it the URLs and captions of 10 pairs" in said
    assert "put it back from a backup; without one, move" in said
    (tmp_path / "backup.parquet").rename(lost)
    assert ingest.update(tiny, store).new == 0
