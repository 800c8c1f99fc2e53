"""URLs as browsers read them: kinds of cases of the WHATWG URL standard, with examples of our own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.failure import RowError
from pipeline.ledger import lists
from pipeline.settings.pairs import Pairs
from pipeline.web.url import Url, canonical

READ = {
    # tabs and newlines anywhere, blanks and controls around
    "ht\ttp://pic\ntures.example/\r1.jpg": "http://pictures.example:80/1.jpg",
    " \x01http://pictures.example/1.jpg \x1f": "http://pictures.example:80/1.jpg",
    "http://pictures.example/a b.jpg": "http://pictures.example:80/a%20b.jpg",
    # schemes, slashes and backslashes
    "HtTpS://pictures.example/1.jpg": "https://pictures.example:443/1.jpg",
    "http:pictures.example/1.jpg": "http://pictures.example:80/1.jpg",
    "http:/pictures.example/1.jpg": "http://pictures.example:80/1.jpg",
    "http:////pictures.example/1.jpg": "http://pictures.example:80/1.jpg",
    "http:\\\\pictures.example\\a\\1.jpg": "http://pictures.example:80/a/1.jpg",
    "http://pictures.example\\@other.example/": "http://pictures.example:80/@other.example/",
    "http://pictures.example/?a\\b": "http://pictures.example:80/?a\\b",
    # paths: dots, empty segments, percent
    "http://pictures.example": "http://pictures.example:80/",
    "http://pictures.example?1": "http://pictures.example:80/?1",
    "http://pictures.example/a/./b/../1.jpg": "http://pictures.example:80/a/1.jpg",
    "http://pictures.example/../../1.jpg": "http://pictures.example:80/1.jpg",
    "http://pictures.example/a/%2e%2E/1.jpg": "http://pictures.example:80/1.jpg",
    "http://pictures.example/a/..": "http://pictures.example:80/",
    "http://pictures.example/a/.": "http://pictures.example:80/a/",
    "http://pictures.example/.../1.jpg": "http://pictures.example:80/.../1.jpg",
    "http://pictures.example//a///1.jpg": "http://pictures.example:80//a///1.jpg",
    "http://pictures.example/100%.jpg": "http://pictures.example:80/100%.jpg",
    "http://pictures.example/%zz%4": "http://pictures.example:80/%zz%4",
    "http://pictures.example/\u00fc?\u00fc": "http://pictures.example:80/%C3%BC?%C3%BC",
    'http://pictures.example/"<>`{}^|': "http://pictures.example:80/%22%3C%3E%60%7B%7D%5E|",
    "http://pictures.example/?'\"<>`{}": "http://pictures.example:80/?%27%22%3C%3E`{}",
    "http://pictures.example/\x00\x7f": "http://pictures.example:80/%00%7F",
    "http://pictures.example/\ud800": "http://pictures.example:80/%EF%BF%BD",
    # fragments are not sent
    "http://pictures.example/1.jpg#top": "http://pictures.example:80/1.jpg",
    "http://pictures.example#/1.jpg": "http://pictures.example:80/",
    # ports
    "http://pictures.example:80/": "http://pictures.example:80/",
    "http://pictures.example:/": "http://pictures.example:80/",
    "http://pictures.example:00081/": "http://pictures.example:81/",
    "https://pictures.example:80/": "https://pictures.example:80/",
    "http://pictures.example:65535/": "http://pictures.example:65535/",
    # names and passwords are not sent
    "http://me@pictures.example/": "http://pictures.example:80/",
    "http://me:secret@pictures.example/": "http://pictures.example:80/",
    "http://a@b@pictures.example/": "http://pictures.example:80/",
    "http://me:@pictures.example/": "http://pictures.example:80/",
    # IPv4 in every way, IPv6
    "http://127.1/": "http://127.0.0.1:80/",
    "http://0x7f.0.0.1/": "http://127.0.0.1:80/",
    "http://0177.0.0.01/": "http://127.0.0.1:80/",
    "http://2130706433/": "http://127.0.0.1:80/",
    "http://0x7F000001/": "http://127.0.0.1:80/",
    "http://10.0.258/": "http://10.0.1.2:80/",
    "http://127.0.0.1./": "http://127.0.0.1:80/",
    "http://\uff11\uff12\uff17.1/": "http://127.0.0.1:80/",
    "http://%31%32%37.1/": "http://127.0.0.1:80/",
    "http://[::1]/": "http://[::1]:80/",
    "http://[1:0:0:0:0:0:0:1]:8080/": "http://[1::1]:8080/",
    "http://[::ffff:127.0.0.1]/": "http://[::ffff:7f00:1]:80/",
    "http://[2001:DB8::]/": "http://[2001:db8::]:80/",
    # names of hosts: case, width, dots, sharp s, percent
    "http://PICTURES.Example/": "http://pictures.example:80/",
    "http://pictures.example./": "http://pictures.example:80/",
    "http://b\u00fccher.example/": "http://xn--bcher-kva.example:80/",
    "http://fa\u00df.example/": "http://xn--fa-hia.example:80/",
    "http://\uff30\uff49\uff43.example/": "http://pic.example:80/",
    "http://pictures\u3002example/": "http://pictures.example:80/",
    "http://pic%74ures.example/": "http://pictures.example:80/",
    "http://pic\u00adtures.example/": "http://pictures.example:80/",
    "http://a_b.example/": "http://a_b.example:80/",
    "http://1.2.3.0xg/": "http://1.2.3.0xg:80/",
    "http://xn--bcher-kva.example/": "http://xn--bcher-kva.example:80/",
}

REFUSED = [
    "", " ", "pictures.example/1.jpg", "//pictures.example/1.jpg", "/1.jpg", "http", "http:", "http://", "http:///",
    "https://?1", "http://#1", "http://:80/", "http://@/", "http://me@/", "http://pictures.example:65536/",
    "http://pictures.example:a/", "http://pictures.example:-1/", "http://pictures.example:80:80/",
    "http://pictures.example:0/", "http://a b.example/", "http://a<b.example/", "http://a|b.example/",
    "http://a^b.example/", "http://a%b.example/", "http://a%00.example/", "http://%2f.example/", "http://a%23b/",
    "http://256.0.0.1/", "http://1.2.3.4.5/", "http://0x100000000/", "http://09.0.0.1/", "http://1.2.3.08/",
    "http://[::1/", "http://::1/", "http://[::g]/", "http://[1::2::3]/", "http://[1:2:3]/",
    "http://[::1%25eth0]/", "http://[1.2.3.4]/", "http://./", "http://../", "http://a..example/", "http://xn--/",
    "http://\u00ad/", "http://\ufffd.example/", f"http://{'a' * 64}.example/",
    "1ttp://pictures.example/", "ht+tp//pictures.example/",
]  # fmt: skip

OTHER = [
    "ftp://pictures.example/1.jpg", "file:///etc/passwd", "data:image/png;base64,AA==", "javascript:alert(1)",
    "blob:http://pictures.example/1", "ws://pictures.example/", "gopher://x/", "hTTpx://pictures.example/",
    "mailto:me@pictures.example", "view-source:http://pictures.example/", "c:\\pictures\\1.jpg",
]  # fmt: skip


@pytest.mark.parametrize(("text", "read"), READ.items())
def test_an_address_is_read_as_browsers_read_it(text, read):
    assert Url.parse(text).text == read


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(RowError) as error:
        Url.parse(text)
    assert error.value.cause == "invalid_url"


@pytest.mark.parametrize("text", OTHER)
def test_other_schemes_are_blocked(text):
    with pytest.raises(RowError) as error:
        Url.parse(text)
    assert error.value.cause == "blocked_scheme"


@pytest.mark.parametrize(
    ("target", "read"),
    [
        ("2.jpg", "http://pictures.example:80/a/2.jpg"),
        ("/2.jpg", "http://pictures.example:80/2.jpg"),
        ("//other.example/2.jpg", "http://other.example:80/2.jpg"),
        ("\\\\other.example\\2.jpg", "http://other.example:80/2.jpg"),
        ("?2", "http://pictures.example:80/a/1.jpg?2"),
        ("", "http://pictures.example:80/a/1.jpg?1"),
        ("#top", "http://pictures.example:80/a/1.jpg?1"),
        ("../../2.jpg", "http://pictures.example:80/2.jpg"),
        ("http:2.jpg", "http://pictures.example:80/a/2.jpg"),
        ("https:2.jpg", "https://2.jpg:443/"),
    ],
)
def test_redirects_are_relative_to_their_page(target, read):
    assert Url.parse(target, "http://pictures.example/a/1.jpg?1").text == read


PARTS = [
    "http",
    "https",
    ":",
    "/",
    "//",
    "\\",
    "@",
    "%2e",
    "%",
    "%41",
    "..",
    ".",
    "?",
    "#",
    "a",
    "B",
    "ex.org",
    "127.1",
    "[::1]",
    ":80",
    ":0",
    "&",
    "=",
    "|",
]
PARTS += ["\t", " ", "\u00df", "\u3002", "\ufeff", "\ud800", "\x00"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=9).map("".join), st.booleans())
def test_any_text_is_read_or_refused_and_reading_is_stable(text, with_scheme):
    text = f"http://ex.org/{text}" if with_scheme else text
    try:
        read = Url.parse(text)
    except RowError:
        return
    assert read.text.isascii()
    assert read.text.isprintable()
    assert Url.parse(read.text) == read
    once = canonical(text)
    assert canonical(once) == once
    assert Url.parse(once).authority == read.authority


@pytest.mark.parametrize("name", ["a?b.csv", "list [1].csv", "100% #1.csv", "star*.csv", "größe 日本.csv", "-dash.csv"])
def test_any_file_name_is_a_list(tmp_path, name):
    (tmp_path / name).write_text("url,caption\nhttp://host/1.jpg,a\n", encoding="utf-8")
    pairs = Pairs.model_validate({"location": name}, context={"folder": tmp_path})
    assert [batch["url"].to_pylist() for batch in lists.read(pairs, tmp_path)] == [["http://host/1.jpg"]]
