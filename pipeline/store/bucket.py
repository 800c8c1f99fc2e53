"""Objects in a bucket of an object store, with copies on this machine (`pipeline.store.cache`).

Objects whose name tells their content, or that are created once (`CREATED_ONCE`), are copied once. Of all others each
use asks for the version. Of the results of a stage, which only a takedown replaces, that an object is there, and its
version, is taken from a list of its folder if one was read in the last `LISTED` seconds. Objects that are replaced
again and again, such as `run.json` and the labels, are always asked for. So is an object that seems to be missing: a
list may lack what was just written.
"""

import contextlib
import fnmatch
import hashlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline.errors import StorageError
from pipeline.store.cache import Cache, of_user
from pipeline.store.lease import Lease
from pipeline.store.object_client import Meta, ObjectClient, endpoint
from pipeline.store.places import AT_ONCE, BucketUrl

CREATED_ONCE = (
    "draws",
    "forgotten",
    "gains",
    "ledger",
    "log",
    "manifests",
    "pairs",
    "removed",
    "rows",
    "trials",
    "verdicts",
)
"""The folders of objects that never get other content."""

NUMBERED = ("forgotten", "ledger", "log")
"""The folders of objects that are created one after another: 00000000.json, 00000001.json."""

LISTED = 30.0
"""Seconds for which a list of a folder tells what is there."""

_ASKED = 8
"""Questions about objects of one folder after which it is listed."""

_STAGE = re.compile(r"-[0-9a-f]{8}/")
"""What the key of a stage's result has in it (`pipeline.store.stage`)."""


class Bucket:
    """`pipeline.store.storage.Objects` in a bucket. Its lock is a lease (`pipeline.store.lease`), and holds for all."""

    def __init__(self, root: BucketUrl) -> None:
        self.root = root
        self._client = ObjectClient(root)
        self._seen: dict[str, tuple[float, Meta]] = {}
        self._asked: dict[str, int] = {}
        self._lease: Lease | None = None

    @property
    def local(self) -> Path:
        """A folder in the cache that is not made of copies."""
        return self._cache.folder / "local" / self._name("")

    @property
    def _cache(self) -> Cache:
        return of_user()

    def exists(self, key: str) -> bool:
        """From a list, or by a request."""
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """From a list, or by a request."""
        _check(key)
        meta = self._meta(key)
        return meta.size if meta else None

    def fetch(self, keys: Sequence[str]) -> Mapping[str, Path]:
        """Copies, several at once."""
        for key in keys:
            _check(key)
        if len(keys) == 1:
            found = [self._fetch(keys[0])]
        else:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                found = list(pool.map(self._fetch, keys))
        return {key: path for key, path in zip(keys, found, strict=True) if path}

    def put_file(self, key: str, local: Path) -> None:
        """Upload a finished file, and make it the copy, if there is room."""
        _check(key)
        self._may_write()
        meta = self._client.upload(key, local)
        self._seen[key] = time.monotonic() + LISTED, meta
        self._cache.drop(self._name(key))  # the versions before
        with contextlib.suppress(StorageError):
            self._cache.adopt(self._name(key, meta), local, meta.modified)
        local.unlink(missing_ok=True)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object by a conditional request."""
        _check(key)
        self._may_write()
        return self._client.create(key, data) is not None

    def remove(self, key: str) -> None:
        """Remove the object and its copy here. Copies on other machines go when they see that it is gone."""
        _check(key)
        self._may_write()
        self._client.delete(key)
        self._forget(key)

    def keys(self, prefix: str) -> list[str]:
        """From a list of the folder. What follows the last one of numbered objects is asked for, too."""
        until = time.monotonic() + LISTED
        seen = {_join(prefix, name): meta for name, meta in self._client.children(prefix)[0].items()}
        found = sorted(seen)
        while prefix in NUMBERED and (meta := self._client.head(after := _next(prefix, found))):
            found.append(after)
            seen[after] = meta
        self._seen.update({key: (until, meta) for key, meta in seen.items()})
        return found

    def find(self, pattern: str) -> list[str]:
        """Folder by folder: only those that fit the pattern are listed."""
        *folders, last = pattern.split("/")
        found = [""]
        for each in folders:
            found = [_join(above, name) for above in found for name in self._folders(above, each)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            names = pool.map(partial(self._named, last), found)
            return sorted(_join(above, name) for above, each in zip(found, names, strict=True) for name in each)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder on the disk of the copies."""
        with self._cache.scratch() as folder:
            yield folder

    def probe(self) -> None:
        """Raises StorageError if the store ignores the conditions of a write: then two runs could both win."""
        key = f".probe-{uuid.uuid4().hex}"
        try:
            version = self._client.create(key, b"1")
            if version is None or self._client.create(key, b"2") or self._client.replace(key, b"3", '"other"'):
                raise StorageError(
                    f"{self.root.scheme}://{self.root.bucket} ignores If-None-Match or If-Match, so that two runs "
                    "could overwrite one another: use a store that honours conditional writes"
                )
        finally:
            self._client.delete(key)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """The lease of the store. Raises StorageError for a store that does not hold to conditions."""
        self.probe()
        lease = Lease(self._client, "lease.json")
        with lease.held():
            self._lease = lease
            try:
                yield
            finally:
                self._lease = None

    @contextlib.contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """A lease in the folder `name`, waited for."""
        _check(name)
        with Lease(self._client, f"{name}/lease.json").held(wait=True):
            yield

    def _may_write(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _meta(self, key: str) -> Meta | None:
        """Facts about an object, from a list or by a request. A copy of an object that is gone is removed."""
        folder, found = str(PurePosixPath(key).parent), None
        if _is_settled(key) and (found := self._listed(key)) is None:
            self._asked[folder] = self._asked.get(folder, 0) + 1
            if self._asked[folder] >= _ASKED:
                self._asked[folder] = 0
                self.keys(folder)
                found = self._listed(key)
        if found is None and (found := self._client.head(key)) is None:
            self._forget(key)
        return found

    def _listed(self, key: str) -> Meta | None:
        until, meta = self._seen.get(key, (0.0, None))
        return meta if until > time.monotonic() else None

    def _fetch(self, key: str) -> Path | None:
        meta = None
        if not _created_once(key) and (meta := self._meta(key)) is None:
            return None
        return self._cache.get(self._name(key, meta)) or self._cache.add(partial(self._download, key))

    def _download(self, key: str, to: Path) -> tuple[str, float] | None:
        """The name and the time of a new copy; None if there is no such object."""
        meta = self._client.download(key, to)
        if meta is None:
            return None
        if not _created_once(key):
            self._cache.drop(self._name(key))  # the versions before
        return self._name(key, meta), meta.modified

    def _forget(self, key: str) -> None:
        self._seen.pop(key, None)
        self._cache.drop(self._name(key))

    def _name(self, key: str, meta: Meta | None = None) -> str:
        """The name of a copy: the key, below a folder for the root. Without a version: of all copies of the object."""
        if key and not _created_once(key):
            version = [hashlib.sha256(meta.version.encode()).hexdigest()[:16], PurePosixPath(key).name] if meta else []
            key = "/".join([f"{key}.versions", *version])
        where = hashlib.sha256(f"{self.root} {endpoint()}".encode()).hexdigest()[:16]
        return str(PurePosixPath(where, self.root.name, key))

    def _folders(self, above: str, pattern: str) -> list[str]:
        if not _is_glob(pattern):
            return [pattern]
        return fnmatch.filter(self._client.children(above)[1], pattern)

    def _named(self, pattern: str, folder: str) -> list[str]:
        if not _is_glob(pattern):
            return [pattern] if self._client.head(_join(folder, pattern)) else []
        return fnmatch.filter(self._client.children(folder)[0], pattern)


def names(root: BucketUrl) -> list[str]:
    """The names of the folders directly inside a root."""
    return sorted(ObjectClient(root).children("")[1])


def _created_once(key: str) -> bool:
    return key.partition("/")[0] in CREATED_ONCE


def _is_settled(key: str) -> bool:
    """Whether a list of the last seconds says enough about an object."""
    return _created_once(key) or bool(_STAGE.search(key))


def _check(key: str) -> None:
    if key.startswith("/") or not key or {"", ".", ".."} & set(key.split("/")):
        raise StorageError(f"{key!r} is no key")


def _next(folder: str, found: Sequence[str]) -> str:
    """The key of the next object of a folder of numbered ones."""
    return f"{folder}/{int(PurePosixPath(found[-1]).stem) + 1 if found else 0:08d}.json"


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _is_glob(pattern: str) -> bool:
    return bool(re.search(r"[*?\[]", pattern))
