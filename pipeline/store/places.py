"""Where results are: a folder of this machine, or a prefix in a bucket of an object store."""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from pipeline.errors import SourceError

AT_ONCE = 16
"""Requests to an object store."""

SCHEMES = ("s3", "gs", "az")
"""Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage (az://CONTAINER/PREFIX)."""


@dataclass(frozen=True)
class BucketUrl:
    """A prefix in a bucket: s3://bucket/prefix. It is joined and taken apart like a path."""

    scheme: str
    bucket: str
    prefix: PurePosixPath

    def __str__(self) -> str:
        below = "" if self.prefix == PurePosixPath() else f"/{self.prefix}"
        return f"{self.scheme}://{self.bucket}{below}"

    def __truediv__(self, name: str) -> "BucketUrl":
        return replace(self, prefix=self.prefix / name)

    @property
    def name(self) -> str:
        """The last part of the prefix."""
        return self.prefix.name

    def resolve(self) -> "BucketUrl":
        """Itself: it is absolute."""
        return self

    @property
    def parent(self) -> "BucketUrl":
        """The prefix without its last part."""
        return replace(self, prefix=self.prefix.parent)


Place: TypeAlias = Path | BucketUrl
"""A root of results, or the store of a source below it."""


def place(text: str | Path | BucketUrl) -> Place:
    """What a person, a job or a deployment named. Raises SourceError for a URL that names no bucket."""
    if isinstance(text, Path | BucketUrl):
        return text
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Path(text)
    bucket, _, prefix = rest.partition("/")
    parts = [part for part in prefix.split("/") if part]
    if scheme not in SCHEMES:
        raise SourceError(f"{text} is no root of results: use a folder, or {'://, '.join(SCHEMES)}://BUCKET/PREFIX")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]+", bucket) or {".", ".."} & set(parts) or re.search(r"[?#\s]", prefix):
        raise SourceError(f"{text} names no bucket: use {scheme}://BUCKET/PREFIX")
    return BucketUrl(scheme, bucket, PurePosixPath(*parts))
