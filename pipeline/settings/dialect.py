"""Checks of what a text list is written in: its encoding, what is between its fields, and what is around them."""

import codecs


def check_encoding(name: str) -> str:
    """The name of an encoding. Raises ValueError for one that Python does not know, or that is none of text."""
    try:
        known = codecs.lookup(name)
        fits = known.incrementaldecoder(errors="replace").decode("url,\n".encode(known.name), final=True) == "url,\n"
    except (LookupError, ValueError, TypeError):
        fits = False
    if not fits or known.name in ("idna", "punycode", "unicode_escape", "raw-unicode-escape"):
        raise ValueError(
            f"{name!r} is no text encoding that Python knows; examples: gb18030, cp1252, shift_jis, utf-16"
        )
    return name


def check_delimiter(text: str) -> str:
    """What stands between fields. Raises ValueError for more than one character, or one that cannot."""
    if len(text) != 1 or text in '\r\n"\0':
        raise ValueError(f'{text!r} cannot delimit fields: write one character, such as ";" or "\\t"')
    return text


def check_quote(text: str) -> str:
    """What stands around fields, or nothing. Raises ValueError for more than one character, or one that cannot."""
    if len(text) > 1 or text in ("\r", "\n", "\0"):
        raise ValueError(f'{text!r} cannot quote fields: write one character, or "" if nothing is quoted')
    return text
