"""Features that are not finite are an error that names the picture or the pair. They are never stored or trained on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError


def first_not_finite(features: npt.NDArray[Any]) -> int | None:
    """The first row of features [rows, ...] that holds NaN or infinity; None if all are finite."""
    broken = ~np.isfinite(features).reshape(len(features), -1).all(axis=1)
    return int(broken.argmax()) if broken.any() else None


def check_finite(features: npt.NDArray[Any], row_name: Callable[[int], str]) -> None:
    """Raises ModelError if a row of features [rows, ...] is not finite. `row_name` is what the error calls a row."""
    row = first_not_finite(features)
    if row is not None:
        raise ModelError(
            f"the features of {row_name(row)} are not finite, or too large for float16 (above 65,504): "
            "check that the encoder's weights fit its model, or use another encoder"
        )


def to_float16(features: npt.NDArray[np.float32], row_name: Callable[[int], str]) -> npt.NDArray[np.float16]:
    """The features [rows, dim] as they are stored. Raises ModelError as `check_finite`, also for an overflow."""
    with np.errstate(over="ignore"):
        halves = features.astype(np.float16)
    check_finite(halves, row_name)
    return halves
