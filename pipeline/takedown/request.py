"""The file of a takedown request: what to remove."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pipeline.errors import SourceError
from pipeline.text_files import read_text


@dataclass(frozen=True)
class Request:
    """uids, URLs in any spelling, and sha256 digests of pictures as they were fetched; digests in hex, lower case."""

    uids: frozenset[str]
    urls: frozenset[str]
    pictures: frozenset[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """One name a line; blank lines are skipped. Raises SourceError for a line that is none of the three."""
        names: dict[str, set[str]] = {"uids": set(), "urls": set(), "pictures": set()}
        try:
            lines = read_text(path).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} cannot be read: {error}") from None
        for number, line in enumerate(map(str.strip, lines), start=1):
            if not line:
                continue
            kind = _kind(line)
            if kind is None:
                raise SourceError(f"{path.name}, line {number}: this is no uid (32 hex digits), sha256 (64) or URL")
            names[kind].add(line if kind == "urls" else line.lower())
        if not any(names.values()):
            raise SourceError(f"{path.name} names nothing: write uids, URLs or sha256 of pictures, one a line")
        return cls(frozenset(names["uids"]), frozenset(names["urls"]), frozenset(names["pictures"]))

    def __len__(self) -> int:
        return len(self.uids) + len(self.urls) + len(self.pictures)


def _kind(line: str) -> Literal["uids", "urls", "pictures"] | None:
    """The field of `Request` that a line belongs to."""
    if re.fullmatch(r"[0-9a-fA-F]{32}", line):
        return "uids"
    if re.fullmatch(r"[0-9a-fA-F]{64}", line):
        return "pictures"
    return "urls" if "://" in line or re.match(r"https?:", line, re.IGNORECASE) else None
