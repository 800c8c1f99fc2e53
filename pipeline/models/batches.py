"""Device batches: padded to fixed shapes, and halved when memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LEAST = 8
"""In a batch: on fewer a processor spends more on each than a copy costs."""


def in_batches(
    encode: Callable[[Sequence[Any]], Tensor], items: Sequence[Any], size: int, fill: bool = False
) -> npt.NDArray[np.float32]:
    """`encode` on `size` items at a time, on half as many wherever memory ends.

    The last batch is filled up with copies of its last item: with `fill` to the size, else to the next power of two
    from `LEAST`.

    Raises what torch raised if one item is too many.
    """
    done: list[Tensor] = []
    start = 0
    while start < len(items):
        part = items[start : start + size]
        filled = size if fill else min(size, max(LEAST, 1 << (len(part) - 1).bit_length()))
        padding = [part[-1]] * (filled - len(part))
        try:
            with torch.inference_mode():
                done.append(encode([*part, *padding])[: len(part)])
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_memory(error):
                raise
            size //= 2
            torch.cuda.empty_cache()
            continue
        start += len(part)
    # A GPU is asked for what it made once, at the end: until then it has the next pass waiting.
    encoded: npt.NDArray[np.float32] = torch.cat(done).cpu().numpy()
    return encoded


def is_memory(error: BaseException) -> bool:
    """Whether memory ended: a GPU's has an error of its own, for a processor's torch raises what it always does."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


@contextmanager
def exactly(dtype: torch.dtype) -> Iterator[None]:
    """No TensorFloat-32 where float32 was asked for, and no algorithm chosen by a race."""
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=dtype != torch.float32
    ):
        yield
