"""Why one picture is not there: a row's `cause` and `error`. It never stops a shard.

Causes of fetching: invalid_url, blocked_scheme, blocked_address, dns, refused, unreachable, reset, timeout, tls,
redirects, bad_answer, http_404 (and every other status), opt_out, too_large, empty.
Causes of decoding: undecodable, too_many_pixels, decode_timeout, decode_crash.
"""

import re

LONGEST = 200
"""Characters of `error`."""

_TOLD = re.compile(r"([a-z][a-z0-9_]*): (.*)", re.DOTALL)


class RowError(Exception):
    """`cause` is one word to count by, `error` says the same in words. str() holds both, and `told` reads them back."""

    def __init__(self, cause: str, error: str) -> None:
        self.cause, self.error = cause, " ".join(error.split())[:LONGEST]
        super().__init__(f"{self.cause}: {self.error}")


def told(text: str) -> RowError | None:
    """The RowError whose text this is; None if it is something else's."""
    match = _TOLD.fullmatch(text)
    return RowError(match[1], match[2]) if match else None
