"""Stages: folders of results, named by a key of everything that can change their content.

Results of different settings therefore never share a folder, and an existing object means that its work is done.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.store.digests import digest
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class Stage:
    """A named step and everything that decides its results.

    `name` is the folder's stem ("shards", "scores/clip"); `made_by` is JSON and must hold all that can change
    a result (versions, digests, sizes, the key of the stage before) and nothing that cannot (threads, timeouts).
    """

    name: str
    made_by: Mapping[str, Any]

    @cached_property
    def key(self) -> str:
        """Eight hex digits of sha256 over the canonical JSON of `made_by`."""
        return digest(dict(self.made_by))[:8]

    @property
    def folder(self) -> str:
        """The folder of the results: the name and the key."""
        return f"{self.name}-{self.key}"

    def item(self, shard: int, suffix: str) -> str:
        """The storage key of one shard's result, "shards-1a2b3c4d/00007.tar"."""
        return f"{self.folder}/{shard:05d}{suffix}"

    def describe(self, storage: Storage) -> None:
        """Write `key.json` beside the results, so that a person can see what made them."""
        pretty = json.dumps(dict(self.made_by), sort_keys=True, indent=1, ensure_ascii=False)
        storage.put_if_absent(f"{self.folder}/key.json", pretty.encode() + b"\n")
