"""What cutting captions costs and gains: python tests/benchmarks/cut.py [MODEL] [CAPTIONS]

For captions cut to multiples of 8 and of 32 tokens, and for whole ones: captions a second, and how far the embeddings'
cosines with some pictures are from those of the whole tower in float32. The weights are random.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from pipeline.bench import synthetic, weights
from pipeline.models import certificate
from pipeline.models import clip as clip_module
from pipeline.models.clip import Clip
from pipeline.models.clip_weights import find_model

REPEATS = 3


def main(model, count):
    captions = list(synthetic.captions(count))
    with tempfile.TemporaryDirectory() as folder:
        clip = Clip(find_model(f"local-dir:{weights.random_model(model, Path(folder) / 'model')}", None, None))
    pictures = clip.encode_pictures([clip.prepare(picture) for picture in certificate.golden_pictures()])
    whole = None
    for precision in ("float32", "bfloat16"):
        clip.place("cpu", precision)
        taken = {}
        for _ in range(REPEATS):
            for step in (1000, 32, 8):
                clip_module.STEP = step
                started = time.perf_counter()
                cosines = clip.encode_captions(captions) @ pictures.T
                taken.setdefault(step, []).append(time.perf_counter() - started)
                whole = cosines if whole is None else whole
                if len(taken[step]) == REPEATS:
                    name = "whole" if step == 1000 else f"cut to {step}"
                    print(
                        f"{precision:>9} {name:>10} {count / median(taken[step]):8.1f} captions/s, "
                        f"{np.abs(cosines - whole).max():.1e} from the whole tower in float32",
                        flush=True,
                    )


if __name__ == "__main__":
    main(*(sys.argv[1:2] or ["ViT-B-32"]), int((sys.argv[2:] or ["256"])[0]))
