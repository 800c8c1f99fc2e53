"""References follow the folders of a source that were moved: a place does not name its folder, a reference does."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.store import tarfiles
from pipeline.store.digests import canonical_json
from pipeline.store.references import Reference
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

_RECORD = "folders.json"
"""In the folder of a stage: where the pictures of each list were when they were taken."""


def follow(storage: Storage, stage: Stage, folders: Mapping[str, Path]) -> None:
    """Let the references in all tars of the stage name these folders, by list, in place of those that they name now.

    Does nothing unless a folder was moved. Killed at any moment, the next call does the rest. Bytes and sha256 of the
    references stay, and every read checks them.
    """
    key = f"{stage.folder}/{_RECORD}"
    now = {name: str(path) for name, path in folders.items()}
    if storage.put_if_absent(key, canonical_json(now)):
        return
    before: dict[str, str] = json.loads(storage.fetch(key).read_bytes())
    moved = {before[name]: path for name, path in now.items() if name in before and before[name] != path}
    if moved:
        for tar in storage.find(f"{stage.folder}/*.tar"):
            _rewrite(storage, tar, moved)
    if before != now:
        with storage.making(key) as made:
            made.write_bytes(canonical_json(before | now))


def _rewrite(storage: Storage, tar: str, moved: Mapping[str, str]) -> None:
    stored = storage.fetch(tar)
    with storage.scratch() as scratch:
        members = ((name, _moved(content, moved)) for name, content in tarfiles.read_stored(stored))
        tarfiles.write(scratch / "tar", members)
        storage.put_file(tar, scratch / "tar")


def _moved(content: bytes, moved: Mapping[str, str]) -> bytes:
    reference = Reference.parse(content)
    for before, now in moved.items() if reference else ():
        if reference and reference.file.startswith(f"{before}/"):
            return replace(reference, file=now + reference.file[len(before) :]).encode()
    return content
