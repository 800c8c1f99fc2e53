"""The files of a sweep: its figures as JSON, its plot, and the plot of encoders by score and cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.store.disk import disk_errors
from pipeline.store.storage import Storage
from training.studies import sweep_plot


def write(found: Mapping[str, Any], storage: Storage) -> list[Path]:
    """Write them under `sweeps/`, named after the sweep. Raises StorageError on a full disk.

    `found` is what `training.studies.sweep.run` returns.
    """
    folder, name = storage.root / "sweeps", found["name"]
    paths = [folder / f"{name}.json", folder / f"{name}.svg"]
    with disk_errors(storage.root):
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        sweep_plot.scores(found, paths[1])
        if found["efficient"]:
            paths.append(folder / f"{name}-encoders.svg")
            sweep_plot.trade_off(found["efficient"], found["score"], paths[-1])
        if all(each["classes"] and each["classes"]["trained"] for each in found["cells"]):
            paths.append(folder / f"{name}-classes.svg")
            sweep_plot.scores(_by_name(found), paths[-1])
    return paths


def _by_name(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same sweep with the zero-shot accuracy on classes that trained as its score."""
    cells = []
    for each in found["cells"]:
        part = each["classes"]["trained"]
        cells.append({**each, "score": part["value"], "low": part["low"], "high": part["high"]})
    score = "zero-shot accuracy on classes that trained"
    shown = sum(part["pictures"] for part in found["cells"][0]["classes"].values() if part)
    return {**found, "gallery": {"pictures": shown}, "cells": cells, "score": score, "chance": 1 / found["classes"]}
