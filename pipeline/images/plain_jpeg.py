"""Whether a JPEG could be one that winnow wrote: RGB, eight bits, and nothing in it but the picture."""

import struct

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_PLAIN = frozenset({0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE})
"""Segments that decoding needs, JFIF's and Adobe's. No Exif, colour profile, comment or second picture."""
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})


def is_plain(data: bytes) -> bool:
    """Whether a JPEG that can be decoded has three components of eight bits, and no metadata.

    It needs no turn, no change of colours and no cut, so that a reference may stand for it.
    """
    if not data.startswith(_START) or not data.endswith(_END):
        return False
    at, frames = 2, 0
    while at + 4 <= len(data):
        marker, kind, length = struct.unpack_from(">BBH", data, at)
        if marker != 0xFF or length < 2:
            return False
        if kind == _SCAN:
            at = _after_scan(data, at + 2 + length)
            if at == len(data) - len(_END):
                return frames == 1
            continue
        if kind not in _PLAIN:
            return False
        if kind in _FRAMES:
            frames += 1
            if data[at + 4] != 8 or data[at + 9] != 3:
                return False
        at += 2 + length
    return False


def _after_scan(data: bytes, at: int) -> int:
    """Where the compressed data ends that begins here: at the first marker that is no restart."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            return len(data)
        if data[at + 1] != 0 and not 0xD0 <= data[at + 1] <= 0xD7:
            return at
        at += 2
