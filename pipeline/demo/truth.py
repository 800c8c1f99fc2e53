"""The labels that the demo has for its own pairs: what is wrong with each of them."""

from pathlib import Path

from pipeline.demo.world import World
from pipeline.review.sample_source import unfiltered
from pipeline.sources.source import Source
from pipeline.store.storage import Storage

CALIBRATION_PAIRS = 2000
"""Pairs of the demo's calibration stream."""


def labels(source: Source, storage: Storage) -> Path:
    """The file of labels in the demo's world. It exists once the world is built."""
    assert source.demo is not None
    return World(source.demo, storage.local).truth


def sample(source: Source) -> Source:
    """The demo's labelled sample as a source of its own: the stream that shares no scene with the pool."""
    assert source.demo is not None
    stream = source.demo.model_copy(update={"stream": "calibration", "pairs": CALIBRATION_PAIRS})
    return unfiltered(source, {"demo": stream})
