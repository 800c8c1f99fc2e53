"""The page of predictions: held-out pictures, what is right, and what models predict.

Like the report it is one file without scripts and links, under a content policy that forbids scripts and requests.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import StorageError
from pipeline.pages.rendering import write_page

LONGER = 320
"""Pixels of the longer side of a picture on the page."""


@dataclass(frozen=True)
class Prediction:
    """What is shown of a picture: uint8 [height, width, 3], a `title`, and `lines` with their names.

    A line that is right is marked so, and one that is wrong; None is neither.
    """

    picture: npt.NDArray[np.uint8]
    title: str
    lines: Sequence[tuple[str, str, bool | None]]


@dataclass(frozen=True)
class Group:
    """Predictions under a heading."""

    heading: str
    predictions: Sequence[Prediction]


def write(title: str, about: str, groups: Sequence[Group], path: Path) -> None:
    """Write the page to `path`; `about` says in a sentence what is shown. Raises StorageError if it cannot be."""
    shown = [(group.heading, [(each, data_uri(each.picture)) for each in group.predictions]) for group in groups]
    try:
        write_page("predictions.html.jinja", path, {"title": title, "about": about, "groups": shown})
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """A picture, RGB [height, width, 3], as the source of an img element."""
    data, image = io.BytesIO(), Image.fromarray(pixels)
    image.thumbnail((LONGER, LONGER))
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
