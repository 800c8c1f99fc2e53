"""Fetching addresses that a source file names: a list of pairs, a file of weights. No guard: a mirror may be private.

Messages and logs do not quote the address, which may hold a password or a token.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

SECONDS = 60
"""Timeout without a byte. The whole transfer has no limit."""


class AddressError(Exception):
    """Why a transfer failed, in words without an address."""


@contextmanager
def stream(url: str) -> Iterator[Iterator[bytes]]:
    """The body behind an http(s) address and its redirects. Raises AddressError."""
    import httpx

    for name in ("httpx", "httpcore"):  # they log every address and header at lower levels
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
