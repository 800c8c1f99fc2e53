"""Addresses as they may be seen: without the name and password, and without tokens, that some of them carry.

The ledger alone holds an address as the source's list has it: it has to be fetched. Rows, and with them SQL and pages,
and every message show it like this. A secret in a path looks like any other path, and is not known for one.
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
"""Pattern and what to put in its place, for both `re` and RE2."""


def redact(text: str) -> str:
    """An address without its secrets."""
    for pattern, instead in _RULES:
        text = re.sub(pattern, instead, text)
    return text


def redact_column(addresses: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of addresses without their secrets."""
    for pattern, instead in _RULES:
        addresses = pc.replace_substring_regex(addresses, pattern, instead)
    return addresses
