"""A URL as it is requested."""

import re
import string
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlsplit

from pipeline.failure import RowError

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]+")


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
    def parse(cls, text: str) -> Self:
        """Escapes non-ASCII characters and blanks as browsers do. Raises RowError: invalid_url or blocked_scheme."""
        try:
            parts = urlsplit(text.strip())
            host = (parts.hostname or "").encode("idna").decode().rstrip(".")
            port = parts.port
        except ValueError as error:  # UnicodeError is one
            raise RowError(
                "invalid_url", "this is no http or https address"
            ) from error  # its words may quote a password
        if parts.scheme not in ("http", "https", ""):
            raise RowError("blocked_scheme", f"only http and https are fetched, not {parts.scheme[:20]}")
        if not parts.scheme or port == 0 or not _HOST.fullmatch(host):
            raise RowError("invalid_url", "this is no http or https address")
        safe = string.punctuation  # includes "%": what is escaped already stays as it is
        target = quote(parts.path or "/", safe) + ("?" + quote(parts.query, safe) if parts.query else "")
        secure = parts.scheme == "https"
        return cls(secure, host, port or (443 if secure else 80), target)
