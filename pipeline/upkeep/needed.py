"""Which objects of a store are needed: those of the manifests that stay, and those of the source's next run.

Only objects that winnow can make again, or that nothing names, are ever called unneeded. Everything else stays, whether
it is known here or not: the ledger, the block list and its marks, labels, trials, draws, gains, models, sweeps, pages.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from pipeline.ledger.ledger import committed, current_key
from pipeline.manifest import card, removed
from pipeline.manifest.manifest import Manifest
from pipeline.pages.explore import map_job
from pipeline.scoring.plan import Plan
from pipeline.store.storage import Storage


class Unneeded(NamedTuple):
    """Objects that nothing needs, what they are, and why."""

    what: str
    why: str
    keys: Sequence[str]


@dataclass(frozen=True)
class Needs:
    """The needs of a store. `plans` are those of its source and of unions that copy from it.

    `manifests` stay, and `dropped` go. `demo` is the folder of the drawn pictures of a demo; None for another source.
    """

    storage: Storage
    plans: Sequence[Plan]
    manifests: Sequence[Manifest]
    dropped: Sequence[Manifest] = ()
    demo: str | None = None

    def unneeded(self) -> Iterator[Unneeded]:
        """What can go, in the order of removal: what names an object goes before the object."""
        yield from self._manifests()
        yield from self._rows()
        yield from self._ledger()
        yield from self._derived()
        yield from self._stages()
        if self.demo is not None:
            yield from self._by_folder("demo-*", lambda folder: None if folder == self.demo else "other demo settings")

    @cached_property
    def folders(self) -> frozenset[str]:
        """The folders of stages that are needed."""
        keys = {plan.shards.key for plan in self.plans} | {each.stages.shards for each in self.manifests}
        scores = {stage.folder for plan in self.plans for stage in plan.scores.values()}
        scores |= {f"scores/{name}-{key}" for each in self.manifests for name, key in each.stages.scores.items()}
        embeddings = {folder.replace("scores/", "embeddings/", 1) for folder in scores}
        return frozenset({f"shards-{key}" for key in keys} | scores | embeddings)

    @cached_property
    def _superseded(self) -> set[str]:
        """The folders of scores that manifests had which are removed, or will be."""
        going = {f"scores/{name}-{key}" for each in self.dropped for name, key in each.stages.scores.items()}
        return going | removed.scored(self.storage)

    def _manifests(self) -> Iterator[Unneeded]:
        """Manifests that are not in the log."""
        named = {key for each in self.manifests for key in (f"manifests/{each.id}.json", card.key(each.id))}
        yield Unneeded(
            "manifests",
            "the log does not name them",
            [key for key in self.storage.keys("manifests") if key not in named],
        )

    def _rows(self) -> Iterator[Unneeded]:
        parts = [part for each in self.manifests for part in each.parts]
        rows, verdicts = {part.rows for part in parts}, {part.verdicts for part in parts}
        indexes = self.storage.keys("rows/by-input")
        named = map(json.loads, (path.read_bytes() for path in self.storage.fetch_all(indexes)))
        lost = [key for key, index in zip(indexes, named, strict=True) if index["key"] not in rows]
        others = [key for key in self.storage.find("rows/*.parquet") if key not in rows]
        yield Unneeded("rows", "no manifest has these parts", [*lost, *others])
        others = [key for key in self.storage.find("verdicts/*.parquet") if key not in verdicts]
        yield Unneeded("verdicts", "no manifest has these verdicts", others)

    def _ledger(self) -> Iterator[Unneeded]:
        """Pairs that were never committed, and the entries of states of the list that no manifest has."""
        if not self.storage.keys("ledger"):
            return
        named = {shard.key for shard in committed(self.storage)}
        named |= {current_key(each.document.inputs.ledger.digest) for each in self.manifests}
        lost = [key for key in self.storage.find("pairs/*.parquet") if key not in named]
        yield Unneeded("pairs", "neither the ledger nor a manifest names them", lost)

    def _derived(self) -> Iterator[Unneeded]:
        """Features and versions of pictures that go. Those of held-out pictures and of texts stay."""

        def why(folder: str) -> str | None:
            shards = self._made_by(folder).get("shards")
            gone = isinstance(shards, str) and f"shards-{shards}" not in self.folders
            return f"made of shards-{shards}" if gone else None

        for pattern in ("features/*", "versions-*"):
            yield from self._by_folder(pattern, why)
        yield from self._by_folder("maps/*", self._why_map)

    def _why_map(self, folder: str) -> str | None:
        """Why the map in a folder can go: no manifest has its pairs and embeddings."""
        made_by = self._made_by(folder)
        shown = (map_job.of_pairs(each, scorer) for each in self.manifests for scorer in each.stages.scores)
        return None if any(each.items() <= made_by.items() for each in shown) else "no manifest has these pairs"

    def _stages(self) -> Iterator[Unneeded]:
        def why(folder: str) -> str | None:
            return None if folder in self.folders else "neither the source file nor a manifest has this key"

        yield from self._by_folder("embeddings/*", why)
        yield from self._by_folder("scores/*", lambda folder: why(folder) if self._is_old(folder) else None)
        yield from self._by_folder("shards-*", why)

    def _is_old(self, folder: str) -> bool:
        """Whether no later run needs these scores. Those of a whole pool may be of a run that was stopped."""
        made_by = self._made_by(folder)
        if made_by.pop("pool", None) is None or folder in self._superseded:
            return True
        name = PurePosixPath(folder).name.rpartition("-")[0]
        return all(plan.of_pool.get(name) != made_by for plan in self.plans)

    def _by_folder(self, pattern: str, why: Callable[[str], str | None]) -> Iterator[Unneeded]:
        """The folders that match a pattern and are unneeded, each with `why(folder)`; `key.json` is its last object."""
        objects: dict[str, list[str]] = {}
        depth = pattern.count("/") + 1
        for below in ("/*", "/*/*"):
            for key in self.storage.find(pattern + below):
                objects.setdefault("/".join(PurePosixPath(key).parts[:depth]), []).append(key)
        for folder, keys in sorted(objects.items()):
            if reason := why(folder):
                yield Unneeded(folder, reason, sorted(keys))

    def _made_by(self, folder: str) -> dict[str, Any]:
        """What made the folder; empty if it does not say."""
        key = f"{folder}/key.json"
        made_by: dict[str, Any] = json.loads(self.storage.fetch(key).read_bytes()) if self.storage.done(key) else {}
        return made_by
