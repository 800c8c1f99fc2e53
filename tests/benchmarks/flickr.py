"""What filtering and augmentation are worth on real photographs, by how much noise is planted in their captions:
PYTHONPATH=tests WINNOW_DATA=... python tests/benchmarks/flickr.py [SEEDS] [FOLDER, for features] [RATE ...]

Everything below was settled before the first figure was seen, and all of it is printed. Noise: so many of the captions
are given to another photograph. Filter: the recorded CLIP similarity of the photograph and the name of the class that
its caption names must reach what nine of ten captions of that class reach in the dev split, where nothing was planted.
Every seed draws other noise, resamples the pairs, and begins the learner anew; its arms share all three.
"""

import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import flickr_photographs
import numpy as np
import pyarrow as pa
from flickr_photographs import CLASSES, DATA
from PIL import Image

from pipeline.manifest import arms
from pipeline.models import device
from pipeline.scorers import class_labels
from pipeline.settings.encoder import Pixels
from pipeline.settings.task import Budget
from pipeline.store.digests import digest
from training.data import decoding
from training.encoders import encoders
from training.learners import probe
from training.learners.targets import Objective
from training.measures import intervals, metrics

RATES = (0.0, 0.1, 0.3, 0.5)
LEARNERS = {
    "linear, CLIP": ("linear", "clip"),
    "mlp, CLIP": ("mlp", "clip"),
    "linear, MobileNetV2": ("linear", "mobilenet"),
    "mlp, MobileNetV2": ("mlp", "mobilenet"),
    "cnn, pixels": ("cnn", "pixels"),
}
BUDGET = Budget(steps=300, batch=64, augmented_views=1)  # doubles the set once
CELLS = (("raw", False), ("filtered", False), ("random", False), ("raw", True), ("filtered", True))
COMPARED = (
    ("filtered - raw", ("filtered", False), ("raw", False)),
    ("filtered - random", ("filtered", False), ("random", False)),
    ("augmented - plain, filtered", ("filtered", True), ("filtered", False)),
)


def held_out(clip):
    """The photographs of the test split of which two captions or more name one class alone, and their labels."""
    table = flickr_photographs.captions("test")
    images = np.array(table["image"].to_pylist())
    named = class_labels.classes_named(table["caption"], CLASSES)
    names = np.array(sorted(set(images[:].tolist())))
    votes = np.stack([named[images == name].sum(axis=0) for name in names])
    label = class_labels.single_class(votes >= 2)
    chosen = label >= 0
    seen = np.array([name in clip for name in names[chosen]])
    return names[chosen], label[chosen], seen


def extracted(described, names, views, path):
    """float16 [photographs, 1 + views, dim], kept in a file."""
    if path.is_file():
        return np.load(path)
    encoder, parts = encoders.load(described), []
    for name in names:
        content = (DATA / "flickr8k/images" / name).read_bytes()
        versions = decoding.decode_versions(content, BUDGET.policy, views)
        parts.append(encoder.encode([encoder.prepare(Image.fromarray(pixels)) for pixels in versions]))
    found = np.stack(parts).astype(np.float16)
    np.save(path, found)
    return found


def seen_by(clip, train, test, folder):
    """By encoder, what learners see of the training photographs, and of the test ones."""
    known = [clip[name] for name in test if name in clip]
    found = {"clip": [np.stack(each)[:, None].astype(np.float16) for each in ([clip[name] for name in train], known)]}
    for name, described in (("mobilenet", flickr_photographs.mobilenet()), ("pixels", Pixels(kind="pixels", side=32))):
        found[name] = [
            extracted(described, names, views, folder / f"{name}-{digest([*names, views])[:8]}.npy")
            for names, views in ((train, BUDGET.augmented_views), (test, 0))
        ]
        print(name, file=sys.stderr)
    return SimpleNamespace(**found)


def main(seeds, folder, rates):
    started = time.process_time()
    clip, text = flickr_photographs.embeddings()
    least = flickr_photographs.calibrated(clip, text)
    table = flickr_photographs.captions("train")
    own = flickr_photographs.label_of(table["caption"].to_pylist())
    names, place = np.unique(np.array(table["image"].to_pylist()), return_inverse=True)
    fits = np.stack([clip[name] for name in names]) @ text.T
    test, truth, with_clip = held_out(clip)
    views = seen_by(clip, names, test, folder)
    print(f"{len(names)} training photographs, {len(table)} captions, {(own >= 0).sum()} of them name one class")
    print(f"{len(test)} test photographs, {with_clip.sum()} with a recorded embedding; {seeds} seeds")
    print(f"by class in training and test: {np.bincount(own[own >= 0])} {np.bincount(truth)}\n")
    for rate in rates:
        said = {(name, cell): [] for name in LEARNERS for cell in CELLS}
        noise = []
        for seed in range(seeds):
            texts, swapped = flickr_photographs.planted(table, rate, np.random.default_rng([seed, round(100 * rate)]))
            label = flickr_photographs.label_of(texts.tolist())
            pool = np.flatnonzero(label >= 0)
            kept = fits[place[pool], label[pool]] >= least[label[pool]]
            wrong = flickr_photographs.wrong(table, label, swapped)[pool]
            noise.append((wrong.mean(), wrong[kept].mean(), (wrong & ~kept).sum() / max(wrong.sum(), 1), kept.mean()))
            print(f"{rate:.0%}, seed {seed}: {time.process_time() - started:.0f} s", file=sys.stderr)
            drawn = arms.draw(pa.table({"uid": [str(row) for row in pool], "kept": kept}), seed)
            rows = {arm: np.array(uids.to_pylist(), np.int64) for arm, uids in drawn.items()}
            for (name, (arm, augmented)), found in said.items():
                head, encoder = LEARNERS[name]
                training, heldout = getattr(views, encoder)
                if augmented and training.shape[1] == 1:
                    continue
                shown = training[place[rows[arm]]]
                found.append(
                    probe.train(
                        head,
                        shown if augmented else shown[:, :1],
                        Objective(label[rows[arm]], len(CLASSES)),
                        heldout,
                        BUDGET,
                        seed,
                    )[BUDGET.steps]
                )
        told(rate, noise, said, truth, with_clip, seeds)
    print(f"\n{time.process_time() - started:.0f} s of processor time")


def told(rate, noise, said, truth, with_clip, seeds):
    before, after, removed, kept = np.mean(noise, axis=0)
    print(f"## {rate:.0%} of the captions swapped\n")
    print(f"Wrong labels {before:.1%}, after the filter {after:.1%}: it removed {removed:.1%} of them,")
    print(f"and kept {kept:.1%} of all pairs.\n")
    print("| learner | " + " | ".join(f"{arm}{', augmented' if how else ''}" for arm, how in CELLS) + " |")
    print("|---" * (1 + len(CELLS)) + "|")
    lines = []
    for name, (_, encoder) in LEARNERS.items():
        known = truth[with_clip] if encoder == "clip" else truth
        bootstrap = intervals.Bootstrap(metrics.Classification(known, list(CLASSES)), len(known), seeds)
        means = {cell: bootstrap.mean(np.stack(said[name, cell])) for cell in CELLS if said[name, cell]}
        cells = []
        for cell in CELLS:
            scores = [metrics.scores(known, each, list(CLASSES))["f1_macro"] for each in said[name, cell]]
            cells.append(f"{np.mean(scores):.3f} ({np.std(scores, ddof=1):.3f})" if scores else "")
        print(f"| {name} | " + " | ".join(cells) + " |")
        for what, better, worse in COMPARED:
            if better in means:
                found = intervals.difference(means[better], means[worse])
                lines.append(f"| {name} | {what} | {found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}] |")
    print("\n| learner | difference in macro-F1 | with its 95 % interval |\n|---|---|---|")
    print("\n".join(lines) + "\n", flush=True)


if __name__ == "__main__":
    with device.one_thread(), tempfile.TemporaryDirectory() as folder:
        rates = [float(rate) for rate in sys.argv[3:]] or RATES
        main(int((sys.argv[1:] or ["10"])[0]), Path((sys.argv[2:] or [folder])[0]), rates)
