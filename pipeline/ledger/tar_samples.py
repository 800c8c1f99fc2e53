"""The samples of a tar of webdataset: members that share a key. Captions and JSON are read, pictures are not."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from pipeline.failure import RowError
from pipeline.files import plain
from pipeline.files.plain import Stamp
from pipeline.files.samples import TEXTS, key_and_ending, kind
from pipeline.files.tar_members import changed
from pipeline.files.tar_scan import Member, scan

_LONGEST = 1 << 20
"""Bytes of a caption or a JSON object, at most."""


@dataclass
class Sample:
    """A key, the object of its .json, and its texts in order; they are bytes, because encodings are counted later."""

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)
    texts: list[bytes] = field(default_factory=list)


def samples(path: Path) -> Iterator[Sample]:
    """The samples of a tar, in order. Members without a key are left out, as webdataset leaves them out.

    A key that comes again later is another sample. Raises RowError if the tar cannot be read, or from where it breaks,
    StorageError if it changes meanwhile.
    """
    with plain.opened(path, path.name) as (descriptor, stamp), os.fdopen(os.dup(descriptor), "rb") as file:
        named = ((key_and_ending(member.name), member) for member in scan(file))
        keyed = ((name, member) for name, member in named if name and not name[0].startswith("__"))
        for key, members in groupby(keyed, lambda each: each[0][0]):
            sample = Sample(key)
            broken = None
            try:
                for (_, ending), member in members:
                    _add(sample, kind(ending), member, file)
            except RowError as error:
                broken = error
            yield sample
            if broken:
                raise broken
        if Stamp.of(descriptor) != stamp:
            raise changed(path)


def _add(sample: Sample, ending: str, member: Member, file: IO[bytes]) -> None:
    if ending == "json" and not sample.values and member.size <= _LONGEST:
        sample.values = _object(_content(member, file))
    elif ending in TEXTS:
        sample.texts.append(_content(member, file)[:_LONGEST])


def _content(member: Member, file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), min(member.size, _LONGEST), member.offset)


def _object(content: bytes) -> Mapping[str, Any]:
    """A JSON object; empty for anything else."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
