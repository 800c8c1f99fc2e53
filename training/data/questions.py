"""Questions about pictures, with the answers that people gave."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Questions:
    """`picture`, int64 [questions], numbers the pictures. Each question has one answer or several, in their order."""

    picture: npt.NDArray[np.int64]
    question: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
