"""Which wrong pairs a learned mix of scores finds among real photographs, beside each of its columns alone:
PYTHONPATH=. WINNOW_DATA=... python tests/benchmarks/mixer.py [FOLDER, for features] [SEEDS]

Photographs of flickr8k_more's training split, features of EfficientNet-Lite0 and MiniLM. A third of the photographs
trains two models that score: `similarity` with 200 steps, `weak_similarity` with 20. The others are the pool, three
captions each, and 300 of them the reference, one right caption each. Noise: 30 % of the captions are swapped; or 15 %
are swapped and 15 % cut to their first two words. Columns: both similarities, the words of the caption, and the bytes
of the picture, which tell nothing. Every recipe keeps half of the pool. Every seed draws other photographs, noise and
models. Wrong pairs are swapped or cut.
"""

import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import learned_filter
import numpy as np
import torch

from pipeline.mixing.comparison import compare
from pipeline.mixing.learn import learn
from pipeline.mixing.pairs import OUTSIDE, Pairs
from pipeline.store.storage import Storage
from training.augment import noise
from training.data.features import Extractor
from training.data.streams import Stored
from training.dual import build
from training.learners.inputs import Inputs, chunks, embed
from training.studies.corpus import Corpus

COLUMNS = ("similarity", "weak_similarity", "words", "bytes")
REFERENCE, CAPTIONS, KEEP, REFITS, SEEDS = 300, 3, 0.5, 3, 10
NOISE = {"30 % swapped": (0.3, 0.0), "15 % swapped, 15 % cut": (0.15, 0.15)}


class Features:
    """Features of all photographs [photographs, dim], of all captions and of the captions cut, by the caption's row."""

    def __init__(self, inputs, extractor):
        table = learned_filter.table("flickr8k_more", "captions.parquet", "train")
        found = learned_filter.Photographs(inputs, extractor, "flickr8k_more", table)
        names = np.unique(table["image"].to_pylist())
        self.bytes = np.array([(learned_filter.DATA / "flickr8k_more/images" / name).stat().st_size for name in names])
        self.images, self.photo, self.number = found.images, found.photo, np.array(table["caption_no"].to_pylist())
        self.texts, self.words = found.texts[found.text], np.array([len(each.split()) for each in found.captions])
        cut = [" ".join(caption.split()[:2]) for caption in found.captions]
        distinct, place = np.unique(np.array(cut, object), return_inverse=True)
        self.cut = inputs.texts(distinct.tolist()).values[place]


def cached(folder, inputs, extractor):
    path = folder / "mixer-features.npz"
    if not path.exists():
        np.savez(path, **vars(Features(inputs, extractor)))
    found = Features.__new__(Features)
    with np.load(path) as stored:
        vars(found).update({name: stored[name] for name in stored.files})
    return found


def scorer(bare, storage, features, rows, seed, steps):
    """A model of both towers, trained on these rows of right pairs."""
    images, texts = (
        Stored(values, place[:, None].astype(np.int64))
        for values, place in ((features.images, features.photo[rows]), (features.texts, rows))
    )
    corpus = Corpus(images, texts, features.photo[rows].astype(np.int64), str, 0)
    return learned_filter.train(bare, storage, corpus, np.arange(len(rows)), seed, steps)


def planted(features, rows, rates, seed):
    """Of the pool's rows: the row whose caption each has, and whether it is cut."""
    swapped, cut = rates
    own = noise.draw("alignment", swapped, len(rows), seed).order
    right = features.photo[rows[own]] == features.photo[rows]
    random = np.random.default_rng([seed, 2]).random(len(rows))
    chosen = right & (random < cut / (1 - swapped))
    return rows[own], chosen, right & ~chosen


def columns(models, features, photo, caption, cut):
    """The columns of pairs, and their embeddings by the better model: float32 [pairs, 2, dim]."""
    texts = np.where(cut[:, None], features.cut[caption], features.texts[caption])
    embedded = []
    for model in models:
        sides = ((model.visual, features.images[photo]), (model.text, texts))
        embedded.append(np.stack([embed(model, branch, chunks(values)) for branch, values in sides], axis=1))
    similarity = [np.einsum("nd,nd->n", both[:, 0], both[:, 1]) for both in embedded]
    words = np.where(cut, 2, features.words[caption])
    return np.stack([*similarity, words, features.bytes[photo]], axis=1).astype(np.float64), embedded[0]


def wrong_kept(scores, right):
    kept = np.argsort(-scores, kind="stable")[: round(KEEP * len(scores))]
    return 1 - right[kept].mean()


def one_seed(bare, storage, features, seed):
    """By noise: what each recipe keeps that is wrong, the weights of both mixes, and their comparisons."""
    photos = np.random.default_rng([seed, 0]).permutation(len(features.images))
    third = len(photos) // 3
    group = np.empty(len(photos), np.int64)  # 0 trains the scorers, 1 is the reference, 2 the pool
    group[photos] = np.repeat([0, 1, 2], (third, REFERENCE, len(photos) - third - REFERENCE))
    of_row = group[features.photo]
    models = [
        scorer(bare, storage, features, np.flatnonzero(of_row == 0), seed + at, steps)
        for at, steps in enumerate((200, 20))
    ]
    clean = np.flatnonzero((of_row == 1) & (features.number == 0))
    rows = np.flatnonzero((of_row == 2) & (features.number < CAPTIONS))
    outside, clean_vectors = columns(models, features, features.photo[clean], clean, np.zeros(len(clean), bool))
    reference = Pairs(outside, clean_vectors, features.photo[clean], np.full(len(clean), OUTSIDE))
    fold = np.random.default_rng([seed, 1]).integers(0, 2, len(photos))
    found = {}
    for name, rates in NOISE.items():
        caption, cut, right = planted(features, rows, rates, seed)
        photo = features.photo[rows]
        values, vectors = columns(models, features, photo, caption, cut)
        pool = Pairs(values, vectors, photo, fold[photo])
        kept = {
            column: min(wrong_kept(sign * values[:, at], right) for sign in (1, -1))
            for at, column in enumerate(COLUMNS)
        }
        kept["all pairs"], weights = 1 - right.mean(), {}
        for method in ("step", "logistic"):
            mixture = learn(pool, reference, method, REFITS)
            kept[f"mix, {method}"] = wrong_kept(mixture.score(values, pool.fold), right)
            weights[method] = mixture.weights.mean(axis=(0, 1))
            if method == "step":
                told = compare(pool, reference, mixture, KEEP)
        kept["the column that the comparison chose"] = kept[COLUMNS[int(np.argmax(told.chosen))]]
        found[name] = kept, weights, told
    return found


def show(found):
    for name in NOISE:
        kept, weights, told = zip(*(each[name] for each in found), strict=True)
        print(f"\n{name}, half of the pool kept\n\n| recipe | wrong pairs among the kept | below the best column in |")
        print("|---|---|---|")
        best = np.min([[each[column] for column in COLUMNS] for each in kept], axis=1)
        for recipe in kept[0]:
            each = np.array([seed[recipe] for seed in kept])
            below = f"{(each < best).sum()} of {len(kept)} seeds"
            print(f"| {recipe} | {each.mean():.1%} ({each.std(ddof=1):.1%}) | {below} |")
        for method in weights[0]:
            mean = np.array([seed[method] for seed in weights]).T
            shown = [
                f"{column} {at.mean():+.2f} ({at.std(ddof=1):.2f})" for column, at in zip(COLUMNS, mean, strict=True)
            ]
            print(f"\nweights, {method}: {', '.join(shown)}")
        gain = np.array([each.gain.mean for each in told])
        better, random = sum(each.better for each in told), np.mean([each.over_random.mean for each in told])
        print(f"\nthe mix by step is called better than the best column in {better} of {len(told)} seeds")
        print(f"loss of that column less that of the mix: {gain.mean():+.4f} ({gain.std(ddof=1):.4f})")
        print(f"loss of a random half less that of the mix: {random:+.4f}")


def main(folder, seeds):
    torch.set_num_threads(1)
    storage = Storage(folder)
    inputs = Inputs(build.build(learned_filter.MODEL, 0), build.identity(learned_filter.MODEL), storage)
    extractor = Extractor(storage, inputs.image_features, "pillow", None, workers=1)
    features = cached(folder, inputs, extractor)
    bare = inputs.model
    for branch in (bare.visual, bare.text):
        branch.trunk = torch.nn.Identity()
    run, found = partial(one_seed, bare, storage, features), []
    for seed in range(seeds):
        found.append(run(seed))
        print(f"seed {seed}: {time.process_time():.0f} s", flush=True)
    show(found)
    print(f"\n{time.process_time():.0f} s of processor time, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(given[0] if given else temporary), int(given[1]) if len(given) > 1 else SEEDS)
