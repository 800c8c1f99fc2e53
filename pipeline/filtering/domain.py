"""The domain of a URL, in SQL."""

_HOST = r"'^[a-z][a-z0-9+.-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^:/?#]*)'"

DOMAIN = (
    rf"nullif(regexp_replace(rtrim(regexp_extract(lower(trim(url)), {_HOST}, 1), '.'), '^www\.(.+\..+)$', '\1'), '')"
)
"""SQL for the domain of the column `url`; NULL where it has none.

The domain is the host in lower case, without user, password, port, trailing dots and a leading "www.". An IPv6 address
keeps its brackets. A name in Unicode and its form in Punycode are two domains.
"""
