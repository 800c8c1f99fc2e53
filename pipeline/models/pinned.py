"""Weights from an address, stored under their digest in the user's cache, and checked before every use."""

import hashlib
import os
import tempfile
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.redact import redact
from pipeline.web import trusted
from pipeline.web.trusted import AddressError

MAX_BYTES = 1 << 30
"""The largest file of weights that winnow downloads by itself."""


def fetch(url: str, sha256: str) -> Path:
    """The local copy of `url`. Raises ModelError if its digest differs, or if it cannot be downloaded."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "winnow", sha256)
    target = folder / url.rpartition("/")[2].partition("?")[0]
    if target.is_file():
        with target.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        temporary = Path(file.name)
    try:
        found = _download(url, temporary)
        if found != sha256:
            raise ModelError(
                f"{redact(url)} has sha256 {found}, not {sha256}: it was changed; check where it comes from"
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _download(url: str, target: Path) -> str:
    sha, size = hashlib.sha256(), 0
    try:
        with trusted.stream(url) as blocks, target.open("wb") as file:
            for block in blocks:
                size += len(block)
                if size > MAX_BYTES:
                    fault = f"{redact(url)} is larger than {MAX_BYTES} bytes: fetch it by hand and name the file"
                    raise ModelError(fault)
                file.write(block)
                sha.update(block)
    except AddressError as error:
        fault = f"{redact(url)} cannot be fetched: {error}; check the network, or name a local file"
        raise ModelError(fault) from None
    return sha.hexdigest()
