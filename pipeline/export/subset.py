"""Uids as DataComp's resharder reads them: a sorted array of 128-bit numbers, in two halves of 64 bits.

https://github.com/mlfoundations/datacomp, `resharder.py`: dtype "u8,u8", the higher half first, in ascending order. It
finds a sample of a shard by bisection.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.export.stored import Stored
from pipeline.schema import SOURCE_UID

FILE = "uids.npy"
HALVES = np.dtype("u8,u8")
_DIGITS = 32
_HEX = rf"^[0-9a-fA-F]{{1,{_DIGITS}}}$"


def names(number: int, pieces: int) -> Sequence[str]:
    """One file."""
    return (FILE,)


def write(paths: Sequence[Path], pairs: pa.Table, stored: Stored) -> None:
    """The uids of the source's own data if it has such, else winnow's. Raises StorageError if only some pairs have."""
    with paths[0].open("wb") as file:
        np.save(file, halves(pairs[column(pairs)]), allow_pickle=False)


def column(pairs: pa.Table) -> str:
    """The column of the uids: `SOURCE_UID` if the pairs have it, of at most 32 hex digits, else `uid`."""
    import pyarrow.compute as pc

    if SOURCE_UID not in pairs.column_names:
        return "uid"
    fits = pc.fill_null(pc.match_substring_regex(pairs[SOURCE_UID].cast(pa.string()), _HEX), fill_value=False)
    count = pc.sum(fits).as_py()
    if 0 < count < len(pairs):
        raise StorageError(
            f"{len(pairs) - count:,} of {len(pairs):,} kept pairs have no uid of 32 hex digits in the column "
            f"{SOURCE_UID}: leave them out with a filter, such as \"regexp_full_match({SOURCE_UID}, '[0-9a-f]+')\""
        )
    return SOURCE_UID if count else "uid"


def halves(uids: pa.ChunkedArray) -> npt.NDArray[np.void]:
    """Sorted uids of at most 32 hex digits."""
    digits = "".join(uid.zfill(_DIGITS) for uid in uids.to_pylist())
    numbers = np.frombuffer(bytes.fromhex(digits), ">u8").astype("<u8").reshape(-1, 2)
    order = np.lexsort((numbers[:, 1], numbers[:, 0]))  # a hundred times as fast as a sort of pairs
    return numbers[order].reshape(-1).view(HALVES)
