"""Random numbers that depend only on a value and on integers such as a seed and an epoch, in any version of numpy.

The finalizer of splitmix64 (Steele, Lea and Flood 2014) is applied once for each integer.
"""

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint64]

SHARDS, PLACES, COPIES = 1, 2, 3
"""What is drawn: the order of shards, the places of pairs in the buffer, how many copies."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def draws(values: Bits, *salts: int) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each value."""
    mixed = values
    for salt in salts:
        mixed = _finalize(mixed ^ np.uint64(_finalize_one(salt)))
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def _finalize(values: Bits) -> Bits:
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _finalize_one(value: int) -> int:
    return int(_finalize(np.array([value & _MASK], np.uint64))[0])
