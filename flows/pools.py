"""The flow `train-pools`: the gain on several pools of a source that can draw them anew."""

from typing import Any

from prefect import flow

from flows import sources, tasks
from flows.curate import bring_up_to_date
from pipeline.demo import world
from pipeline.errors import SourceError
from pipeline.sources.source import Source
from pipeline.store.places import place
from pipeline.store.storage import Storage
from training.studies import pools

APART = 1000
"""Between the seeds of two pools, so that no pool repeats a scene of another."""


@flow(name="train-pools", persist_result=True, result_serializer="json")
def train_pools(source: str, count: int, root: str = "data") -> dict[str, Any]:
    """Curate `count` pools of a source, the first of them its own, and measure the gain on each.

    Returns the differences over pools, with their intervals. Does nothing twice. Raises SourceError for a source that
    cannot draw pools.
    """
    described, storage = sources.load(source, place(root))
    gains = []
    for number in range(count):
        drawn, own = draw(described, storage, number)
        bring_up_to_date(drawn, own)
        with world.served(drawn, own) as served:
            gains.append(tasks.measure_gain(served, own, None, None))
    return pools.summarize(gains)


def draw(described: Source, storage: Storage, number: int) -> tuple[Source, Storage]:
    """The pool of that number, and the store of its results. Pool 0 is the source itself."""
    if described.demo is None:
        raise SourceError(
            f"{described.name}: a list is one pool, and no other can be drawn: --pools is for sources with [demo]"
        )
    if number == 0:
        return described, storage
    demo = described.demo.model_copy(update={"seed": described.demo.seed + number * APART})
    return described.model_copy(update={"demo": demo}), storage.below(f"pools/{number}")
