"""Device batches, padded to fixed shapes and halved when memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MIN_BATCH = 8
"""The smallest batch. A processor spends more on each item of a smaller one than padding costs."""


SPLIT = 4
"""The smallest batch of a last one that is split."""


def in_batches(
    encode: Callable[[Sequence[Any]], Tensor], items: Sequence[Any], size: int, fill: bool = False, split: bool = False
) -> npt.NDArray[np.float32]:
    """`encode` on `size` items at a time, and on half as many after an out-of-memory error.

    The last batch is padded with copies of its last item: with `fill` to `size`, else to the next power of two from
    `MIN_BATCH` on. With `split` it is divided into powers of two down to `SPLIT`, and only the last of them is padded.
    Raises torch's error if one item does not fit.
    """
    done: list[Tensor] = []
    start = 0
    while start < len(items):
        part = items[start : start + size]
        if split and SPLIT < len(part) < size:
            part = part[: 1 << (len(part).bit_length() - 1)]
        least = SPLIT if split else MIN_BATCH
        filled = size if fill else min(size, max(least, 1 << (len(part) - 1).bit_length()))
        padding = [part[-1]] * (filled - len(part))
        try:
            with torch.inference_mode():
                done.append(encode([*part, *padding])[: len(part)])
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            size //= 2
            torch.cuda.empty_cache()
            continue
        start += len(part)
    # One copy from the GPU, at the end: until then it can queue the next pass.
    encoded: npt.NDArray[np.float32] = torch.cat(done).cpu().numpy()
    return encoded


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. torch has an error of its own for a GPU, and a RuntimeError for a processor."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def exact_math(dtype: torch.dtype) -> Iterator[None]:
    """No TensorFloat-32 for float32, and no algorithms chosen by timing."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=dtype != torch.float32
    ):
        yield
