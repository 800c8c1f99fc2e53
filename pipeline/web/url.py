"""A URL as it is requested."""

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from pipeline.failure import RowError

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]+")

_LABEL = 63
"""The longest label of a host name (RFC 1035)."""

CANONICAL = (
    r"https?://(?:[a-z0-9_-]+\.)*[a-z][a-z0-9_-]*"
    r"(?:/(?:[A-Za-z0-9_~!$&()*+,;:=-][A-Za-z0-9._~!$&()*+,;:=-]*)?)+(?:\?[A-Za-z0-9._~!$&()*+,;:=/?-]+)?"
)
"""URLs that `canonical` leaves as they are, for both `re` and RE2: most of a list, not all. No secret without a `=`."""

_PLAIN = re.compile(CANONICAL)
_BLANK = "".join(
    map(chr, (*range(33), 0xA0, *range(0x2000, 0x200E), 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF))
)
_HALF = re.compile(r"[\ud800-\udfff]")
"""Halves of a character, which JSON can hold and UTF-8 cannot."""

_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_SAFE = "%!$&'()*+,;=:@/?"
"""Characters beside the unreserved ones that a path or a query holds as they are (RFC 3986)."""


@dataclass(frozen=True)
class Url:
    """An http(s) URL in ASCII: `target` is path and query, `authority` is host:port, always with a port."""

    secure: bool
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """host:port, as in `Guard.allow_hosts`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def host_header(self) -> str:
        """The Host header."""
        return self.authority.removesuffix(":443" if self.secure else ":80")

    @property
    def text(self) -> str:
        """The whole URL."""
        return self.with_target(self.target)

    def with_target(self, target: str) -> str:
        """The URL of another target on the same host and port."""
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{self.authority}{target}"

    @classmethod
    def parse(cls, text: str, base: str | None = None) -> Self:
        """The URL as browsers read it (WHATWG URL, host names by UTS 46), relative to `base` if one is given.

        Raises RowError: invalid_url or blocked_scheme.
        """
        import ada_url

        try:
            parts = ada_url.URL(_HALF.sub("\ufffd", text), base)
        except ValueError:
            raise RowError("invalid_url", "this is no http or https address") from None  # it may hold a password
        scheme = parts.protocol.removesuffix(":")
        if scheme not in ("http", "https"):
            raise RowError("blocked_scheme", f"only http and https are fetched, not {scheme[:20]}")
        host = parts.hostname.strip("[]").rstrip(".")
        port = int(parts.port or (443 if scheme == "https" else 80))
        if port == 0 or not _HOST.fullmatch(host) or not all(0 < len(label) <= _LABEL for label in host.split(".")):
            raise RowError("invalid_url", "this is no http or https address")
        return cls(scheme == "https", host, port, parts.pathname + parts.search)


def is_plain(text: str) -> bool:
    """Whether a URL fits the pattern `CANONICAL`."""
    return _PLAIN.fullmatch(text) is not None


def canonical(text: str) -> str:
    """One spelling for all URLs that are the same request: scheme, host, port unless it is the default, path, query.

    Beyond `Url.parse`, percent-encoding is that of RFC 3986 (section 6.2.2): an encoded unreserved character is
    decoded, hex digits are upper case, and what no URL may contain is encoded. Text that is no http or
    https address stays as it is, without blanks around.
    """
    if is_plain(text):
        return text
    text = text.strip(_BLANK)
    try:
        url = Url.parse(text)
    except RowError:
        return text
    target = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", url.target)
    target = quote(re.sub(r"%[0-9A-Fa-f]{2}", _decode_unreserved, target), safe=_SAFE)
    return f"{'https' if url.secure else 'http'}://{url.host_header}{target}"


def _decode_unreserved(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[0][1:], 16))
    return character if _UNRESERVED.fullmatch(character) else encoded[0].upper()
