"""Why a picture is missing: the `cause` and `error` of a row. A failed row never stops a shard.

Causes of fetching: invalid_url, blocked_scheme, blocked_address, dns, refused, unreachable, reset, timeout, tls,
redirects, bad_answer, http_404 (and every other status), opt_out, robots_txt, too_large, empty.
Causes of local files: missing_file, missing_member (of a tar), outside_folder, unreadable, broken_tar,
several_pictures, changed_file, no_caption; too_large and empty as of fetching.
Causes of decoding: undecodable, too_many_pixels, decode_timeout, decode_crash.
The cause of a takedown: forgotten (`pipeline.upkeep.forget`).
"""

import re

FORGOTTEN = "forgotten"
"""The cause of a pair that was taken down. Its row keeps only its uid."""

TAKEN_DOWN = "somebody asked for it to be removed"

CHANGED_FILE = "changed_file"
"""The cause of a local picture whose file changed while it was read, or after that (`winnow retry`)."""

TRANSIENT = frozenset({"dns", "reset", "http_429"})
"""Causes for which a request is retried at once, as it is for every http_5xx."""

RETRY_LATER = frozenset({"timeout", "refused", "unreachable"})
"""Causes that `winnow retry` retries by default: they may pass in a day, and cost too much to retry at once."""

MAX_LENGTH = 200
"""Characters of `error`, at most."""

_PATTERN = re.compile(r"([a-z][a-z0-9_]*): (.*)", re.DOTALL)


class RowError(Exception):
    """`cause` is one word to count by, `error` a sentence. str() holds both, and `parse_row_error` reads them back."""

    def __init__(self, cause: str, error: str) -> None:
        self.cause, self.error = cause, " ".join(error.split())[:MAX_LENGTH]
        super().__init__(f"{self.cause}: {self.error}")


def is_transient(cause: str) -> bool:
    """Whether a request that failed with this cause is retried at once."""
    return cause in TRANSIENT or cause.startswith("http_5")


def parse_row_error(text: str) -> RowError | None:
    """The RowError whose str() this is; None for any other text."""
    match = _PATTERN.fullmatch(text)
    return RowError(match[1], match[2]) if match else None
