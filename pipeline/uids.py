"""Chance that is the same every time: what a pair draws depends on its uid and on what it is drawn for."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def random_bits(purpose: str, uids: Iterable[str]) -> npt.NDArray[np.uint64]:
    """By uid 64 bits: blake2b-64 of `purpose NUL uid`, the first byte the highest."""
    digests = (hashlib.blake2b(f"{purpose}\0{uid}".encode(), digest_size=8).digest() for uid in uids)
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def fractions(drawn: npt.NDArray[np.uint64], bits: int = 53) -> npt.NDArray[np.float64]:
    """What was drawn as numbers from 0 up to, and without, 1. Those of 24 bits are exact in float32, too."""
    return (drawn >> np.uint64(64 - bits)).astype(np.float64) / 2.0**bits


def uid(url: str, caption: str) -> str:
    """blake2b-128, in hex, of `url NUL caption` in UTF-8. Bytes that are no UTF-8 are U+FFFD by then."""
    return hashlib.blake2b(f"{url}\0{caption}".encode(), digest_size=16).hexdigest()
