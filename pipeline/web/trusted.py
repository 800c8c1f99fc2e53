"""Fetching what the operator named: a list of pairs, a file of weights. No guard: a mirror of one's own may be private.

Neither messages nor logs quote the address, which may carry a password or a token.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 60
"""Without a byte; how long the whole takes is nobody's to say."""


class AddressError(Exception):
    """Why there is nothing, in words without an address."""


@contextmanager
def blocks(url: str) -> Iterator[Iterator[bytes]]:
    """The body behind an http(s) address and its redirects. Raises AddressError."""
    import httpx

    for name in ("httpx", "httpcore"):  # they log every address and header, where somebody asks for much
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=SECONDS) as response:
            response.raise_for_status()
            yield response.iter_bytes()
    except httpx.HTTPStatusError as error:
        raise AddressError(f"{error.response.status_code} {error.response.reason_phrase}".strip()) from None
    except httpx.TimeoutException:
        raise AddressError(f"no answer within {SECONDS} s") from None
    except httpx.NetworkError as error:
        raise AddressError(str(error) or type(error).__name__) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise AddressError(type(error).__name__) from None
