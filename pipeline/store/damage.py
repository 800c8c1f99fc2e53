"""Objects that are named by their content, checked against their names."""

import hashlib
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.storage import Storage

FOLDERS = ("rows", "verdicts")
"""The folders of objects whose name is the sha256 of their bytes."""


def intact(storage: Storage, key: str) -> bool:
    """Whether the object is there and has the sha256 of its name. Reads all of it."""
    if not storage.done(key):
        return False
    with storage.fetch(key).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == PurePosixPath(key).stem


def complete(storage: Storage, key: str, rows: int) -> bool:
    """Whether the Parquet object is there, has its end, and so many rows. Reads the end alone."""
    if not storage.done(key):
        return False
    try:
        return bool(pq.read_metadata(storage.fetch(key)).num_rows == rows)
    except pa.ArrowException:
        return False


def damaged(storage: Storage) -> list[str]:
    """The keys of the objects that do not have the content of their names. Reads every object of `FOLDERS`."""
    keys = (key for folder in FOLDERS for key in storage.keys(folder) if key.endswith(".parquet"))
    return [key for key in keys if not intact(storage, key)]
