"""Claims on trials: the first process to claim a trial trains it."""

import json
import time
from collections.abc import Callable

from pipeline.process import machine
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage
from pipeline.trials.trials import Setting, Trial

POLL = 0.2
"""Seconds between two checks of a trial that another process trains."""


PATIENCE = 3600
"""Seconds after which a claim expires, even if its process is alive or is on another machine."""


def train_once(storage: Storage, setting: Setting, train: Callable[[], Trial]) -> Trial:
    """The trial of a setting.

    Reads it if it is stored, waits for it if a living process trains it, or else trains it.
    """
    while not train_if_free(storage, setting, train):
        time.sleep(POLL)
    return Trial.from_json(storage.fetch(f"{setting.key}.json").read_bytes())


def train_if_free(storage: Storage, setting: Setting, train: Callable[[], Trial]) -> bool:
    """Train a setting unless it is stored or a living process trains it. Returns whether it is stored then."""
    result = f"{setting.key}.json"
    if storage.done(result):
        return True
    if not _claim(storage, setting.key):
        return False
    if not storage.done(result):  # the process that had the claim may have stored it and ended meanwhile
        storage.put_if_absent(result, train().to_json())
    return True


def _claim(storage: Storage, key: str) -> bool:
    """Whether this process may train. A claim of the next generation replaces the claim of a dead process."""
    generation = 0
    while storage.done(f"{key}.claim-{generation}"):
        generation += 1
    me = machine.identity()
    if generation:
        holder = json.loads(storage.fetch(f"{key}.claim-{generation - 1}").read_bytes())
        if me.items() <= holder.items():
            return True
        if abs(time.time() - holder["time"]) < PATIENCE and not machine.has_ended(holder):  # a clock may have gone back
            return False
    return storage.put_if_absent(f"{key}.claim-{generation}", canonical_json(me | {"time": time.time()}))
