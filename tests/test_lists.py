"""Lists as people write them: each is read whole, or refused in one line."""

import codecs
import csv
import datetime
import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import SourceError
from pipeline.ledger import ingest, lists
from pipeline.scorers.entries import _read_list
from pipeline.scorers.words import WordsSpec
from pipeline.scoring.plan import Plan
from pipeline.settings.download import Download
from pipeline.settings.pairs import Pairs
from pipeline.sources import loading
from pipeline.store.storage import Storage
from pipeline.takedown.request import Request

CAFE = "ein Caf\xe9 im Regen"
ROWS = [("http://host/1.jpg", "a dog, asleep"), ("http://host/2.jpg", CAFE)]


def read(folder, name, content, **keys):
    """The (url, caption, *extra) rows of a list, and the warnings."""
    if isinstance(content, pa.Table):
        pq.write_table(content, folder / name)
    else:
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return rows_of(Pairs(location=str(folder / name), **keys))


def rows_of(pairs, scratch=Path()):
    warnings = []
    batches = list(lists.read(pairs, scratch, warnings.append))
    return [tuple(row.values()) for batch in batches for row in batch.to_pylist()], warnings


def refused(folder, name, content, match, **keys):
    with pytest.raises(SourceError, match=match) as fault:
        read(folder, name, content, **keys)
    assert "\n" not in str(fault.value)


def table(*rows, columns=("url", "caption")):
    return pa.table({name: list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)})


def csv_text(delimiter=","):
    fields = [[f'"{field}"' if delimiter in field else field for field in row] for row in ROWS]
    return "\n".join(delimiter.join(row) for row in [["url", "caption"], *fields]) + "\n"


@pytest.mark.parametrize("end", ["", '\nhttp://host/3.jpg,"three"\nhttp://host/4.jpg,four\n'])
def test_a_quote_that_never_closes_swallows_no_row(tmp_path, end):
    content = 'url,caption\nhttp://host/1.jpg,one\nhttp://host/2.jpg,"two\nhttp://host/5.jpg,five' + end
    refused(tmp_path, "list.csv", content, 'line 3: the quotes of the row that begins here .* quote = ""')
    rows, _ = read(tmp_path, "list.csv", content, quote="")
    assert rows[1] == ("http://host/2.jpg", '"two')


def test_quotes_that_are_escaped_otherwise_are_refused_and_lines_inside_quotes_are_counted_right(tmp_path):
    content = 'url,caption\nhttp://host/1.jpg,"one\nline"\nhttp://host/2.jpg,"a \\"b\\" c"\n'
    refused(tmp_path, "list.csv", content, "line 4: the quotes")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "csv.gz"])
def test_a_byte_order_mark_names_the_encoding(tmp_path, encoding, kind):
    content = csv_text("\t" if kind == "tsv" else ",").encode(encoding)
    assert read(tmp_path, f"list.{kind}", gzip.compress(content) if kind == "csv.gz" else content) == (ROWS, [])


@pytest.mark.parametrize(("mark", "name"), [(codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_BE, "utf-32-be")])
def test_a_byte_order_mark_goes_before_the_key(tmp_path, mark, name):
    assert read(tmp_path, "list.csv", mark + csv_text().encode(name), encoding="cp1252") == (ROWS, [])


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac_roman", "utf-16-le", "utf-7"])
def test_the_encoding_key(tmp_path, encoding):
    assert read(tmp_path, "list.csv", csv_text().encode(encoding), encoding=encoding) == (ROWS, [])


def test_chinese_captions_in_gbk_and_json_lines(tmp_path):
    line = '{"url": "http://host/1.jpg", "caption": "一只棕色的狗"}\n'
    rows, _ = read(tmp_path, "list.jsonl", line.encode("gbk"), encoding="gbk")
    assert rows == [("http://host/1.jpg", "一只棕色的狗")]


def test_rows_whose_bytes_are_no_text_are_counted(tmp_path):
    rows, (warning,) = read(tmp_path, "list.csv", csv_text().encode("cp1252"))
    assert rows[1][1] == CAFE.replace("\xe9", "\ufffd")
    assert "rows with bytes that are not UTF-8: 1; U+FFFD is read instead; set encoding" in warning
    assert read(tmp_path, "list.csv", csv_text().replace("\xe9", "\ufffd"))[1] == []


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_one_line(tmp_path, encoding):
    refused(tmp_path, "list.csv", csv_text().encode(encoding), f'looks like UTF-16: set encoding = "{encoding}"')


@pytest.mark.parametrize("name", ["utf9", "rot13", "hex", "idna"])
def test_an_encoding_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is no text encoding that Python knows"):
        read(tmp_path, "list.csv", csv_text(), encoding=name)


def test_the_first_record_is_checked_wherever_it_stands(tmp_path):
    line = '{"URL": "http://host/1.jpg", "TEXT": "a"}\n'
    refused(tmp_path, "list.jsonl", "\n \n" + line, "has no column 'url'")
    refused(tmp_path, "list.jsonl", "\n[1]\n", "line 2, the first that is not blank, is no JSON object")
    refused(tmp_path, "list.csv", "\n\nURL,caption\n\na,b\n", "has no column 'url'")
    refused(tmp_path, "list.csv", "url,caption\n\nhttp://host/1.jpg,a,\n", "line 3: the first row has 3 of 2 columns")
    refused(
        tmp_path, "list.tsv", "\n\nhttp://host/1.jpg\n", "line 3: the first row has 1 of 2", columns=("url", "caption")
    )


@pytest.mark.parametrize("start", ["\n", "\r\n \r\n", "\n\n\n"])
def test_blank_lines_before_a_header_are_skipped(tmp_path, start):
    for name, delimiter in (("list.csv", ","), ("list.tsv", "\t")):
        assert read(tmp_path, name, start + csv_text(delimiter)) == (ROWS, [])


def test_later_rows_with_another_number_of_fields_stay_rows(tmp_path):
    rows, _ = read(tmp_path, "list.csv", csv_text() + "http://host/3.jpg\nhttp://host/4.jpg,a,b\n")
    assert rows[2:] == [("", "http://host/3.jpg"), ("", "http://host/4.jpg\ta\tb")]


def test_a_list_of_captions_is_a_row_for_each(tmp_path):
    captions = [["one", "two"], [], None, ["three", None]]
    expected = [("1", "one"), ("1", "two"), ("2", ""), ("3", ""), ("4", "three"), ("4", "")]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        urls = pa.array(["1", "2", "3", "4"])
        assert read(tmp_path, "list.parquet", pa.table({"url": urls, "caption": pa.array(captions, kind)})) == (
            expected,
            [],
        )
    lines = ['{"url": "1", "caption": ["one", "two"]}', '{"url": "2", "caption": []}']
    lines += ['{"url": "3", "caption": null}', '{"url": "4", "caption": ["three", null]}']
    assert read(tmp_path, "list.jsonl", "\n".join(lines)) == (expected, [])


def test_a_caption_that_is_a_struct_is_one_line(tmp_path):
    refused(tmp_path, "list.parquet", table(("1", {"en": "a"})), "column 'caption' is struct<en: string>, not text")
    refused(tmp_path, "list.parquet", table(("1", [["a"]])), "column 'caption' is list")
    refused(tmp_path, "list.parquet", table((["1"], "a")), "column 'url' is list")
    refused(tmp_path, "list.jsonl", '{"url": "1", "caption": {"en": "a"}}', "line 1: the column 'caption' is not text")
    rows, _ = read(tmp_path, "list.jsonl", '{"url": "1", "caption": "a"}\n{"url": "1", "caption": {"en": "a"}}')
    assert rows[1] == ("", '{"url": "1", "caption": {"en": "a"}}')


def raw(values, kind):
    """Text of bytes that may be no UTF-8."""
    return pa.array(values, pa.binary() if kind == pa.string() else pa.large_binary()).view(kind)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_a_parquet_string_that_is_no_utf8_is_counted(tmp_path, kind):
    content = pa.table(
        {"url": ["1", "2", "3"], "caption": raw([b"caf\xe9", b"b", None], kind), "x": raw([b"\xff", None, b"c"], kind)}
    )
    rows, (warning,) = read(tmp_path, "list.parquet", content, extra=("x",))
    assert rows == [("1", "caf\ufffd", "\ufffd"), ("2", "b", None), ("3", "", "c")]
    assert "rows with bytes that are not UTF-8: 1; U+FFFD is read instead" in warning


def source(folder, extra):
    (folder / "mine.toml").write_text(f'[pairs]\nlocation = "list.parquet"\nextra = ["{extra}"]\n')
    return loading.load(folder / "mine.toml")


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("value", [10**17, 2**62, -(10**17), 300_000_000_000_000])
def test_times_beyond_the_calendar_travel_along(tmp_path, unit, value):
    content = table(("1", "a"), ("2", "b")).append_column("taken", pa.array([value, None], pa.timestamp(unit)))
    pq.write_table(content, tmp_path / "list.parquet")
    store = Storage(tmp_path / "store")
    ledger = ingest.update(source(tmp_path, "taken"), store)
    taken = pq.read_table(store.fetch(ledger.shards[0].key))["taken"]
    assert (len(taken), taken.null_count) == (2, 1)


def test_dates_beyond_the_calendar_and_entries_of_the_others(tmp_path):
    day = datetime.date(2024, 2, 29)
    days = pa.array([day, None], pa.date32())
    far = pa.concat_arrays([days, pa.array([8_000_000], pa.int32()).view(pa.date32())])
    entries = []
    for number, column in enumerate((days, far)):
        content = table(*[(str(row), "a") for row in range(len(column))]).append_column("day", column)
        pq.write_table(content, tmp_path / "list.parquet")
        store = Storage(tmp_path / f"store{number}")
        ledger = ingest.update(source(tmp_path, "day"), store)
        entries.append(pq.read_table(store.fetch(ledger.shards[0].key))["entry"].to_pylist())
    assert entries[1][:2] == entries[0]
    assert len(set(entries[1])) == 3


@pytest.mark.parametrize(
    ("before", "after", "agreed"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint64(), pa.int8(), pa.decimal128(20, 0)),
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int32(), pa.string(), pa.string()),
        (pa.string(), pa.string(), pa.string()),
    ],
)
def test_a_column_that_grew_has_the_wider_type(tmp_path, before, after, agreed):
    store = Storage(tmp_path / "store")
    for rows, kind in ((2, before), (4, after)):
        content = table(*[(str(row), "a") for row in range(rows)])
        column = pa.array(range(rows), pa.int64()).cast(kind)
        pq.write_table(content.append_column("votes", column), tmp_path / "list.parquet")
        mine = source(tmp_path, "votes")
        ledger = ingest.update(mine, store)
    assert Plan.of(mine).results(store, ledger, ()).columns.field("votes").type == agreed


def test_files_of_one_list_whose_types_differ(tmp_path):
    (tmp_path / "parts").mkdir()
    for number, kind in enumerate((pa.int32(), pa.int64())):
        content = table((str(number), "a")).append_column("votes", pa.array([number], kind))
        pq.write_table(content, tmp_path / "parts" / f"{number}.parquet")
    (tmp_path / "mine.toml").write_text('[pairs]\nlocation = "parts"\nextra = ["votes"]\n')
    mine = loading.load(tmp_path / "mine.toml")
    assert lists.extra_columns(mine) == pa.schema({"votes": pa.int64()})
    store = Storage(tmp_path / "store")
    ledger = ingest.update(mine, store)
    assert pq.read_table(store.fetch(ledger.shards[0].key))["votes"].to_pylist() == [0, 1]


def test_files_of_one_list_with_types_that_nothing_holds_are_one_line(tmp_path):
    (tmp_path / "parts").mkdir()
    for number, value in enumerate(([1], True)):
        content = table((str(number), "a")).append_column("votes", pa.array([value]))
        pq.write_table(content, tmp_path / "parts" / f"{number}.parquet")
    (tmp_path / "mine.toml").write_text('[pairs]\nlocation = "parts"\nextra = ["votes"]\n')
    with pytest.raises(SourceError, match=r"'votes' is list<.*> and bool in the files of one list"):
        ingest.update(loading.load(tmp_path / "mine.toml"), Storage(tmp_path / "store"))


@pytest.fixture
def parts(tmp_path):
    """A folder [1] with two lists, one of them deeper, and what is none."""
    folder = tmp_path / "crawl [1]"
    (folder / "parts/deep").mkdir(parents=True)
    for name, number in (("b", 2), ("deep/c", 3), ("a", 1)):
        pq.write_table(table((f"http://host/{number}.jpg", "a")), folder / f"parts/{name}.parquet")
    for name in ("_SUCCESS", ".part.parquet", "README.md"):
        (folder / "parts" / name).write_text("no list")
    return folder


@pytest.mark.parametrize(
    ("location", "numbers"),
    [
        ('"parts"', [1, 2, 3]),
        ('"parts/*.parquet"', [1, 2]),
        ('"parts/**/*.parquet"', [1, 2, 3]),
        ('"parts/[ab].parquet"', [1, 2]),
        ('["parts/b.parquet", "parts/a.parquet", "parts/*.parquet"]', [1, 2]),
        ('["parts/b.parquet"]', [2]),
    ],
)
def test_folders_globs_and_files_are_one_sorted_list(parts, location, numbers):
    (parts / "mine.toml").write_text(f"[pairs]\nlocation = {location}\n")
    rows, _ = rows_of(loading.load(parts / "mine.toml").pairs)
    assert [url for url, _ in rows] == [f"http://host/{number}.jpg" for number in numbers]


def test_a_file_address(parts):
    location = (parts / "parts/a.parquet").as_uri()
    assert len(rows_of(Pairs(location=location))[0]) == 1


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ('"hf://datasets/me/list"', "hf:// is not read, .*dataset = .hf://.*hf download.*huggingface.co"),
        ('"s3://bucket/list.parquet"', "s3:// is not read, .*aws s3 sync"),
        ('"gs://bucket/list.parquet"', "gs:// is not read, .*gcloud storage cp"),
        ('"ftp://host/list.parquet"', "ftp:// is not read, .*copy it to this machine"),
        ('"parts/*.csv"', "no file matches"),
        ('"no.parquet"', "there is no file"),
        ("[]", "name at least one file"),
        ("3", "write one text, or a list of texts"),
        ('"empty"', "has no TSV, CSV, Parquet or JSON lines file"),
        ('"parts"\nformat = "csv"', "has no csv file"),
        ('"mixed"', r"files of several formats \(csv, tsv\): set format"),
    ],
)
def test_what_is_no_list_is_one_line(parts, location, message):
    (parts / "empty").mkdir()
    (parts / "mixed").mkdir()
    for name in ("a.csv", "a.tsv"):
        (parts / "mixed" / name).write_text("")
    (parts / "mine.toml").write_text(f"[pairs]\nlocation = {location}\n")
    with pytest.raises(SourceError, match=message) as fault:
        loading.load(parts / "mine.toml")
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_the_delimiter_is_that_of_the_header(tmp_path, delimiter, kind):
    assert read(tmp_path, f"list.{kind}", csv_text(delimiter)) == (ROWS, [])


def test_a_delimiter_that_is_not_certain_is_one_line_and_the_key_decides(tmp_path):
    content = "http://host/1.jpg;a\nhttp://host/2.jpg;b\n"
    keys = {"columns": ("url", "caption")}
    refused(tmp_path, "list.csv", content, 'has 1 of 2 columns.*set delimiter = ";"', **keys)
    assert len(read(tmp_path, "list.csv", content, delimiter=";", **keys)[0]) == 2
    with pytest.raises(ValueError, match="cannot delimit fields"):
        read(tmp_path, "list.csv", content, delimiter="::", **keys)
    with pytest.raises(ValueError, match="cannot quote fields"):
        read(tmp_path, "list.csv", content, quote="''", **keys)
    assert read(tmp_path, "list.csv", "url,caption\n1,'a, b'\n", quote="'")[0] == [("1", "a, b")]


ODD = [("http://host/1.jpg", 'the "best" dog'), ("http://host/2.jpg", "a\ttab"), ("http://host/3.jpg", "two\nlines")]


@pytest.mark.parametrize("style", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_a_tsv_that_a_csv_writer_wrote_loses_its_quotes(tmp_path, style):
    with (tmp_path / "list.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t", quoting=style).writerows([("url", "caption"), *ODD])
    assert rows_of(Pairs(location=str(tmp_path / "list.tsv"))) == (ODD, [])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_carriage_return_inside_a_line_ends_no_row(tmp_path, end):
    content = f'url,caption{end}1,a\rb{end}2,"c\rd, e"{end}'
    assert read(tmp_path, "list.csv", content) == ([("1", "a\rb"), ("2", "c\rd, e")], [])


def test_a_quoted_carriage_return_in_a_tsv_of_windows(tmp_path):
    assert read(tmp_path, "list.tsv", 'url\tcaption\r\n1\t"a\rb"\r\n') == ([("1", "a\rb")], [])


def test_lines_of_an_old_mac(tmp_path):
    assert read(tmp_path, "list.csv", "url,caption\r1,a\r2,b\r") == ([("1", "a"), ("2", "b")], [])


@pytest.mark.parametrize("caption", ['"the best" dog', '5" nails', '"hello"', '"', 'a ""b""'])
def test_quotes_of_a_plain_tsv_stay(tmp_path, caption):
    assert read(tmp_path, "list.tsv", f"url\tcaption\n1\t{caption}\n2\tb\n") == ([("1", caption), ("2", "b")], [])


def test_a_tsv_with_rows_that_look_quoted_says_so(tmp_path):
    content = 'url\tcaption\n1\t5" nails\n2\t"the ""best"" dog"\n'
    rows, (warning,) = read(tmp_path, "list.tsv", content)
    assert rows[1] == ("2", '"the ""best"" dog"')
    assert "rows with a field in quotes: 1; the quotes are read as part of the field; set quote" in warning
    assert read(tmp_path, "list.tsv", content, quote="") == (rows, [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_files_of_windows(tmp_path, encoding):
    path = tmp_path / "text"
    path.write_bytes("caf\xe9\r\nbar\r\n".encode(encoding))
    assert _read_list(path) == ["caf\xe9", "bar"]
    assert WordsSpec(kind="words", file=path).load()._words == {"caf\xe9", "bar"}
    path.write_bytes("http://host/1.jpg\r\nhttp://host/2.jpg\r\n".encode(encoding))
    assert Request.read(path).urls == {"http://host/1.jpg", "http://host/2.jpg"}
    (tmp_path / "list.csv").write_bytes(b"")
    (tmp_path / "mine.toml").write_bytes('[pairs]\r\nlocation = "list.csv"\r\n'.encode(encoding))
    assert loading.load(tmp_path / "mine.toml").pairs


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("localhost", 'has no port, and would match no URL: write "localhost:80"'),
        ("localhost:", "has no port"),
        ("host:99999", "has no port"),
        ("::1", r'write "\[::1\]:80"'),
        ("[::1]", r'write "\[::1\]:80"'),
        ("http://host:80", "is no host and port"),
        ("", "is no host and port"),
    ],
)
def test_allow_hosts_that_can_match_no_url_are_one_line(place, message):
    with pytest.raises(ValueError, match=message):
        Download(allow_hosts=(place,))


def test_allow_hosts_that_can():
    assert Download(allow_hosts=("localhost:80", "[::1]:8000")).allow_hosts == ("localhost:80", "[::1]:8000")


@pytest.mark.parametrize("name", ["2024-crawl", "Mine", "a b", "x" * 42])
def test_a_file_name_that_is_no_source_name_is_one_plain_line(tmp_path, name):
    (tmp_path / "list.csv").write_text("")
    path = tmp_path / f"{name}.toml"
    path.write_text('[pairs]\nlocation = "list.csv"\n')
    with pytest.raises(SourceError, match="cannot be the name of a source: .*rename the file, or set name in it"):
        loading.load(path)
    path.write_text('name = "mine"\n[pairs]\nlocation = "list.csv"\n')
    assert loading.load(path).name == "mine"


def test_a_parquet_or_arrow_list_by_another_name(tmp_path, httpserver_folder):
    served, address = httpserver_folder
    pq.write_table(table(*ROWS), served / "list.parquet")
    assert rows_of(Pairs(location=f"{address}/list.parquet"), tmp_path)[0] == ROWS
    (served / "list.parquet").rename(tmp_path / "list.pq")
    assert rows_of(Pairs(location=str(tmp_path / "list.pq"), format="parquet"))[0] == ROWS
    with pa.OSFile(str(tmp_path / "list.arrow"), "wb") as file, pa.ipc.new_stream(file, table(*ROWS).schema) as stream:
        stream.write_table(table(*ROWS))
    assert rows_of(Pairs(location=str(tmp_path / "list.arrow")))[0] == ROWS
