"""Seconds of the map of `winnow explore`, on random vectors of 512 numbers about 50 topics.

python tests/benchmarks/map.py tsne 20000
python tests/benchmarks/map.py region 200000
"""

import sys
import time

import numpy as np

from pipeline.neighbours import plane
from pipeline.pages.explore import regions


def vectors(count):
    random = np.random.default_rng(0)
    topics = random.normal(size=(50, 512)).astype(np.float32)
    found = np.empty((count, 512), np.float16)
    for start in range(0, count, 10_000):
        part = topics[random.integers(0, 50, min(10_000, count - start))]
        part = part + random.normal(size=part.shape).astype(np.float32)
        found[start : start + 10_000] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return found


def main():
    what, count = sys.argv[1], int(sys.argv[2])
    made = vectors(count)
    began, used = time.perf_counter(), time.process_time()
    if what == "region":
        inside = (made @ made[0]) > 0.3
        region = regions.fit(made, inside)
        said = f"{inside.sum()} inside, {len(region.centres)} centres, F1 {region.agreement:.3f}"
    else:
        plane.plane(made, "PCA" if what == "pca" else "t-SNE", lambda done, total: None)
        said = ""
    print(
        f"{what} {count}: {time.perf_counter() - began:.1f} s, {time.process_time() - used:.1f} s of processors {said}"
    )


if __name__ == "__main__":
    main()
