"""Opening the page in a browser without its token on a command line, which every user of the machine can read."""

import html
import os
import webbrowser
from pathlib import Path


def redirect(address: str, folder: Path) -> Path:
    """Write a page into the folder that leads to the address. Only its owner can read it."""
    path = folder / "explore.html"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(
            '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
            f'<meta http-equiv="refresh" content="0; url={html.escape(address, quote=True)}"><title>winnow</title>'
        )
    return path


def open_privately(address: str, folder: Path) -> None:
    """Open the address in a browser, by way of a page in the folder."""
    webbrowser.open(redirect(address, folder).resolve().as_uri())
