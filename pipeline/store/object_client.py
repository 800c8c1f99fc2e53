"""Requests to an object store by obstore: retried, with errors in one line, and a conditional write that is certain.

The store and the credentials come from the variables of the store's own tools: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL,
GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and others.
"""

import contextlib
import itertools
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, from_url

from pipeline.errors import StorageError
from pipeline.store.places import BucketUrl

if TYPE_CHECKING:
    from obstore import PutMode

ATTEMPTS = 8
"""Of a request that may be repeated. With pauses of up to 8 s between them they take about 15 s."""

TIMEOUT = timedelta(seconds=60)
"""Of one request."""

T = TypeVar("T")

_Errors: TypeAlias = tuple[type[Exception], ...]

_ABSENT = (FileNotFoundError, NotFoundError)

_CONFLICT = (AlreadyExistsError,)
"""How a 409 is raised: another write is under way, and this one was not made."""

_FINAL = r"NoSuchBucket|builder error|must be specified|credential|configured region|status code: (30[127]|40[013]) "
"""What is in the text of errors that stay when the request is repeated."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")

_WRITER = "writer"
"""The metadata of an object that was written on a condition: a random word of its writer."""


@dataclass(frozen=True)
class Meta:
    """An object's size in bytes, its version, and when it was written, in seconds since 1970."""

    size: int
    version: str
    modified: float


class ObjectClient:
    """The objects below a prefix. Any thread may use it.

    In a process that was forked after its parent used one, requests never end (`pipeline.store.forked`).
    """

    def __init__(self, root: BucketUrl, timeout: timedelta = TIMEOUT, attempts: int = ATTEMPTS) -> None:
        self.root, self._timeout, self._attempts = root, timeout, attempts
        self._stores: dict[int, ObjectStore] = {}

    @property
    def _store(self) -> ObjectStore:
        """The connections of this process: those of a parent do not work after a fork."""
        if os.getpid() not in self._stores:
            _check_endpoint(self.root)
            try:
                made: Any = from_url(
                    str(self.root),
                    retry_config={"max_retries": 0, "backoff": {}, "retry_timeout": self._timeout},
                    client_options={
                        "timeout": self._timeout,
                        "connect_timeout": timedelta(seconds=5),
                        "allow_http": endpoint().startswith("http://"),
                    },
                )
            except BaseError as error:
                raise StorageError(
                    f"{self.root.scheme}://{self.root.bucket} cannot be used: {_reason(str(error))}; set the variables "
                    "of the store (docs/buckets.md)"
                ) from error
            self._stores = {os.getpid(): made}
        return self._stores[os.getpid()]

    def head(self, key: str) -> Meta | None:
        """Facts about an object; None if it does not exist."""
        with contextlib.suppress(*_ABSENT):
            return _meta(self._repeated(lambda: obstore.head(self._store, key)))
        return None

    def read(self, key: str) -> tuple[Meta, bytes] | None:
        """Facts about a small object, and its content; None if it does not exist."""

        def attempt() -> tuple[Meta, bytes]:
            answer = obstore.get(self._store, key)
            return _meta(answer.meta), bytes(answer.bytes())

        with contextlib.suppress(*_ABSENT):
            return self._repeated(attempt)
        return None

    def download(self, key: str, to: Path) -> Meta | None:
        """Write the object's content to a file; None if it does not exist. Asks again if the body ends early."""
        with contextlib.suppress(*_ABSENT):
            return self._repeated(lambda: self._download(key, to))
        return None

    def upload(self, key: str, local: Path) -> Meta:
        """Write a file to the object. Large ones go in parts, and appear when the last part is there."""
        put = self._repeated(lambda: obstore.put(self._store, key, local), also=_CONFLICT)
        return Meta(local.stat().st_size, str(put["e_tag"]), time.time())

    def create(self, key: str, data: bytes) -> str | None:
        """Write the object unless it exists; its version, or None if it existed. Exactly one of many callers succeeds.

        A store may also answer that another write is under way (409), and then there may be no object.
        """
        try:
            return self._write_if("create", key, data, (AlreadyExistsError, PreconditionError), passing=_ABSENT)
        except _ABSENT as error:
            raise StorageError(f"{self.root} says that {key} exists and that it does not: run again later") from error

    def replace(self, key: str, data: bytes, version: str) -> str | None:
        """Write the object if it has this version; the new version, or None if it has another one."""
        with contextlib.suppress(*_ABSENT):
            return self._write_if({"e_tag": version}, key, data, (PreconditionError,), passing=_CONFLICT)
        return None

    def _write_if(self, condition: "PutMode", key: str, data: bytes, refusals: _Errors, passing: _Errors) -> str | None:
        """Write the object on a condition; its version, or None if the store refused.

        An answer can get lost after the write: then the next attempt is refused. Whose object is there, its metadata
        tells.
        """
        own = uuid.uuid4().hex

        def attempt() -> str | None:
            try:
                return str(obstore.put(self._store, key, data, mode=condition, attributes={_WRITER: own})["e_tag"])
            except refusals:
                found = obstore.get(self._store, key)
                return str(found.meta["e_tag"]) if found.attributes.get(_WRITER) == own else None

        return self._repeated(attempt, also=passing)

    def delete(self, key: str) -> None:
        """Remove the object, if it exists."""
        with contextlib.suppress(*_ABSENT):
            self._repeated(lambda: obstore.delete(self._store, key))

    def children(self, folder: str) -> tuple[dict[str, Meta], list[str]]:
        """The objects and the folders directly inside a folder, by name; "" is the prefix itself."""
        found = self._repeated(lambda: obstore.list_with_delimiter(self._store, folder or None))
        objects = {_last(each["path"]): _meta(each) for each in found["objects"]}
        return objects, [_last(path) for path in found["common_prefixes"]]

    def _download(self, key: str, to: Path) -> Meta:
        answer = obstore.get(self._store, key)
        meta = _meta(answer.meta)
        with to.open("wb") as file:
            for chunk in answer.stream(min_chunk_size=4 << 20):
                file.write(chunk)
        if to.stat().st_size != meta.size:
            raise GenericError(f"{key} ended after {to.stat().st_size} of {meta.size} bytes")
        return meta

    def _repeated(self, request: Callable[[], T], also: _Errors = ()) -> T:
        """The answer of a request that is repeated while its errors may pass. Raises StorageError in one line."""
        with self._errors():
            for attempt in itertools.count(1):
                try:
                    return request()
                except BaseException as error:
                    passing = isinstance(error, (GenericError, *also)) and not _is_final(error)
                    if not passing or attempt == self._attempts:
                        raise
                    time.sleep(_jitter(min(8.0, 0.1 * 2**attempt)))
        raise AssertionError

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _ABSENT as error:
            if "NoSuchBucket" in str(error):
                raise StorageError(self._explain(error)) from error
            raise
        except BaseError as error:
            raise StorageError(self._explain(error)) from error

    def _explain(self, error: Exception) -> str:
        text, bucket = str(error), f"{self.root.scheme}://{self.root.bucket}"
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return f"there is no bucket {bucket}: create it, or name another --root"
        if "RequestTimeTooSkewed" in text:
            return f"{bucket} refuses requests because the clock of this machine is wrong: set it, then run again"
        if re.search(r"AuthorizationHeaderMalformed|PermanentRedirect|IllegalLocation|configured region", text):
            return f"{bucket} is in another region: set AWS_REGION to the region of the bucket"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _is_final(error):
            return (
                f"no right to read or write in {bucket}: {_reason(text)}; set the credentials of the store "
                "(docs/buckets.md), or ask its owner for rights"
            )
        if "error sending request" in text:
            where = f" and AWS_ENDPOINT_URL, which is {endpoint()}" if endpoint() else ""
            return f"{bucket} cannot be reached: check the network{where}; then run the same command again, it resumes"
        return f"{bucket} does not answer as it should: {_reason(text)}; run the same command again, it resumes"


def endpoint() -> str:
    """The address of an S3-compatible server; empty for Amazon's."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _check_endpoint(root: BucketUrl) -> None:
    """Raise StorageError for the address of a server with which obstore would panic."""
    for name in _ENDPOINTS if root.scheme == "s3" else ():
        given = os.environ.get(name)
        if given is not None and not _is_address(given):
            raise StorageError(f"{name} is {given!r}: set it to http://HOST:PORT or https://HOST, or unset it")


def _is_address(text: str) -> bool:
    try:
        found = urlsplit(text)
        return (
            found.scheme in ("http", "https")
            and bool(found.hostname)
            and found.port != 0
            and text.isprintable()
            and " " not in text
        )
    except ValueError:  # a port that is none
        return False


def _meta(found: Any) -> Meta:
    return Meta(found["size"], str(found["e_tag"]), found["last_modified"].timestamp())


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _is_final(error: BaseException) -> bool:
    """Whether an error of no kind of its own stays when the request is repeated."""
    return bool(re.search(_FINAL, str(error)))


def _reason(text: str) -> str:
    """The code and the message of the store, or the first line, without addresses of requests."""
    code, message = re.search(r"<Code>([^<]+)", text), re.search(r"<Message>([^<]+)", text)
    if code:
        return f"{code[1]} ({message[1].rstrip('.')})" if message else code[1]
    status = re.search(r"non-2xx status code: (\d+ [\w ]+)", text)
    if status:
        return status[1].strip()
    first = re.sub(r"Error performing \w+ \S+ in [\d.]+\w+( - )?", "", text.splitlines()[0])
    return re.sub(r"^Generic \w+ error: ", "", first)[:160].rstrip(" :-")


def _jitter(seconds: float) -> float:
    """Between a half and all of it, so that many clients do not come again at the same time."""
    return seconds * (0.5 + 0.5 * (uuid.uuid4().int % 1000) / 1000)
