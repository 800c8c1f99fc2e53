"""Takes the pictures of a shard of the ledger that are on this machine already: nothing is fetched.

The result is that of a download (`pipeline.download.download`): `shards-<key>/NNNNN.tar` and `NNNNN.parquet`. Pictures
pass the same limits in the same sandbox. A plain JPEG that is small enough is not copied: the tar refers to it
(`pipeline.store.references`).
"""

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.download.fork_server import ForkServer, Program
from pipeline.download.job import Local, TakingJob
from pipeline.download.moving import follow
from pipeline.download.shard_work import ShardWork, made_of
from pipeline.errors import SourceError
from pipeline.images.limits import Limits
from pipeline.ledger.blocklist import Blocked
from pipeline.ledger.ledger import Shard
from pipeline.process import machine
from pipeline.settings.pairs import Pairs
from pipeline.sources.loading import members
from pipeline.sources.source import Source
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

VERSION = 1

_PROGRAM = Program("pipeline.download.taking_process", "the reader of local pictures")


def lists(source: Source) -> Mapping[str, Local] | None:
    """Where the pictures are of each member of a union by name, or of a list, by ""; None if they are fetched.

    Raises SourceError for a union of both kinds.
    """
    if source.pairs is not None:
        return {"": _local(source.pairs)} if source.pairs.is_local else None
    found = {member.name: member.pairs for member, _ in members(source) if member.pairs is not None}
    local = {name: _local(pairs) for name, pairs in found.items() if pairs.is_local}
    if local and len(local) < len(found):
        fetched = next(name for name in found if name not in local)
        raise SourceError(
            f"{source.path.name}: [union]: the pictures of {next(iter(local))} are on this machine and those of "
            f"{fetched} are fetched: a union has members of one kind"
        )
    return local or None


def stage(source: Source, where: Mapping[str, Local]) -> Stage:
    """The stage that takes the pictures of this source. Where its folders are decides nothing."""
    made_by: dict[str, Any] = {
        "version": VERSION,
        "local": True,
        **made_of(source.download),
        "references": _refers(source),
    }
    chosen = {name: _chosen(local) for name, local in where.items()}
    same = all(each == next(iter(chosen.values())) for each in chosen.values())
    if any(chosen.values()):
        made_by["lists"] = next(iter(chosen.values())) if same else chosen
    return Stage("shards", made_by)


class Taking(ShardWork):
    """Takes the local pictures of shards of one source, with a decoder for each core.

    `cores` defaults to those of this machine. A call raises SourceError if it does not have the folders of the source.
    """

    def __init__(self, source: Source, storage: Storage, where: Mapping[str, Local], cores: int | None = None) -> None:
        cores = cores or machine.cores()
        self.at_once, self._lists, self._max_bytes = cores, where, source.download.max_bytes
        limits = replace(Limits.of(source.download), keep_plain=_refers(source))
        super().__init__(source, storage, stage(source, where), ForkServer(limits, cores, program=_PROGRAM))
        self._following, self._followed = threading.Lock(), False

    def __call__(self, shard: Shard) -> None:
        """Store the tar and the rows of the shard."""
        with self._following:
            if not self._followed:
                follow(self._storage, self._made_by, {name: local.base for name, local in self._lists.items()})
                self._followed = True
        super().__call__(shard)

    def _job(self, pairs: Path, folder: Path, blocked: Blocked) -> TakingJob:
        for local in self._lists.values():
            if not local.base.is_dir():
                name = self._source.name
                raise SourceError(f"this machine has no folder {local.base}, where the pictures of {name} are")
        return TakingJob(pairs, folder, self._lists, self._max_bytes, blocked)


def _local(pairs: Pairs) -> Local:
    return Local(pairs.base, pairs.symlinks, pairs.image)


def _chosen(local: Local) -> dict[str, Any]:
    """The settings of a list that decide which bytes a place has, without the default ones."""
    return {name: value for name, value in (("symlinks", local.symlinks), ("image", local.image)) if value}


def _refers(source: Source) -> bool:
    """Whether tars refer to plain pictures. pillow-simd, with a decoder of old, reads only what winnow has written."""
    return source.decoder != "pillow-simd"
