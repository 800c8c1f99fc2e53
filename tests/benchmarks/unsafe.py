"""Scores of open_nsfw on photographs of WINNOW_DATA, none of which is unsafe, and what they cost.

PYTHONPATH=. WINNOW_DATA=... python tests/benchmarks/unsafe.py [PHOTOGRAPHS]
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.scorers.unsafe import UnsafeSpec

THRESHOLDS = (0.05, 0.1, 0.2, 0.5, 0.8)


def main() -> None:
    """Print the figures."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    listed = sorted((Path(os.environ["WINNOW_DATA"]) / "flickr8k_more" / "images").iterdir())
    chosen = listed[:: max(1, len(listed) // count)][:count]
    scorer = UnsafeSpec(kind="unsafe").load()
    began = time.process_time()
    scores = np.array([scorer.prepare(Image.open(path).convert("RGB")) for path in chosen])
    spent = 1000 * (time.process_time() - began) / len(chosen)
    print(f"{len(chosen)} photographs, {spent:.0f} ms of processor time for each, load {os.getloadavg()[0]:.1f}")
    for threshold in THRESHOLDS:
        print(f"  at least {threshold}: {int((scores >= threshold).sum())}")


if __name__ == "__main__":
    main()
