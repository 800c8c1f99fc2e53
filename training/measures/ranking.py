"""The ranks of retrieval for a table: Rank@k and the median rank of both directions, with intervals and chance.

The interval is that of `training.measures.intervals`: over seeds and over pictures, which count with their captions.
"""

from typing import Any

import numpy as np

from training.measures.intervals import LEVEL, Bootstrap
from training.measures.matching import AT, Retrieval
from training.measures.metrics import Floats, Predictions

DIRECTIONS = {"t2i": "text to image", "i2t": "image to text"}
"""By the prefix of their metrics."""


def summarize(measure: Retrieval, predictions: Predictions, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Each direction for ranks [seeds, queries], as JSON: name, `says`, queries, the size of its gallery
    (`candidates`), `recalls` at each k and `median`.

    A recall has value, low, high, `chance`, and `times_chance`, the multiple of chance.
    """
    point = [measure.scores(row) for row in predictions]
    value = {name: float(np.mean([each[name] for each in point])) for name in measure.metrics}
    _, chance = measure.baseline(np.array([]))
    shares = bootstrap.resampled(predictions, measure.resampled_recalls)
    ranks = bootstrap.resampled(predictions, measure.resampled_medians)
    sizes = {"t2i": measure.pictures, "i2t": int(measure.pairs.text.max()) + 1}
    queries = {"t2i": len(measure.pairs.picture), "i2t": measure.pictures}
    recalls = [name for name in measure.metrics if name.split("_r")[-1].isdecimal()]
    middle = [name for name in measure.metrics if name.endswith("_median")]
    spread = {name: _bounds(shares[:, at]) for at, name in enumerate(recalls)}
    spread |= {name: _bounds(ranks[:, at]) for at, name in enumerate(middle)}

    def figure(name: str) -> dict[str, float]:
        return {"value": value[name], **spread[name], "chance": chance[name]}

    return [
        {
            "name": way,
            "says": says,
            "queries": queries[way],
            "candidates": sizes[way],
            "recalls": [
                {"k": k, **figure(f"{way}_r{k}"), "times_chance": value[f"{way}_r{k}"] / chance[f"{way}_r{k}"]}
                for k in AT
            ],
            "median": figure(f"{way}_median"),
        }
        for way, says in DIRECTIONS.items()
    ]


def _bounds(values: Floats) -> dict[str, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"low": low, "high": high}
