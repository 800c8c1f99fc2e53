"""What can be trained on: labelled pairs with their features, and which of them the test set forbids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import arms
from pipeline.errors import CompareError
from pipeline.manifest import Manifest
from pipeline.trials import Progress
from training import heldout, labels
from training.features import Extractor, Features
from training.heldout import HeldOut
from training.labels import Classes


class Dropped(NamedTuple):
    """How many pairs a filter drops, and how many of them it alone drops."""

    all: int
    alone: int


@dataclass(frozen=True)
class Pool:
    """`table` has a row a labelled pair: uid, kept, dropped_by, sha256, label, and picture, its row in the features.

    `features` and `heldout`, those of the test set, have an entry for each encoder. `leaked` are the uids whose picture
    is in the test set; `counts` tells where the downloaded pairs went, `filters` how many that can be trained on each
    filter drops.
    """

    table: pa.Table
    features: Sequence[Features]
    heldout: Sequence[Features]
    leaked: pa.Array
    counts: Mapping[str, int]
    filters: Mapping[str, Dropped]


def read(
    manifest: Manifest, classes: Classes, extractors: Sequence[Extractor], test: HeldOut, progress: Progress
) -> Pool:
    """The pool of a manifest, in ledger order. Raises CompareError if no caption names exactly one class."""
    table, counts = labels.labelled(arms.downloaded(manifest), classes)
    if not counts["labelled"]:
        raise CompareError(
            f"none of {counts['downloaded']} downloaded captions names exactly one class; see the words in task.classes"
        )
    table, features = _with_features(table, manifest.document["stages"]["shards"], extractors, progress)
    held = [extractor.heldout(test) for extractor in extractors]
    near = heldout.near(features[0].phash, held[0].phash)[table["picture"].to_numpy()]
    exact = pc.is_in(table["sha256"], value_set=pa.array(test.sha256)).to_numpy()
    leaked = table["uid"].filter(pa.array(exact | near)).combine_chunks()
    usable = table.filter(pa.array(~(exact | near)))
    more = {
        "leaked_exact": int(exact.sum()),
        "leaked_near": int((near & ~exact).sum()),
        "pool": len(usable),
        "pool_kept": pc.sum(usable["kept"]).as_py() or 0,
    }
    filters = {name: _dropped(usable, name) for name in manifest.recipe.reasons}
    return Pool(table, features, held, leaked, {**counts, **more}, filters)


def _dropped(usable: pa.Table, name: str) -> Dropped:
    named = pc.list_flatten(usable["dropped_by"])
    return Dropped(pc.sum(pc.equal(named, name)).as_py() or 0, int(arms.dropped_alone(usable, name).sum()))


def _with_features(
    table: pa.Table, shards_key: str, extractors: Sequence[Extractor], progress: Progress
) -> tuple[pa.Table, list[Features]]:
    """Pairs of one URL share a picture, and so its features."""
    pictures = np.zeros(len(table), np.int64)
    wanted: dict[int, list[str]] = {}
    start = 0
    for number in pc.unique(table["shard"]).to_pylist():
        rows = np.flatnonzero(pc.equal(table["shard"], number).to_numpy())
        members, positions = np.unique(table["member"].take(rows).to_pylist(), return_inverse=True)
        wanted[number] = members.tolist()
        pictures[rows] = start + positions
        start += len(members)
    total = len(wanted) * len(extractors)
    progress("features", 0, total)
    found: list[list[Features]] = []
    for extractor in extractors:
        found.append([])
        for features in extractor.training(shards_key, wanted):
            found[-1].append(features)
            progress("features", sum(map(len, found)), total)
    return table.append_column("picture", pa.array(pictures)), [Features.joined(each) for each in found]
