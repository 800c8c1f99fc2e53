"""Decoding stored pictures for scorers, in threads and in processes: python tests/benchmarks/decode_pool.py [PICTURES]

Synthetic pictures of 256 px are decoded, cropped to 224 px as for a CLIP, and measured as by `pixels`. Printed is the
median of three passes. The first pictures, for which processes are started, are timed apart.
"""

import os
import sys
import time
from statistics import median

from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from pipeline.bench import synthetic
from pipeline.models.preprocessing import Geometry
from pipeline.process import spawning
from pipeline.process.machine import cores
from pipeline.scorers.pixels import Pixels
from pipeline.scoring.decode_pool import MANY, DecodePool


class Cropped:
    preparation = Geometry(Compose([Resize(224, InterpolationMode.BICUBIC), CenterCrop(224)]))
    prepare = preparation


def seconds(pool, pictures):
    started = time.perf_counter()
    list(pool.map(pictures, {"clip": Cropped(), "pixels": Pixels()}))
    return time.perf_counter() - started


def main(count):
    with spawning.pool() as drawers:
        pictures = [
            (str(number), jpeg)
            for number, (jpeg, *_) in enumerate(drawers.map(synthetic.jpeg, range(count), [256] * count, chunksize=32))
        ]
    print(f"{count} pictures, {cores()} cores, load {os.getloadavg()[0]:.1f}")
    for name, processes in (("threads", 0), ("processes", cores())):
        pool = DecodePool("pillow", processes)
        first = seconds(pool, pictures[:MANY])
        rate = count / median(seconds(pool, pictures) for _ in range(3))
        print(f"{name}: {rate:.0f} pictures/s; the first {MANY} took {first:.1f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
