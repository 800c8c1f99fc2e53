"""What scaled decoding would move: python tests/benchmarks/scaled.py FOLDER

Reads each JPEG of a folder at 256 and at 512 px, whole, and scaled by libjpeg to at least twice what the demo's CLIP
wants; prints how far its similarities to a few captions are apart, in float32.
"""

import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.demo import world
from pipeline.models.clip import Clip
from pipeline.models.clip_weights import find_model

SIDE, MOST = 64, 300
CAPTIONS = ("a red cube", "a blue ball behind a green cone", "two people", "a dog on the grass")


def main(folder):
    clip = Clip(find_model(f"local-dir:{Path(world.__file__).parent / 'clip'}", None, None))
    captions = clip.encode_captions(CAPTIONS)
    for shorter in (256, 512):
        whole, scaled = [], []
        for path in sorted(Path(folder).glob("*.jpg"))[:MOST]:
            content = io.BytesIO()
            picture = Image.open(path).convert("RGB")
            by = shorter / min(picture.size)
            size = [round(side * by) for side in picture.size]
            picture.resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=95)
            whole.append(clip.prepare(Image.open(content).convert("RGB")))
            draft = Image.open(content)
            draft.draft("RGB", (2 * SIDE, 2 * SIDE))
            scaled.append(clip.prepare(draft.convert("RGB")))
        moved = np.abs((clip.encode_pictures(whole) - clip.encode_pictures(scaled)) @ captions.T)
        print(
            f"{shorter} px, {len(whole)} pictures: up to {moved.max():.4f}, {moved.mean():.4f} in the mean, "
            f"{(moved.max(axis=1) > 1e-3).mean():.0%} of them by more than 0.001"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
