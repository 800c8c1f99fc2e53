"""Whether a source has anything to do, found without Prefect, whose server takes longer to start than the answer."""

import sys

from pipeline.demo.world import World
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.manifest.log import commits
from pipeline.manifest.publish import Published
from pipeline.scoring.plan import Plan
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.takedown.writing import writing


def settled(described: Source, storage: Storage) -> Published | None:
    """What `curate` returns if nothing is new; None if the flow has something to do.

    It reads the list and appends its new pairs to the ledger, as the flow does. It fetches, scores and publishes
    nothing. Warnings about the list go to stderr. Raises what the flow raises.
    """
    source = with_list(described, storage)
    if source is None or not commits(storage):
        return None
    with writing(storage, described):
        plan, warnings = Plan.of(source), list[str]()
        same = publish.unchanged(plan, storage, ingest.update(source, storage, warn=warnings.append))
    for line in warnings if same else ():  # otherwise the flow reads the list again, and warns
        print(line, file=sys.stderr)
    return same


def with_list(described: Source, storage: Storage) -> Source | None:
    """The source with its list. None if it has no list yet, because its demo world is not drawn."""
    if described.demo is None:
        return described
    world = World(described.demo, storage.local)
    return world.fill(described) if world.built else None
