"""How webdataset names what belongs together in a tar: `12/000120034.jpg` and `12/000120034.txt` have one key."""

import re

_NAME = re.compile(r"((?:.*/|)[^/.]+)[.]([^/]+)", re.DOTALL)
"""webdataset's own: the key ends at the first dot of the last part of the name."""

PICTURES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "avif", "tif", "tiff", "ico", "ppm", "img", "image"})
"""Last endings of pictures, in lower case."""

TEXTS = frozenset({"txt", "text", "caption", "captions"})
"""Last endings of captions."""


def key_and_ending(name: str) -> tuple[str, str] | None:
    """The key of a member and what follows its first dot, in lower case; None for a name without both."""
    found = _NAME.fullmatch(name)
    return (found[1], found[2].lower()) if found else None


def kind(ending: str) -> str:
    """The last part of an ending such as `input.jpg`."""
    return ending.rpartition(".")[2]
