"""Why one picture is not there: a row's `cause` and `error`. It never stops a shard.

Causes of fetching: invalid_url, blocked_scheme, blocked_address, dns, refused, unreachable, reset, timeout, tls,
redirects, bad_answer, http_404 (and every other status), opt_out, robots_txt, too_large, empty.
Causes of decoding: undecodable, too_many_pixels, decode_timeout, decode_crash.
And forgotten: somebody asked for the picture to be removed (`pipeline.upkeep.forget`).
"""

import re

FORGOTTEN = "forgotten"
"""The cause of a pair that was taken down. Its row keeps nothing but its uid."""

TAKEN_DOWN = "somebody asked for it to be removed"

TRANSIENT = frozenset({"dns", "reset", "http_429"})
"""Causes that may be gone a moment later. So may any http_5xx."""

RETRY_LATER = frozenset({"timeout", "refused", "unreachable"})
"""Causes that may be gone a day later, and cost too much to be tried again at once."""

LONGEST = 200
"""Characters of `error`."""

_TOLD = re.compile(r"([a-z][a-z0-9_]*): (.*)", re.DOTALL)


class RowError(Exception):
    """`cause` is one word to count by, `error` says the same in words. str() holds both, and `told` reads them back."""

    def __init__(self, cause: str, error: str) -> None:
        self.cause, self.error = cause, " ".join(error.split())[:LONGEST]
        super().__init__(f"{self.cause}: {self.error}")


def is_transient(cause: str) -> bool:
    """Whether a second request at once may have better luck."""
    return cause in TRANSIENT or cause.startswith("http_5")


def parse_row_error(text: str) -> RowError | None:
    """The RowError whose text this is; None if it is something else's."""
    match = _TOLD.fullmatch(text)
    return RowError(match[1], match[2]) if match else None
