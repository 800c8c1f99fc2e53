"""Whether decoding keeps an encoder busy: python tests/benchmarks/features.py [ENCODER ...]

For each encoder, with random weights unless others are named: pictures a second and the share of the time in which the
encoder is at work, when pictures are opened one by one, and streamed with 1, 2, 4 ... decoding workers.
"""

import os
import sys

from pipeline.bench import synthetic
from pipeline.models import device
from pipeline.settings import encoder
from training.studies import cost

NAMES = ("timm:mobilenetv2_100@random", "timm:resnet50@random", "timm:vit_base_patch16_224@random")
PICTURES, SIDE = 384, 256


def main(names):
    pictures = [synthetic.jpeg(number, SIDE)[0] for number in range(PICTURES)]
    machine = device.describe("float32")
    print(f"{PICTURES} pictures, {SIDE} px at the shorter side; {machine}; load {os.getloadavg()[0]:.1f}")
    for name in names:
        found = cost.measure_in_process(encoder.parse_encoder(name), pictures)
        alone = found.encoder_images_per_second
        print(f"{name}: {alone:.1f} images/s alone, {found.memory_mb} MiB", flush=True)
        for loop in (found.one_by_one, *found.streamed):
            how = f"streamed, {loop.workers} workers" if loop.workers else "one by one"
            rate = loop.images_per_second
            ratio = rate / found.one_by_one.images_per_second
            print(
                f"  {how:<20} {rate:8.1f} images/s, busy {loop.busy:.3f}, {ratio:.2f} times one by one, "
                f"{rate / alone:.2f} of alone",
                flush=True,
            )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES)
