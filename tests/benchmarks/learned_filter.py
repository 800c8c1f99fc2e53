"""What a learned filter is worth on real photographs, by how many of their captions are swapped:
WINNOW_DATA=... python tests/benchmarks/learned_filter.py [FOLDER, for features] [SEEDS]

Pairs: flickr8k_more's training photographs with five captions each, in shards of 250 photographs in a random order.
Noise: so many pairs exchange their captions. Models: linear heads on frozen EfficientNet-Lite0 and MiniLM. Filter: two
models, each trained on the shards of one parity, score the shards of the other; the best pairs are kept, as many as are
right. Arms: all pairs (raw), the kept pairs (filtered), a random subset of the same size (random), and what is kept by
one model that scores its own training pairs (own). Every seed draws other noise, other heads and another order; its
arms share them. Lengths of trainings were chosen on dev photographs and on planted swaps.
"""

import copy
import hashlib
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from pipeline.settings.model import Model
from pipeline.store.storage import Storage
from training.augment import noise
from training.data import folds
from training.data.features import Extractor
from training.data.heldout import HeldOut
from training.data.pairs import Pairs
from training.data.streams import Stored
from training.dual import build
from training.learners.checkpoint import Checkpoint
from training.learners.inputs import Inputs, chunks, embed
from training.measures.intervals import Bootstrap
from training.measures.matching import Match, Retrieval, threshold
from training.studies.corpus import Corpus
from training.studies.dual_training import Drawn, prepare

DATA = Path(os.environ["WINNOW_DATA"])
RATES = (0.0, 0.1, 0.3, 0.5)
KEPT = {0.0: 0.9, 0.1: 0.9, 0.3: 0.7, 0.5: 0.5}
"""The share of the pairs that the filter keeps. Where nothing is wrong it drops a tenth for nothing."""
ARMS = ("raw", "filtered", "random", "own")
SEEDS, FOLDS, SHARD = 5, 2, 250
STEPS, FILTER_STEPS = 200, 50
"""Of the models that are compared: of 200 to 1,500 the best on dev photographs. Of those that score pairs: of 50 to
1,500 the best at telling planted swaps at 30 %, in one seed. Longer trainings learn wrong pairs by heart."""
AT = (1, 5, 10)
MODEL = Model.model_validate({
    "image": {
        "kind": "timm",
        "model": "tf_efficientnet_lite0",
        "weights": str(DATA / "weights/tf_efficientnet_lite0.safetensors"),
    },
    "text": {"kind": "transformers", "model": str(DATA / "weights/minilm_l6_v2")},
    "pooling": "mean",
    "dim": 256,
    "batch": 256,
    "steps": STEPS,
})  # fmt: skip


class Photographs:
    """The pairs of a table with image and caption: features of both sides, computed once, and whose each pair is."""

    def __init__(self, inputs, extractor, folder, table):
        names, self.photo = np.unique(table["image"].to_pylist(), return_inverse=True)
        paths = tuple(DATA / folder / "images" / name for name in names.tolist())
        self.sha256 = np.array([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
        self.captions = table["caption"].to_pylist()
        texts, self.text = np.unique(np.array(self.captions, object), return_inverse=True)
        held = HeldOut(tuple(self.sha256.tolist()), np.zeros(len(paths), np.int16), 0, 0, paths)
        features = extractor.heldout(held)
        self.images, self.phash = features.views[:, 0], features.phash
        self.texts = inputs.texts(texts.tolist()).values
        self.table = table

    def corpus(self, order):
        """Pairs for a training: pair i has the caption of pair order[i]."""
        images, texts = (
            Stored(values, place[:, None].astype(np.int64))
            for values, place in ((self.images, self.photo), (self.texts, self.text[order]))
        )
        return Corpus(images, texts, self.photo.astype(np.int64), str, 0)

    def embed(self, model):
        """The embeddings of all photographs, and of all distinct captions."""
        return embed(model, model.visual, chunks(self.images)), embed(model, model.text, chunks(self.texts))

    def similarity(self, model, order):
        """The cosine of each pair of `corpus(order)`."""
        images, texts = self.embed(model)
        return np.einsum("nd,nd->n", images[self.photo], texts[self.text[order]])


def table(folder, file, split):
    splits = pq.read_table(DATA / folder / "splits.parquet")
    chosen = splits.filter(pc.equal(splits["split"], split))["image"]
    pairs = pq.read_table(DATA / folder / file)
    return pairs.filter(pc.is_in(pairs["image"], chosen))


def train(bare, storage, corpus, rows, seed, steps=STEPS):
    """A model with new heads, trained on these rows. `bare` has no towers, because their features are stored."""
    model = copy.deepcopy(bare)
    model.settings = MODEL.model_copy(update={"steps": steps})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for branch in (model.visual, model.text):
            branch.head.proj.reset_parameters()
    drawn = Drawn(np.asarray(rows, np.int64), np.empty(0, np.int64), seed)
    unsaved = Checkpoint(storage, "unsaved", float("inf"))
    prepare(Inputs(model, {}, storage), corpus, drawn, unsaved).run((), list, lambda *_: None)
    return model


def auc(scores, right):
    """The chance that a right pair scores higher than a swapped one."""
    from scipy.stats import rankdata

    count, wrong = int(right.sum()), int((~right).sum())
    return float((rankdata(scores)[right].sum() - count * (count + 1) / 2) / (count * wrong)) if wrong else float("nan")


def cross_fitted(fit, pool, shard, order, seed, steps=FILTER_STEPS):
    """The similarity of each pair by the model of its shard's fold."""
    scores = np.empty(len(order))
    for fold in range(FOLDS):
        trained = folds.trains(fold, FOLDS, shard, pool.sha256[pool.photo], pool.phash[pool.photo])
        scored = folds.scores(fold, FOLDS, shard)
        model = fit(pool.corpus(order), np.flatnonzero(trained), seed, steps)
        scores[scored] = pool.similarity(model, order)[scored]
    return scores


def own_scores(fit, pool, order, seed, steps=FILTER_STEPS):
    """The similarity of each pair by a model that was trained on all of them."""
    return pool.similarity(fit(pool.corpus(order), np.arange(len(order)), seed, steps), order)


def show_memory(fit, pool, shard):
    """How well planted swaps are told, by the length of the training and the number of captions a photograph."""
    print("\n| captions a photograph | steps | AUC, cross-fitted | AUC of a model on its own training pairs |")
    print("|---|---|---|---|")
    for captions in (5, 1):
        part = copy.copy(pool)
        rows = np.flatnonzero(np.array(pool.table["caption_no"].to_pylist()) < captions)
        part.photo, part.text = pool.photo[rows], pool.text[rows]
        order = noise.draw("alignment", 0.3, len(rows), 0).order
        right = part.photo[order] == part.photo
        for steps in (50, 200, 600):
            apart = auc(cross_fitted(fit, part, shard[rows], order, 0, steps), right)
            print(f"| {captions} | {steps} | {apart:.3f} | {auc(own_scores(fit, part, order, 0, steps), right):.3f} |")


def best(scores, count):
    """The rows of so many best scores."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def one_seed(fit, pool, gallery, shard, seed):
    """By rate and arm the ranks on the gallery, by rate what the filter did, and the model without noise."""
    measure = Retrieval(Pairs.of(gallery.captions, gallery.photo), len(gallery.images))
    numbers = {text: number for number, text in enumerate(sorted(set(gallery.captions)))}
    place = [numbers[text] for text in measure.pairs.texts]
    ranks, did, clean = {}, {}, None
    for rate in RATES:
        order = noise.draw("alignment", rate, len(pool.photo), seed).order
        right = pool.photo[order] == pool.photo
        scores = cross_fitted(fit, pool, shard, order, seed)
        own = own_scores(fit, pool, order, seed)
        count = round(KEPT[rate] * len(order))
        rows = {
            "raw": np.arange(len(order)),
            "filtered": best(scores, count),
            "random": np.sort(np.random.default_rng([seed, 1]).permutation(len(order))[:count]),
            "own": best(own, count),
        }
        models = {arm: fit(pool.corpus(order), rows[arm], seed) for arm in ARMS}
        for arm, model in models.items():
            images, captions = gallery.embed(model)
            ranks[rate, arm] = measure.predict(images, captions[place])
        clean = clean or models["raw"]
        of_fold = folds.scores(0, FOLDS, shard)
        did[rate] = {
            "swapped": 1 - right.mean(),
            "swapped, kept": 1 - right[rows["filtered"]].mean(),
            "swapped, kept by own": 1 - right[rows["own"]].mean(),
            "auc": auc(scores, right),
            "auc in fold 0": auc(scores[of_fold], right[of_fold]),
            "auc of its own pairs": auc(own, right),
        }
    return ranks, did, clean


def match_f1(model, dev, test):
    """F1 of match on the test rows, by two thresholds of the dev rows: the most accurate, and that with the best F1."""
    cosines = {
        name: each.similarity(model, np.arange(len(each.photo))) for name, each in (("dev", dev), ("test", test))
    }
    label = {name: np.array(each.table["match"].to_pylist(), bool) for name, each in (("dev", dev), ("test", test))}

    def scores(name, line):
        pairs = Pairs.of([""] * len(label[name]), np.zeros(len(label[name]), np.int64), label[name])
        return Match(pairs, 1).scores(cosines[name] - line)

    candidates = np.unique(cosines["dev"])
    best = max(candidates, key=lambda line: scores("dev", line)["f1"])
    return [scores("test", line) for line in (threshold(cosines["dev"], label["dev"]), best)]


def interval(values):
    return "[{:.3f}, {:.3f}]".format(*np.nanquantile(values, [0.025, 0.975]))


def show_recall(ranks, gallery, seeds):
    """The tables of recall, and the share of the lost recall that came back."""
    measure = Retrieval(Pairs.of(gallery.captions, gallery.photo), len(gallery.images))
    bootstrap = Bootstrap(measure, len(gallery.images), seeds)
    names = [f"{way}_r{k}" for way in ("t2i", "i2t") for k in AT]
    scored = {cell: [measure.scores(each) for each in by_seed] for cell, by_seed in ranks.items()}
    means = {cell: bootstrap.mean(np.stack(by_seed)) for cell, by_seed in ranks.items()}
    print("\n| swapped | arm | text to image R@1/5/10 | image to text R@1/5/10 | mean recall |\n|---|---|---|---|---|")
    for (rate, arm), found in scored.items():
        mean = {name: np.mean([each[name] for each in found]) for name in names}
        ways = ["/".join(f"{mean[name]:.3f}"[1:] for name in names[at : at + 3]) for at in (0, 3)]
        recall = [each["mean_recall"] for each in found]
        print(f"| {rate:.0%} | {arm} | {ways[0]} | {ways[1]} | {np.mean(recall):.4f} ({np.std(recall, ddof=1):.4f}) |")
    clean = means[0.0, "raw"]
    print("\n| swapped | lost by noise | filtered - raw | filtered - random | filtered - own | of the loss came back |")
    print("|---|---|---|---|---|---|")
    for rate in RATES:
        raw, filtered, random, own = (means[rate, arm] for arm in ARMS)
        cells = [(clean, raw), (filtered, raw), (filtered, random), (filtered, own)]
        shown = [f"{one.point - other.point:+.4f} {interval(one.resampled - other.resampled)}" for one, other in cells]
        came = ""
        if rate:
            share = (filtered.point - raw.point) / (clean.point - raw.point)
            came = f"{share:.0%} {interval((filtered.resampled - raw.resampled) / (clean.resampled - raw.resampled))}"
        print(f"| {rate:.0%} | {' | '.join(shown)} | {came} |")
    print("\nshare of the loss that came back, text to image at 1, 5, 10:")
    for rate in RATES[1:]:
        mean = {arm: [np.mean([each[f"t2i_r{k}"] for each in scored[rate, arm]]) for k in AT] for arm in ARMS}
        lost = np.mean([[each[f"t2i_r{k}"] for k in AT] for each in scored[0.0, "raw"]], axis=0) - mean["raw"]
        print(f"{rate:.0%}:", ", ".join(f"{each:.0%}" for each in (np.array(mean["filtered"]) - mean["raw"]) / lost))


def main(folder, seeds):
    torch.set_num_threads(1)
    storage = Storage(folder)
    inputs = Inputs(build.build(MODEL, 0), build.identity(MODEL), storage)
    extractor = Extractor(storage, inputs.image_features, "pillow", None, workers=1)
    read = partial(Photographs, inputs, extractor)
    gallery = read("flickr8k_more", table("flickr8k_more", "captions.parquet", "test"))
    pool = read("flickr8k_more", table("flickr8k_more", "captions.parquet", "train"))
    sides = [read("flickr8k", table("flickr8k", "itm.parquet", split)) for split in ("dev", "test")]
    print(f"features: {time.process_time():.0f} s; {len(pool.photo):,} pairs of {len(pool.images):,} photographs")
    bare = inputs.model
    for branch in (bare.visual, bare.text):
        branch.trunk = torch.nn.Identity()
    fit = partial(train, bare, storage)
    shard = (np.random.default_rng(0).permutation(len(pool.images)) // SHARD)[pool.photo]
    found = []
    for seed in range(seeds):
        found.append(one_seed(fit, pool, gallery, shard, seed))
        print(f"seed {seed}: {time.process_time():.0f} s", flush=True)
    print("\n| swapped | in what is kept | kept by own | AUC, cross-fitted | in one fold | on its own training pairs |")
    print("|---|---|---|---|---|---|")
    for rate in RATES:
        of = {name: [did[rate][name] for _, did, _ in found] for name in found[0][1][rate]}
        cells = [f"{np.mean(of[name]):.1%}" for name in of if "swapped" in name]
        if rate:
            cells += [f"{np.mean(each):.4f} ({np.std(each, ddof=1):.4f})" for name, each in of.items() if "auc" in name]
        print(f"| {' | '.join(cells)} |")
    show_recall({cell: [ranks[cell] for ranks, _, _ in found] for cell in found[0][0]}, gallery, seeds)
    print("\nmatch or no match, on itm's test rows, threshold from dev rows; all-match baseline:")
    matched = [match_f1(model, *sides) for _, _, model in found]
    label = np.array(sides[1].table["match"].to_pylist(), bool)
    print(f"always match: F1 {2 * label.mean() / (1 + label.mean()):.3f}")
    for at, rule in enumerate(("most accurate on dev", "best F1 on dev")):
        for name in ("f1", "precision", "recall", "accuracy", "auc"):
            each = [of[at][name] for of in matched]
            print(f"{rule}: {name} {np.mean(each):.3f} ({np.std(each, ddof=1):.3f})")
    show_memory(fit, pool, shard)
    print(f"\n{time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(given[0] if given else temporary), int(given[1]) if len(given) > 1 else SEEDS)
