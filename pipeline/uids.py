"""The uid of a pair, and random numbers that depend only on a uid and a purpose, so that they are always the same."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def random_bits(purpose: str, uids: Iterable[str]) -> npt.NDArray[np.uint64]:
    """64 random bits for each uid: blake2b-64 of `purpose NUL uid`, big-endian."""
    digests = (hashlib.blake2b(f"{purpose}\0{uid}".encode(), digest_size=8).digest() for uid in uids)
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def fractions(bits64: npt.NDArray[np.uint64], bits: int = 53) -> npt.NDArray[np.float64]:
    """The highest bits as numbers in [0, 1). With 24 bits they are exact in float32, too."""
    return (bits64 >> np.uint64(64 - bits)).astype(np.float64) / 2.0**bits


def uid(url: str, caption: str) -> str:
    """blake2b-128, in hex, of `url NUL caption` in UTF-8. Invalid UTF-8 is U+FFFD by then."""
    return hashlib.blake2b(f"{url}\0{caption}".encode(), digest_size=16).hexdigest()
