"""The stores of a source: its own, that of its labelled sample, and those of the further pools of a demo."""

from collections.abc import Iterator
from typing import NamedTuple

from pipeline.demo import truth
from pipeline.review.sample_source import FOLDER, sample_source, sample_storage
from pipeline.sources.source import Source
from pipeline.store.storage import Storage


class Store(NamedTuple):
    """A store, the source of its results, and its folder in the store of the whole source, "" for that itself."""

    folder: str
    source: Source
    storage: Storage


def of(described: Source, storage: Storage) -> Iterator[Store]:
    """Those that have results."""
    yield Store("", described, storage)
    sample = sample_storage(storage)
    if sample.keys("ledger"):
        labelled = truth.sample(described) if described.demo else sample_source(described, described.path)
        yield Store(f"{FOLDER}/", labelled, sample)
    numbers = sorted({int(key.split("/")[1]) for key in storage.find("pools/*/ledger/*.json")})
    for number in numbers if described.demo else ():
        from flows.pools import draw

        drawn, own = draw(described, storage, number)
        yield Store(f"pools/{number}/", drawn, own)
