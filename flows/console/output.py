"""Where output goes. Captions and URLs come from strangers: nothing of theirs may control a terminal."""

import json
import math
import os
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TextIO

from flows.console.stdout import answers

if TYPE_CHECKING:
    from rich.console import RenderableType

PIPED = 100_000
"""Columns of what is no terminal: a file or a pipe gets every table at its natural width."""

EXACT = 2**64
"""Integers from here on are strings in JSON: few programs read them as numbers without loss."""


def show(thing: "RenderableType", to_stderr: bool) -> None:
    """Print a table or text as wide as the terminal, or as COLUMNS says; at its natural width where neither is."""
    from rich.console import Console

    stream = sys.stderr if to_stderr else answers()
    has_width = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    Console(file=stream, width=None if has_width else PIPED).print(thing)


def show_json(value: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Print one JSON object on one line, on stdout if `file` is None."""
    print(dumps(value), file=file or answers(), flush=True)


def dumps(value: Any) -> str:
    """JSON text. A number that is not finite is null; a decimal that no double equals is a string."""
    return json.dumps(_json(value), default=str, allow_nan=False)


def printable(text: str) -> str:
    """The text with U+FFFD in place of every character that is not printable."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _json(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(name): _json(each) for name, each in value.items()}
        case list() | tuple():
            return [_json(each) for each in value]
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return _number(value)
        case bool():
            return value
        case int():
            return value if abs(value) < EXACT else str(value)
    return value


def _number(value: Decimal) -> int | float | str:
    """The decimal as an integer below `EXACT` or as the double that is equal to it, else as text."""
    if value == value.to_integral_value() and abs(value) < EXACT:
        return int(value)
    near = float(value)
    return near if Decimal(repr(near)) == value else format(value, "f")
