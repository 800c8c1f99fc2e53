"""The files of a sweep: its figures as JSON, its plot, and the plot of encoders by score and cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.store.storage import Storage
from training.studies import sweep_plot


def write(found: Mapping[str, Any], storage: Storage) -> list[Path]:
    """Write them under `sweeps/`, named after the sweep. Raises StorageError on a full disk.

    `found` is what `training.studies.sweep.run` returns.
    """
    stem = f"sweeps/{found['name']}"
    keys = [f"{stem}.json", f"{stem}.svg"]
    with storage.making(keys[0]) as path:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    with storage.making(keys[1]) as path:
        sweep_plot.scores(found, path)
    if found["efficient"]:
        keys.append(f"{stem}-encoders.svg")
        with storage.making(keys[-1]) as path:
            sweep_plot.trade_off(found["efficient"], found["score"], path)
    if all(each["classes"] and each["classes"]["trained"] for each in found["cells"]):
        keys.append(f"{stem}-classes.svg")
        with storage.making(keys[-1]) as path:
            sweep_plot.scores(_by_name(found), path)
    return storage.fetch_all(keys)


def _by_name(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same sweep with the zero-shot accuracy on classes that trained as its score."""
    cells = []
    for each in found["cells"]:
        part = each["classes"]["trained"]
        cells.append({**each, "score": part["value"], "low": part["low"], "high": part["high"]})
    score = "zero-shot accuracy on classes that trained"
    shown = sum(part["pictures"] for part in found["cells"][0]["classes"].values() if part)
    return {**found, "gallery": {"pictures": shown}, "cells": cells, "score": score, "chance": 1 / found["classes"]}
