"""Text files that a person writes: with or without a byte order mark, whatever their line ends."""

import codecs
from pathlib import Path

_MARKS = (  # that of UTF-32 begins as that of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def marked_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark at the beginning of a file means; None without a mark."""
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in the encoding of its byte order mark, which is left out. Lines end with LF.

    Raises OSError, or UnicodeDecodeError for bytes that are not text in that encoding.
    """
    content = path.read_bytes()
    text = content.decode(marked_encoding(content) or "utf-8")
    return text.replace("\r\n", "\n")
