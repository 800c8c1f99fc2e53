"""The domain of a URL: the same for every spelling of its host."""

import duckdb
import pytest

from pipeline.filtering.domain import DOMAIN

DOMAINS = {
    "http://example.com": "example.com",
    "http://www.Example.com/a.jpg": "example.com",
    "HTTPS://WWW.example.com:80/a.jpg": "example.com",
    "http://example.com./a.jpg": "example.com",
    "http://example.com.:8080?a=b://c.example": "example.com",
    " http://example.com#at@other.example": "example.com",
    "http://user:pass@example.com/a@b.jpg": "example.com",
    "http://user:p@ss@www.example.com:443": "example.com",
    "ftp://example.com/a.jpg": "example.com",
    "http://images.example.com/a.jpg": "images.example.com",
    "http://www.com/a.jpg": "www.com",
    "http://www/a.jpg": "www",
    "http://wwwexample.com/": "wwwexample.com",
    "http://127.0.0.1:8377/a.jpg": "127.0.0.1",
    "http://[2001:DB8::1]/a.jpg": "[2001:db8::1]",
    "http://user@[::1]:8080/a.jpg": "[::1]",
    "": None,
    "odd": None,
    "example.com/a.jpg": None,
    "//example.com/a.jpg": None,
    "http:///a.jpg": None,
    "http://:80/a.jpg": None,
    "http://user@/a.jpg": None,
    "http://.": None,
    None: None,
}


@pytest.mark.parametrize(("url", "domain"), DOMAINS.items())
def test_domain(url, domain):
    assert duckdb.execute(f"SELECT {DOMAIN} FROM (SELECT $url::VARCHAR AS url)", {"url": url}).fetchall() == [(domain,)]
