"""Digests of URLs for a block list, which holds no URL.

A URL is blocked in every spelling (`pipeline.web.url.canonical`), and a form without its secrets stands for all URLs
that SQL and pages show in this way (`pipeline.redact`), because a person may know no other.
"""

import hashlib

from pipeline.redact import HIDDEN, redact
from pipeline.web.url import canonical, is_plain


def digest(text: str) -> str:
    """sha256 of the text in UTF-8, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def own_digests(url: str) -> frozenset[str]:
    """The digests of a URL itself: as it is written, and in its canonical form."""
    return frozenset(map(digest, {url, canonical(url)}))


def blocking_digests(url: str) -> frozenset[str]:
    """What a block list holds for a URL. A pair is blocked if one of its `matching_digests` is among them."""
    form = canonical(url)
    shown = redact(form)
    return own_digests(url) | ({_digest_of_shown(shown)} if shown != form else frozenset())


def matching_digests(url: str) -> frozenset[str]:
    """The digests of a pair's URL that a block list may hold.

    They are those of the URL itself, and of its forms without secrets. If it has no other form (a list may be made of
    redacted URLs), it also matches every full URL that is shown in this way.
    """
    if "=" not in url and is_plain(url):  # it holds no secret
        return frozenset((digest(url),))
    form = canonical(url)
    forms = {url, form}
    shown = redact(url)
    if shown != url:
        forms |= {shown, canonical(shown)}
    forms.add(redact(form))
    digests = frozenset(map(digest, forms))
    return digests | {_digest_of_shown(form)} if f"={HIDDEN}" in form else digests


def _digest_of_shown(url: str) -> str:
    return digest(f"shown as {url}")
