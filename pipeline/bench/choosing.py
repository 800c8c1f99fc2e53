"""The speed of choosing: funnel and selection of six filters, compared with the same filters as masks in pandas.

The rows of the manifest are synthetic; its parts and row groups are like those of every manifest. Both sides run in
turn, several times, each in a process of its own, so that peaks of memory do not mix. The clock starts after the
imports, and the files are in the system's cache. winnow opens the manifest and computes its funnel and its selection.
pandas reads the columns of the six filters and `uid`, of all files at once with pyarrow's threads. It counts the rows
that pass each mask, all masks in sequence, and all masks but one, and takes the uids. Both results must be equal.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from filters import image, pair, text
from filters.core import Recipe
from pipeline.bench.synthetic_manifest import publish_rows, table
from pipeline.manifest.manifest import Manifest
from pipeline.process import lifeline, machine
from pipeline.store.storage import Storage

RECIPE = Recipe(
    "benchmark",
    (text.worded, image.large, image.shaped, text.english, image.sharpness(50), pair.most_aligned(0.3)),
)
"""Six filters over eight columns; the last is a quantile of the whole pool."""

SIDES = ("winnow", "pandas")


@dataclass(frozen=True)
class Answer:
    """The result of one side.

    `funnel` has for each filter the pairs that pass it alone, that pass it and all before it, and that would be kept in
    addition without it. `uids` is a digest of the kept uids in ledger order.
    """

    funnel: list[tuple[int, int, int]]
    kept: int
    uids: str
    funnel_seconds: float
    select_seconds: float
    peak_memory_mb: int

    @property
    def seconds(self) -> float:
        """Seconds of the funnel and the selection together."""
        return self.funnel_seconds + self.select_seconds


def run(rows: int, repeats: int, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure; `tell` is called with each step. Seconds are medians, and a ratio the median of those in each repeat."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as folder:
        publish_rows(Storage(Path(folder)), rows, RECIPE, tell)
        answers: dict[str, list[Answer]] = {side: [] for side in SIDES}
        for number in range(1, repeats + 1):
            for side in SIDES:
                tell(f"{side}, {number} of {repeats}")
                answers[side].append(_apart(side, folder))
    return figures(answers["winnow"], answers["pandas"]) | {
        "rows": rows,
        "columns": len(table(0, 1).column_names),
        "repeats": repeats,
        "processor": machine.processor(),
        "cores": os.cpu_count(),
        "load": [round(load, 2), round(os.getloadavg()[0], 2)],
    }


def figures(ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, Any]:
    """Medians over the repeats, peaks of memory over all. Raises ValueError if two answers are not the same."""
    if len({(tuple(each.funnel), each.kept, each.uids) for each in (*ours, *theirs)}) > 1:
        raise ValueError(f"the two sides do not agree: {ours[0]} and {theirs[0]}")

    def middle(values: Sequence[float]) -> float:
        return float(f"{median(values):.4g}")

    return {
        "seconds": middle([each.seconds for each in ours]),
        "funnel_seconds": middle([each.funnel_seconds for each in ours]),
        "select_seconds": middle([each.select_seconds for each in ours]),
        "pandas_seconds": middle([each.seconds for each in theirs]),
        "ratio_to_pandas": middle([other.seconds / each.seconds for each, other in zip(ours, theirs, strict=True)]),
        "peak_memory_mb": max(each.peak_memory_mb for each in ours),
        "pandas_peak_memory_mb": max(each.peak_memory_mb for each in theirs),
        "kept": ours[0].kept,
    }


def _apart(side: str, folder: str) -> Answer:
    """The result of one side, from a process of its own."""
    command = lifeline.python("pipeline.bench.choosing", side, folder)
    answer = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return Answer(**answer | {"funnel": [tuple(each) for each in answer["funnel"]]})


def winnow(storage: Storage) -> Answer:
    """The result of winnow."""
    started = time.perf_counter()
    manifest = Manifest.open(storage)
    steps = manifest.funnel(RECIPE)
    counted = time.perf_counter()
    kept = manifest.select(RECIPE)["uid"]
    done, peak = time.perf_counter(), machine.peak_memory_mb()
    funnel = [(step.alone, step.sequence, step.costs) for step in steps]
    return Answer(funnel, len(kept), _digest(kept), counted - started, done - counted, peak)


def pandas(storage: Storage) -> Answer:
    """The result of masks over a data frame."""
    import pandas as pd

    started = time.perf_counter()
    named = ("uid", "status", "width", "height", "captions_words", "captions_length", "captions_language")
    files = [storage.fetch(part.rows) for part in Manifest.open(storage).parts]
    columns = [*named, "pixels_sharpness", "clip_similarity"]
    frame = pd.read_parquet(files, columns=columns)  # type: ignore[call-overload]  # its stubs know no list of files
    masks = [
        (frame.captions_words > 2) & (frame.captions_length > 5),
        (frame.width >= 200) & (frame.height >= 200),
        (frame.width <= 3 * frame.height) & (frame.height <= 3 * frame.width),
        frame.captions_language == "en",
        frame.pixels_sharpness >= 50,
        frame.clip_similarity >= np.float32(frame.clip_similarity.quantile(0.7)),
    ]
    there = frame.status == "ok"
    sequence = [there]
    for mask in masks:
        sequence.append(sequence[-1] & mask)
    kept = sequence.pop()
    funnel = []
    for at, mask in enumerate(masks):
        without = there
        for other in (*masks[:at], *masks[at + 1 :]):
            without = without & other
        passed = (there & mask).sum(), (sequence[at] & mask).sum(), without.sum() - kept.sum()
        funnel.append((int(passed[0]), int(passed[1]), int(passed[2])))
    counted = time.perf_counter()
    uids = frame.uid[kept]
    done, peak = time.perf_counter(), machine.peak_memory_mb()
    uids = pa.chunked_array([pa.array(uids, pa.string())])
    return Answer(funnel, len(uids), _digest(uids), counted - started, done - counted, peak)


def _digest(uids: pa.ChunkedArray) -> str:
    return hashlib.sha256("".join(uids.to_pylist()).encode()).hexdigest()


def _main(side: str, folder: str) -> None:
    answer = {"winnow": winnow, "pandas": pandas}[side](Storage(Path(folder)))
    print(json.dumps(asdict(answer)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
