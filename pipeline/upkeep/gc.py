"""Removing what no manifest, no training and no later run needs: `winnow gc`.

An older manifest leaves the log before anything that it names is removed. Killed at any moment, the next call finishes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath
from typing import NamedTuple

from pipeline.errors import SourceError, StorageError
from pipeline.ledger import blocklist
from pipeline.manifest import database, removed
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.progress import Progress, silent
from pipeline.scoring.plan import Plan
from pipeline.sources import loading, owner
from pipeline.sources.source import Source
from pipeline.store.places import AT_ONCE
from pipeline.store.storage import Storage
from pipeline.upkeep import leftovers
from pipeline.upkeep.needed import Needs, Unneeded

CHUNK = 256
"""Objects that are removed between two looks at Ctrl-C."""


class Removal(NamedTuple):
    """What goes from one place, and why: the number of objects, and their exact bytes."""

    what: str
    why: str
    objects: int
    bytes: int


@dataclass(frozen=True)
class Collected:
    """What goes, or went, from a store. `dropped` are the manifests that leave the log, and `kept` those that stay."""

    kept: Sequence[str]
    dropped: Sequence[str]
    removals: Sequence[Removal]

    @property
    def objects(self) -> int:
        """The number of all objects."""
        return sum(each.objects for each in self.removals)

    @property
    def bytes(self) -> int:
        """The bytes of all objects."""
        return sum(each.bytes for each in self.removals)


@dataclass(frozen=True)
class Request:
    """The source, how many of its newest manifests stay (None: all), and the folder of a demo's drawn pictures."""

    source: Source
    keep: int | None = None
    demo: str | None = None


def preview(storage: Storage, request: Request, progress: Progress = silent) -> Collected:
    """What `collect` would remove. Changes nothing, and needs no lock.

    Raises SourceError or ModelError if the source file does not say what its next run needs.
    """
    _check(storage, request.source)
    return _measured(storage, request, progress)[0]


def collect(storage: Storage, request: Request, progress: Progress = silent) -> Collected:
    """Remove it. Safe beside readers: one of a removed manifest ends with one line, or has its files open already.

    Raises what `preview` raises, BusyError beside another writer, and StorageError after an interrupted takedown.
    """
    _check(storage, request.source)  # before a lock, which makes the folder
    with storage.lock():
        owner.claim(request.source, storage)
        if blocklist.pending(storage):
            raise StorageError(
                "a takedown was interrupted: run `winnow curate` first, which finishes it; nothing was removed"
            )
        found, gone = _measured(storage, request, progress)
        if found.dropped:
            _drop(storage, found.dropped)
        if commits(storage):
            database.refresh(storage)
        _remove(storage, gone, progress)
    return found


def _check(storage: Storage, source: Source) -> None:
    """Raises SourceError unless the store has results, and they are of this source file."""
    owner.check(source, storage)
    if not storage.keys("ledger"):
        raise SourceError(f"there is nothing of {source.name} in {storage.root}: name another --root")


def _measured(storage: Storage, request: Request, progress: Progress) -> tuple[Collected, list[Unneeded]]:
    """What goes, with its bytes, and its objects in the order of removal."""
    kept, dropped = _split(storage, request.keep)
    plans = [Plan.of(request.source), *_plans_of_unions(request.source)]
    manifests, going = ([Manifest.open(storage, name) for name in names] for names in (kept, dropped))
    needs = Needs(storage, plans, manifests, going, request.demo)
    log = [f"log/{each.number:08d}.json" for each in commits(storage) if each.id in dropped]
    gone = [each for each in (*needs.unneeded(), *leftovers.of(storage)) if each.keys]
    listed = [Unneeded("log", "entries of manifests that are older than --keep", log), *gone] if log else gone
    total, removals, done = sum(len(each.keys) for each in listed), list[Removal](), 0
    for each in listed:
        removals.append(Removal(each.what, each.why, len(each.keys), _bytes(storage, each.keys)))
        done += len(each.keys)
        progress("measure", done, total)
    return Collected(kept, dropped, removals), gone


def _bytes(storage: Storage, keys: Sequence[str]) -> int:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(storage.size, keys))


def _split(storage: Storage, keep: int | None) -> tuple[list[str], list[str]]:
    """The ids of the manifests that stay, and of those that go, both oldest first. A manifest may be newest twice."""
    newest_first = list(dict.fromkeys(each.id for each in reversed(commits(storage))))
    count = len(newest_first) if keep is None else keep
    return newest_first[:count][::-1], newest_first[count:][::-1]


def _drop(storage: Storage, manifests: Sequence[str]) -> None:
    """Take manifests out of the log. The catalogue, whose views name their files, goes first."""
    for name in manifests:
        removed.mark(storage, name, Manifest.open(storage, name).stages.scores)
    storage.remove(database.KEY)
    for each in commits(storage):
        if each.id in manifests:
            storage.remove(f"log/{each.number:08d}.json")


def _remove(storage: Storage, gone: Sequence[Unneeded], progress: Progress) -> None:
    """One place after another, several objects of a place at once. Results go before what they were made of."""
    total, done = sum(len(each.keys) for each in gone), 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for each in gone:
            for _, wave in groupby(sorted(each.keys, key=_wave), _wave):
                keys = list(wave)
                for start in range(0, len(keys), CHUNK):
                    chunk = keys[start : start + CHUNK]
                    list(pool.map(storage.remove, chunk))
                    done += len(chunk)
                    progress("remove", done, total)


def _wave(key: str) -> int:
    """The turn of an object among those of its place.

    A tar without its Parquet is downloaded again, but not the reverse. Certificates stay while there are scores, and
    `key.json` says what a folder is.
    """
    name = PurePosixPath(key).name
    return {"key.json": 3, "certificate.json": 2}.get(name, 1 if name.endswith(".tar") else 0)


def _plans_of_unions(source: Source) -> Iterator[Plan]:
    """The plans of the unions that copy from this source: what they would copy must not be fetched again."""
    for union in loading.unions_of(source.name):
        try:
            yield Plan.of(union)
        except SourceError as error:
            raise SourceError(f"{union.name} copies from {source.name}, and has no plan: {error}") from None
