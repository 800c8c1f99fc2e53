"""What a sweep found, as JSON: scores with intervals, observations, costs, and published figures beside ours."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import TrainingError
from pipeline.settings.encoder import Network
from pipeline.settings.sweep import Cell, Sweep
from training.learners.inputs import Inputs
from training.measures import intervals, ranking
from training.measures.intervals import Bootstrap, Mean
from training.measures.matching import Retrieval
from training.studies import class_texts, comparison, cost, efficiency, observations, published, sweep_cell
from training.studies.ground import Ground, Grounds
from training.studies.observations import Scored

FAILED = "failed"
"""The key of why a training has no result."""

COSTED = 64
"""Stored pictures on which the cost of an image tower is measured."""


class Trained(NamedTuple):
    """A cell, with the tuned values that were chosen for it, and the result of each seed."""

    cell: Cell
    results: Sequence[Mapping[str, Any]]


def chosen(trained: Sequence[Trained]) -> list[Trained]:
    """Of the cells that differ in tuned values alone, the one with the lowest mean validation loss over seeds.

    Without validation pairs, the first. Values under which a training failed are no choice. Raises TrainingError if
    there is no other.
    """
    points: dict[str, list[Trained]] = {}
    for each in trained:
        points.setdefault(json.dumps(each.cell.values, sort_keys=True, default=str), []).append(each)
    best = []
    for group in points.values():
        failures = [result[FAILED] for each in group for result in each.results if FAILED in result]
        whole = [each for each in group if not any(FAILED in result for result in each.results)]
        if not whole:
            raise TrainingError(failures[0])
        best.append(min(whole, key=_loss))
    return best


def _loss(trained: Trained) -> float:
    losses = [each["validation_loss"] for each in trained.results]
    return float("inf") if None in losses else float(np.mean(losses))


def summary(grounds: Grounds, settings: Sweep, trained: Sequence[Trained]) -> dict[str, Any]:
    """Cells with their scores, ranks, losses and costs, what is observed, and published figures beside ours; JSON."""
    from training.dual import build

    first = trained[0].cell.model
    inputs = Inputs(build.build(first, 0), build.identity(first), grounds.storage)
    measure = sweep_cell.gallery_of(grounds.of(inputs), grounds.source.name).measure
    bootstrap = Bootstrap(measure, measure.pictures, len(settings.seed_numbers))
    ranks = [np.array([each["ranks"] for each in own.results]) for own in trained]
    means = [bootstrap.mean(each) for each in ranks]
    chance = measure.baseline(np.array([]))[1]["mean_recall"]
    rows = [
        _row(each, mean, ranking.summarize(measure, own, bootstrap), _named(grounds.of(inputs), measure, each))
        for each, mean, own in zip(trained, means, ranks, strict=True)
    ]
    scored = [Scored(_all_values(each.cell), mean) for each, mean in zip(trained, means, strict=True)]
    return {
        "recipe": grounds.choice.recipe.name,
        "model": settings.model,
        "keys": [*settings.grid, *(["equal"] if settings.examples and settings.steps else [])],
        "seeds": len(settings.seed_numbers),
        "pairs": trained[0].results[0]["pairs"],
        "gallery": {"pictures": measure.pictures, "captions": len(measure.pairs.picture)},
        "interval": f"{intervals.LEVEL:.0%}, over seeds and test pictures; {intervals.RESAMPLES} resamples",
        "classes": len(classes.names) if (classes := grounds.of(inputs).classes) else 0,
        "score": Retrieval.metrics["mean_recall"],
        "chance": chance,
        "device": trained[0].results[0]["device"],
        "cells": rows,
        "findings": [each._asdict() for each in observations.find(scored, len(settings.seed_numbers), chance)],
        "efficient": _efficient(grounds, trained, rows) if "image" in settings.grid else None,
        "published": [_flat(each) for each in published.beside(published.read(), rows)],
    }


def _flat(each: published.Beside) -> dict[str, Any]:
    return {**each._asdict(), "figure": each.figure._asdict()}


def _all_values(cell: Cell) -> dict[str, Any]:
    """Its values, and those of the keys that observations are about where the grid does not vary them."""
    known = {"objective": cell.model.objective, "batch": cell.model.batch, **cell.treatment.model_dump()}
    return {**known, **cell.values}


def _row(trained: Trained, mean: Mean, directions: Sequence[Mapping[str, Any]], named: Any) -> dict[str, Any]:
    low, high = np.quantile(mean.resampled, [(1 - intervals.LEVEL) / 2, (1 + intervals.LEVEL) / 2]).tolist()
    cell, results = trained
    return {
        "name": ", ".join(f"{name} {value}" for name, value in cell.values.items()),
        "values": dict(cell.values),
        "tuned": dict(cell.tuned),
        "image": cell.model.image.name,
        "steps": results[0]["steps"],
        "batch": results[0]["batch"],
        "classes": named,
        "score": mean.point,
        "low": low,
        "high": high,
        "directions": list(directions),
        "metrics": dict(_metrics(directions)),
        "train_loss": float(np.mean([each["train_loss"] for each in results])),
        "validation_loss": None if np.isinf(_loss(trained)) else _loss(trained),
        "epochs": [each["epochs"] for each in results],
        "seconds": float(np.mean([each["seconds"] for each in results])),
        "parameters": results[0]["image"] + results[0]["text"] + results[0]["heads"],
        "flops": results[0]["image_flops"],
    }


def _named(ground: Ground, measure: Retrieval, trained: Trained) -> dict[str, Any] | None:
    """Zero-shot accuracy on classes that trained and on others; None without labelled test pictures."""
    if ground.classes is None or not len(ground.classes.truth):
        return None
    ranks = np.array([each["class_ranks"] for each in trained.results])
    bootstrap = Bootstrap(measure, ranks.shape[1], len(ranks))
    return class_texts.accuracies(ranks, ground.classes.truth, trained.cell.model, bootstrap)


def _metrics(directions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, float]]]:
    for way in directions:
        for each in way["recalls"]:
            yield f"{way['name']}_r{each['k']}", each
        yield f"{way['name']}_median", way["median"]


def _efficient(grounds: Grounds, trained: Sequence[Trained], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The image towers by score and cost. Costs are measured in a process of their own, once for each tower."""
    sample = list(islice(comparison.stored_pictures(grounds.storage, grounds.choice.manifest), COSTED))
    spent: dict[str, Mapping[str, Any]] = {}
    table = []
    for each, row in zip(trained, rows, strict=True):
        network = _network(each.cell)
        key = network.model_dump_json()
        if key not in spent:
            spent[key] = asdict(cost.measure_in_process(network, sample, grounds.source.decoder))
        kept = {name: row[name] for name in ("name", "image", "score", "low", "high", "flops")}
        speed = {"images_per_second": spent[key]["encoder_images_per_second"], "memory_mb": spent[key]["memory_mb"]}
        table.append({**kept, "parameters": spent[key]["parameters"], **speed})
    best = efficiency.most_efficient(table)
    return {
        "rule": efficiency.RULE,
        "best": best["name"] if best else None,
        "front": efficiency.front(table),
        "rows": table,
    }


def _network(cell: Cell) -> Network:
    """The image tower at the size that the model reads."""
    if cell.model.image_size is None:
        return cell.model.image
    size = [3, cell.model.image_size, cell.model.image_size]
    return cell.model.image.model_copy(update={"preprocess": {**cell.model.image.preprocess, "input_size": size}})
