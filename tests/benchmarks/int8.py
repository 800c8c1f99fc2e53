"""Linear layers in int8 on a processor, beside float32 and bfloat16: python tests/benchmarks/int8.py [MODEL] [PAIRS]

MODEL is an open_clip name, whose weights are random, or a folder of an open_clip model. Pictures and captions are those
of `winnow bench`. Each repeat runs the precisions in turn. Printed: pairs a second of both towers, the median of the
ratios to float32 inside each repeat, and the largest difference of a pair's similarity from float32.
"""

import copy
import io
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.ao.quantization import PlaceholderObserver, QConfig, default_per_channel_weight_observer, quantize_dynamic

from pipeline.bench import synthetic, weights
from pipeline.models.clip import Clip
from pipeline.models.clip_weights import find_model

REPEATS = 3

CHANNELS = QConfig(
    PlaceholderObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=255, is_dynamic=True),
    default_per_channel_weight_observer,
)
"""Weights have a scale for each channel, and inputs all of 8 bits, where torch's default leaves one of them out."""


def loaded(model, precision):
    """`int8` has the weights of the blocks' two linear layers in int8, and quantizes their inputs in each pass.

    torch cannot quantize the projections of its attention, nor what open_clip does beside the layers themselves.
    """
    with tempfile.TemporaryDirectory() as folder:
        at = model if Path(model).is_dir() else weights.random_model(model, Path(folder) / "model")
        clip = Clip(find_model(f"local-dir:{at}", None, None))
    clip.place("cpu", "float32" if precision == "int8" else precision)
    if precision == "int8":
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        wide = {name: CHANNELS for name, _ in clip.model.named_modules() if ".mlp.c_" in name}
        clip.model = quantize_dynamic(copy.deepcopy(clip.model), wide, torch.qint8)
        for tower in (clip.model, clip.model.visual):
            if hasattr(tower, "transformer"):  # open_clip asks a layer's weight for it
                tower.transformer.get_cast_dtype = lambda: torch.float32
        clip._tower = type(clip._tower)(clip.model)
    return clip


def main(model, count):
    captions = list(synthetic.captions(count))
    clips = {precision: loaded(model, precision) for precision in ("float32", "int8", "bfloat16")}
    pictures = [Image.open(io.BytesIO(synthetic.jpeg(number, 224)[0])) for number in range(count)]
    prepared = [clips["float32"].prepare(picture.convert("RGB")) for picture in pictures]
    seconds, similarity = defaultdict(list), {}
    for _ in range(REPEATS):
        for precision, clip in clips.items():
            started = time.perf_counter()
            found = np.einsum("nd,nd->n", clip.encode_pictures(prepared), clip.encode_captions(captions))
            seconds[precision].append(time.perf_counter() - started)
            similarity[precision] = found
    for precision, spent in seconds.items():
        ratios = [exact / each for exact, each in zip(seconds["float32"], spent, strict=True)]
        far = np.abs(similarity[precision] - similarity["float32"]).max()
        print(
            f"{precision:>9} {count / median(spent):7.1f} pairs/s, {median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) times float32, at most {far:.2g} from its similarity",
            flush=True,
        )


if __name__ == "__main__":
    main(*(sys.argv[1:2] or ["ViT-B-32"]), int((sys.argv[2:] or ["128"])[0]))
