"""What scoring costs beside the bare towers, in processor time: python tests/benchmarks/ceiling.py [PAIRS] [REPEATS]

ViT-B-32 with random weights, in bfloat16, and one window of PAIRS pairs as `winnow bench` makes them. Each repeat runs
in turn: scoring with the last batch filled up to a power of two, scoring with it split into powers of two, and the
towers alone, on batches of 64 and as many rows as there are. Processor time is less sensitive to other work than the
seconds of `winnow bench`: set OMP_NUM_THREADS=1.
"""

import io
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.bench import synthetic, weights
from pipeline.models.batches import in_batches
from pipeline.models.clip import Clip
from pipeline.models.clip_weights import find_model


def loaded():
    with tempfile.TemporaryDirectory() as folder:
        clip = Clip(find_model(f"local-dir:{weights.random_model('ViT-B-32', Path(folder) / 'model')}", None, None))
    clip.place("cpu", "bfloat16")
    return clip


def towers(clip, pairs, captions):
    picture = torch.randn(clip.batch, 3, 224, 224).to(clip.dtype)
    with torch.inference_mode():
        for start in range(0, pairs, clip.batch):
            clip.model.encode_image(picture[: pairs - start])
        for _, tokens in clip.tokenize(captions):
            for start in range(0, len(tokens), clip.batch):
                clip.text_features(tokens[start : start + clip.batch])


def scoring(clip, prepared, captions, split):
    clip._in_batches = lambda encode, items: in_batches(encode, items, clip.batch, split=split)
    return np.einsum("nd,nd->n", clip.encode_pictures(prepared), clip.encode_captions(captions))


def main(pairs, repeats):
    clip, captions = loaded(), list(synthetic.captions(pairs))
    prepared = [clip.prepare(Image.open(io.BytesIO(synthetic.jpeg(number, 224)[0]))) for number in range(pairs)]
    scoring(clip, prepared[: clip.batch], captions[: clip.batch], True)
    loops = {
        "filled up": partial(scoring, clip, prepared, captions, False),
        "split": partial(scoring, clip, prepared, captions, True),
        "towers": partial(towers, clip, pairs, captions),
    }
    spent, similarity = defaultdict(list), {}
    for _ in range(repeats):
        for name, loop in loops.items():
            started = time.process_time()
            similarity[name] = loop()
            spent[name].append(1000 * (time.process_time() - started) / pairs)
    assert (similarity["filled up"] == similarity["split"]).all()
    for name, each in spent.items():
        shares = [f"{alone / one:.3f}" for alone, one in zip(spent["towers"], each, strict=True)]
        print(f"{name:>9} {min(each):.1f} ms a pair at least; share of the towers: {', '.join(shares)}")


if __name__ == "__main__":
    main(int((sys.argv[1:2] or ["250"])[0]), int((sys.argv[2:] or ["3"])[0]))
