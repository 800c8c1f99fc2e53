"""References: what a tar of winnow holds in place of a picture that is already on this machine as it should be.

A reference is a small JSON object with the file that has the bytes, where they begin, their number and their sha256.
Both are checked at each read, so that no result mixes old and new bytes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from pipeline.errors import StorageError

_START = b'{"file"'
"""A JPEG begins otherwise."""


class ChangedFileError(StorageError):
    """A file that a reference names is missing, or has other bytes."""


@dataclass(frozen=True)
class Reference:
    """`size` bytes from `offset` on in a file, by its absolute path."""

    file: str
    offset: int
    size: int
    sha256: str

    @classmethod
    def parse(cls, stored: bytes) -> Self | None:
        """The reference that a tar's member is; None for a picture."""
        return cls(**json.loads(stored)) if stored.startswith(_START) else None

    def encode(self) -> bytes:
        """The content of a tar's member; `parse` reads it."""
        return json.dumps(asdict(self)).encode()

    def read(self) -> bytes:
        """The bytes. Raises ChangedFileError."""
        try:
            with Path(self.file).open("rb", buffering=0) as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise self._lost(f"cannot be read ({error.strerror or error})") from error
        if len(content) != self.size or hashlib.sha256(content).hexdigest() != self.sha256:
            raise self._lost("has changed since its pictures were taken")
        return content

    def _lost(self, what: str) -> ChangedFileError:
        return ChangedFileError(
            f"{self.file} {what}: put it back as it was, or take what it has now with `winnow retry SOURCE --cause "
            "changed_file`"
        )


def resolve(stored: bytes) -> bytes:
    """The picture of a tar's member. Raises ChangedFileError if the file that it refers to is another one."""
    reference = Reference.parse(stored)
    return reference.read() if reference else stored


def is_lost(stored: bytes) -> bool:
    """Whether a tar's member refers to a file that is missing, or has other bytes."""
    try:
        resolve(stored)
    except ChangedFileError:
        return True
    return False
