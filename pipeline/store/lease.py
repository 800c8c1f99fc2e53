"""A lock in an object store: one object that its holder writes again and again, each time on the condition that nobody
else has.

The rule of takeover: a holder renews its lease every `RENEWED` seconds. Who finds a lease of another machine watches it
for `EXPIRES` seconds by its own clock. If the lease changes meanwhile, its holder lives, and the store is busy. If it
does not, it is taken over. A lease of a process of the same machine that has ended is taken over at once. No two clocks
are compared. A holder that has not renewed its lease for half of that time, because it was suspended or the store did
not answer, renews it before its next write, and finds out there that it was lost.
"""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from pipeline.errors import BusyError, StorageError
from pipeline.process import machine
from pipeline.store.digests import canonical_json
from pipeline.store.object_client import ObjectClient

RENEWED = 10.0
EXPIRES = 45.0
"""Seconds."""


class Lease:
    """The lease that is the object `key`, renewed every `renewed` seconds, and taken over after `expires` seconds."""

    def __init__(self, client: ObjectClient, key: str, renewed: float = RENEWED, expires: float = EXPIRES) -> None:
        self._client, self._key, self._renewed, self._expires = client, key, renewed, expires
        self._me = {**machine.identity(), "id": uuid.uuid4().hex}
        self._beats, self._version = 0, ""
        self._ended, self._renewing = threading.Event(), threading.Lock()
        self._lost, self._sure = False, 0.0

    @contextlib.contextmanager
    def held(self, wait: bool = False) -> Iterator[None]:
        """Hold it in the block. Raises BusyError if another one holds it, or waits for it.

        Raises StorageError at the end of the block if the lease was lost meanwhile.
        """
        while not self._take():
            if not wait:
                raise BusyError(f"another run is writing in {self._client.root}{self._who()}: wait for it, or stop it")
            time.sleep(0.2)
        renewal = threading.Thread(target=self._keep, daemon=True)
        renewal.start()
        try:
            yield
            self.check()
        finally:
            self._ended.set()
            renewal.join()
            with contextlib.suppress(StorageError):  # it expires
                if not self._lost:
                    self._client.replace(self._key, self._state(free=True), self._version)

    def check(self) -> None:
        """Raises StorageError if another one has taken the lease over, or if the store cannot be asked."""
        with self._renewing:
            if not self._lost and _seconds() - self._sure > self._expires / 2:
                self._renew()
        if self._lost:
            raise StorageError(
                f"another run took over {self._client.root}, since this one did not answer for {self._expires:g} s: "
                "what is stored stays; run the same command again when the other one is finished"
            )

    def _take(self) -> bool:
        """Whether this process has the lease now. Takes up to `EXPIRES` seconds for that of another machine."""
        found = self._found()
        if found is None:
            self._sure = _seconds()
            return self._have(self._client.create(self._key, self._state()))
        version, holder = found
        if not holder["free"] and not machine.has_ended(holder) and self._is_alive(holder, version):
            return False
        self._sure = _seconds()
        return self._have(self._client.replace(self._key, self._state(), version))

    def _is_alive(self, holder: dict[str, Any], version: str) -> bool:
        """Whether a holder that has not ended is of this machine, or changes the lease within `expires` seconds."""
        if holder["host"] == self._me["host"]:
            return True
        until = time.monotonic() + self._expires
        while time.monotonic() < until:
            time.sleep(min(1.0, self._renewed / 4))
            now = self._found()
            if now is None or now[0] != version:
                return True
        return False

    def _have(self, version: str | None) -> bool:
        self._version = version or ""
        return version is not None

    def _found(self) -> tuple[str, dict[str, Any]] | None:
        """The version of the lease and what its holder wrote."""
        found = self._client.read(self._key)
        return (found[0].version, json.loads(found[1])) if found else None

    def _who(self) -> str:
        found = self._found()
        return f" on {found[1]['host']} (process {found[1]['pid']})" if found else ""

    def _state(self, free: bool = False) -> bytes:
        self._beats += 1
        return canonical_json({**self._me, "beat": self._beats, "free": free})

    def _keep(self) -> None:
        """Renew it again and again. An error of the store is none of the run: the next time may succeed."""
        while not self._lost and not self._ended.wait(self._renewed):
            with contextlib.suppress(StorageError), self._renewing:
                self._renew()

    def _renew(self) -> None:
        """Write the lease again, or notice that it was lost. It is sure from before the request on."""
        began = _seconds()
        version = self._client.replace(self._key, self._state(), self._version)
        if version is None:
            self._lost = True
        else:
            self._version, self._sure = version, began


def _seconds() -> float:
    """A clock that goes on while the machine is suspended, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
