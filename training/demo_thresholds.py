"""Where the demo's thresholds come from: `python -m training.demo_thresholds` prints them.

A calibration pool of its own scenes, spoiled as the demo's pool is, is scored by the demo's scorers. A threshold is the
value with the best F1 at telling the pairs with the fault from all others. The demo's pool and test set play no part;
the figures are copied into data_manifests/demo.toml and stay.
"""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from pipeline import source
from pipeline.demo import pool
from pipeline.score import Batch

SEED, PAIRS = 1, 1000
CAUGHT_BY = {"swapped": ("clip", "similarity"), "blurred": ("pixels", "sharpness")}
"""Fault -> the scorer and the column whose low values mean it."""


def best(values: npt.NDArray[np.float64], bad: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """The threshold with the best F1 for "bad is below", with its precision and recall."""
    order = np.argsort(values)
    caught = np.cumsum(bad[order])
    below = np.arange(1, len(values) + 1)
    at = int(np.argmax(2 * caught / (below + bad.sum())))
    edge = values[order][at : at + 2].mean()
    return float(edge), float(caught[at] / below[at]), float(caught[at] / bad.sum())


def calibration() -> tuple[list[Image.Image], list[str], npt.NDArray[np.str_]]:
    """Pictures as the pipeline stores them, captions, and faults; those of the web left out."""
    lines = [line for line in pool.plan(SEED, PAIRS, pool.CALIBRATION) if line.fault not in pool.WEB_FAULTS]
    files = dict(pool.files(SEED, pool.CALIBRATION, pool.faults_of(lines)))
    pictures = {name: _stored(content) for name, content in files.items()}
    faults = np.array([line.fault for line in lines])
    return [pictures[pool.name(line.picture)] for line in lines], [line.caption for line in lines], faults


def _stored(content: bytes) -> Image.Image:
    again = BytesIO()
    Image.open(BytesIO(content)).save(again, "JPEG", quality=source.Download().quality)
    return Image.open(again).convert("RGB")


def main() -> None:
    """Score the calibration pool and print a line for each fault."""
    pictures, captions, faults = calibration()
    for fault, (name, column) in CAUGHT_BY.items():
        scorer: Any = source.load("demo").scorers[name].load()
        images = [scorer.prepare(picture) for picture in pictures]
        batch = Batch([""] * len(images), images, captions, pa.table({}))
        values = np.asarray(scorer.score(batch)[column], np.float64)
        edge, precision, recall = best(values, faults == fault)
        print(f"{fault}: {name}_{column} < {edge:.3g}  precision {precision:.3f}, recall {recall:.3f}, n {len(values)}")


if __name__ == "__main__":
    main()
