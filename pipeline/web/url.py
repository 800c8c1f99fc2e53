"""A URL as it is requested."""

import re
from dataclasses import dataclass
from typing import Self

from pipeline.failure import RowError

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]+")

_LABEL = 63
"""The longest label of a host name (RFC 1035)."""


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
            parts = ada_url.URL(text, base)
        except (ValueError, UnicodeError):
            raise RowError("invalid_url", "this is no http or https address") from None  # it may hold a password
        scheme = parts.protocol.removesuffix(":")
        if scheme not in ("http", "https"):
            raise RowError("blocked_scheme", f"only http and https are fetched, not {scheme[:20]}")
        host = parts.hostname.strip("[]").rstrip(".")
        port = int(parts.port or (443 if scheme == "https" else 80))
        if port == 0 or not _HOST.fullmatch(host) or not all(0 < len(label) <= _LABEL for label in host.split(".")):
            raise RowError("invalid_url", "this is no http or https address")
        return cls(scheme == "https", host, port, parts.pathname + parts.search)
