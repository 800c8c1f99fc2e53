"""Which copies of test pictures `leaks` finds, under 12 transforms, and how many clean rows with them.

python tests/benchmarks/leaks.py demo [TEST CLEAN]    scenes of the demo's world, and its CLIP
python tests/benchmarks/leaks.py flickr [TEST CLEAN]  photographs of WINNOW_DATA (Flickr8k, DAQUAR), and its MobileNetV2
python tests/benchmarks/leaks.py photos [TEST CLEAN]  the same photographs, by their hashes alone

Copies are planted in every transform of `copies.py`, drawn anew for each picture, and stored as JPEG. Clean rows are
other pictures, each as it is and once transformed. Prints the table of docs/leaks.md.
"""

import os
import sys
from pathlib import Path

import numpy as np
from copies import TRANSFORMS, encoded, opened

from pipeline.images.phash import phash
from pipeline.scorers.leak_index import EmbeddingRule, LeakIndex, SetPicture

DEMO = Path(__file__).parents[2] / "pipeline" / "demo" / "clip"
RULES = {"4 bits": (4, None), "8 bits": (8, None), "4 bits, or 10 and a cosine of {}": (4, 10)}
SEED = 11
"""Of the scenes, and of the copies: not those with which the versions and the numbers above were chosen."""


def demo(test, clean):
    from pipeline.demo import pool
    from pipeline.scorers.clip import ClipSpec

    def drawn(stream, count):
        return [opened(pool.file(SEED, number, pool.Shot(stream, number))) for number in range(count)]

    clip = ClipSpec(kind="clip", model=f"local-dir:{DEMO}", precision="float32").load()
    return drawn(pool.TEST, test), drawn(pool.POOL, clean), clip, 0.95


class MobileNet:
    """MobileNetV2 as its README says."""

    def __init__(self, weights):
        import timm
        from safetensors.torch import load_file

        self._model = timm.create_model("mobilenetv2_100", pretrained=False, num_classes=1000, pad_type="same")
        self._model.load_state_dict(load_file(weights), strict=True)
        self._model.eval()
        half = (0.5, 0.5, 0.5)
        self.prepare = timm.data.create_transform(
            input_size=(3, 224, 224), interpolation="bilinear", crop_pct=0.875, mean=half, std=half
        )

    def pictures(self, prepared):
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(prepared), 32):
                maps = self._model.forward_features(torch.stack(prepared[start : start + 32]))
                found.append(self._model.forward_head(maps, pre_logits=True).numpy())
        vectors = np.concatenate(found)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def flickr(test, clean):
    weights = Path(os.environ["WINNOW_DATA"]) / "weights" / "mobilenetv2_100.safetensors"
    return *photos(test, clean)[:2], MobileNet(weights), 0.8


def photos(test, clean):
    import pyarrow.parquet as pq

    data = Path(os.environ["WINNOW_DATA"])
    rows = pq.read_table(data / "flickr8k" / "splits.parquet").to_pylist()
    folder = data / "flickr8k" / "images"
    held = [folder / row["image"] for row in rows if row["split"] == "test"]
    rest = [folder / row["image"] for row in rows if row["split"] != "test"]
    rest = sorted((data / "daquar").rglob("*.jpg")) + rest
    chosen = ([opened(path.read_bytes()) for path in paths] for paths in (held[-test:], rest[-clean:]))
    return *chosen, None, None


def seen(pictures, encoder):
    """The hash and the embedding of each stored picture."""
    stored = [opened(encoded(picture)) for picture in pictures]
    hashes = np.array([phash(each) for each in stored], np.uint64)
    if encoder is None:
        return hashes, None
    return hashes, encoder.encode_pictures([encoder.prepare(each) for each in stored]).astype(np.float16)


def found(known, rows, rule, similarity):
    """Which test picture each row is said to leak from, -1 for none."""
    radius, loose = rule
    hashes, embeddings = rows
    _, target = known.by_hash(hashes, radius, lambda done, total: None)
    if loose is None:
        return target
    _, _, agreed = known.by_vector(embeddings, hashes, EmbeddingRule("", loose, similarity))
    return np.where(target < 0, agreed, target)


def main(which, test, clean):
    held, others, encoder, similarity = {"demo": demo, "flickr": flickr, "photos": photos}[which](test, clean)
    random = np.random.default_rng(SEED)
    known = LeakIndex.read((SetPicture("test", str(n), "", image) for n, image in enumerate(held)), encoder)
    copies = {name: seen([made(each, random) for each in held], encoder) for name, made in TRANSFORMS.items()}
    changed = [list(TRANSFORMS.values())[number % 12](each, random) for number, each in enumerate(others)]
    strangers = seen([*others, *changed], encoder)
    rules = {name.format(similarity): rule for name, rule in RULES.items() if encoder or rule[1] is None}
    print(f"{which}: {len(held)} test pictures, {len(held) * 12:,} copies, {2 * len(others):,} clean rows\n")
    print(f"| transform | {' | '.join(rules)} |\n|---{'|---' * len(rules)}|")
    own, recall = np.arange(len(held)), {}
    for name, rows in copies.items():
        recall[name] = [np.mean(found(known, rows, rule, similarity) == own) for rule in rules.values()]
    for name, shares in recall.items():
        print(f"| {name} | {' | '.join(f'{each:.3f}' for each in shares)} |")
    print(f"| **all** | {' | '.join(f'**{each:.3f}**' for each in np.mean(list(recall.values()), axis=0))} |")
    false = [int((found(known, strangers, rule, similarity) >= 0).sum()) for rule in rules.values()]
    print(f"| clean rows that are said to leak | {' | '.join(f'{each} of {2 * len(others):,}' for each in false)} |")


if __name__ == "__main__":
    sizes = [int(each) for each in sys.argv[2:4]] or {
        "demo": [200, 1000],
        "flickr": [200, 1300],
        "photos": [200, 1300],
    }[sys.argv[1]]
    main(sys.argv[1], *sizes)
