"""Removing secrets from URLs: user name and password, and tokens in the query.

Only the ledger holds a URL as the source's list has it, because it has to be fetched. Rows (and with them SQL and
pages) and all messages hold the redacted URL. A secret in the path looks like any other path, and stays.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

HIDDEN = "hidden"

_NAMES = (
    r"[^=&;?#]*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key|keyid|key-pair-id|session|auth)"
    r"[^=&;?#]*|sig|key|pwd|pass|sid|jwt|hmac|policy"
)
_RULES = (
    (r"^(\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?//)[^/?#]*@", r"\1"),  # a name and a password before the host
    (r"^(\s*(?:[A-Za-z][A-Za-z0-9+.-]*:)?//)[^/?#@:\[\s]*:[^0-9/?#@\s][^@\s]*@", r"\1"),  # a slash in the password
    (r"^(\s*)[^/?#@\s]*:[^/?#@\s]*@", r"\1"),  # the same without a scheme
    (rf"(?i)([?&;#](?:{_NAMES})=)[^&;#\s]+", rf"\1{HIDDEN}"),  # a token in the query
)
"""Patterns and their replacements, for both `re` and RE2."""


def redact(text: str) -> str:
    """A URL without its secrets."""
    for pattern, replacement in _RULES:
        text = re.sub(pattern, replacement, text)
    return text


def redact_column(urls: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of URLs without their secrets."""
    for pattern, replacement in _RULES:
        urls = pc.replace_substring_regex(urls, pattern, replacement)
    return urls
