"""Manifests that `winnow gc --keep` removed. Each leaves `removed/<id>.json`, which explains its id."""

import json
from collections.abc import Mapping
from pathlib import Path

from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage

FOLDER = "removed"


def mark(storage: Storage, manifest: str, scores: Mapping[str, str]) -> None:
    """Record that a manifest is removed. `scores` are the stage keys of its scorers by name."""
    storage.put_if_absent(f"{FOLDER}/{manifest}.json", canonical_json({"scores": dict(scores)}))


def ids(storage: Storage, prefix: str = "") -> list[str]:
    """The ids of removed manifests that begin with a prefix. One of them may have been published again since."""
    return [name for key in storage.keys(FOLDER) if (name := Path(key).stem).startswith(prefix)]


def scored(storage: Storage) -> set[str]:
    """The folders of scores that removed manifests had."""
    found = (json.loads(storage.fetch(key).read_bytes())["scores"] for key in storage.keys(FOLDER))
    return {f"scores/{name}-{key}" for scores in found for name, key in scores.items()}


def explain(manifest: str) -> str:
    """What to say of a removed manifest."""
    return f"manifest {manifest[:12]} was removed by `winnow gc --keep`, and its rows with it"
