"""How many planted wrong labels the scorer `label_errors` finds, on photographs of WINNOW_DATA with CLIP vectors.

    WINNOW_DATA=... python tests/benchmarks/label_errors.py [--seeds 10]

A photograph's label is the only class that two or more of its captions name. A share of the labels is changed to
another class, drawn uniformly. Prints, over seeds, the recall and precision of `contradicted`, how often `suggested` is
the true label, and, for comparison, the precision of as many photographs with the lowest zero-shot score of their
label: the cosine with the class's name, less the mean over all classes.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))
import flickr_photographs as flickr

from pipeline.scorers import class_labels, confident
from pipeline.uids import random_bits

FOLDS = 5


def photographs():
    """Names, float16 vectors [n, 512] and true labels of the photographs with a recorded vector and a clear class."""
    table = pa.concat_tables([flickr.captions("train"), flickr.captions("dev")])
    photo, text = flickr.embeddings()
    votes = {}
    named = class_labels.classes_named(table["caption"], flickr.CLASSES)
    for name, each in zip(table["image"].to_pylist(), named, strict=True):
        votes[name] = votes.get(name, 0) + each
    names = sorted(name for name in votes if name in photo)
    label = class_labels.single_class(np.stack([votes[name] >= 2 for name in names]))
    clear = [(name, each) for name, each in zip(names, label.tolist(), strict=True) if each >= 0]
    vectors = np.stack([photo[name] for name, _ in clear]).astype(np.float16)
    return [name for name, _ in clear], vectors, np.array([each for _, each in clear]), text


def trial(names, vectors, true, text, share, seed):
    random = np.random.default_rng([seed, int(1000 * share)])
    wrong = np.zeros(len(true), bool)
    wrong[random.choice(len(true), round(share * len(true)), replace=False)] = True
    classes = len(flickr.CLASSES)
    given = np.where(wrong, (true + random.integers(1, classes, len(true))) % classes, true)
    fold = (random_bits(f"fold {seed}", names) % FOLDS).astype(np.int64)
    used, number = np.unique(given, return_inverse=True)
    tried = confident.held_out_probabilities(vectors, number, fold, len(used))
    found = confident.findings(confident.best(tried, number), number)
    flagged = found.contradicted
    cosines = vectors.astype(np.float32) @ text.T
    lowest = np.argsort(cosines[np.arange(len(given)), given] - cosines.mean(axis=1))[: flagged.sum()]
    caught = flagged & wrong
    return {
        "flagged": flagged.mean(),
        "recall": caught.sum() / max(wrong.sum(), 1),
        "precision": caught.sum() / max(flagged.sum(), 1),
        "suggested right": (used[found.suggested] == true)[caught].mean() if caught.any() else np.nan,
        "zero-shot precision": wrong[lowest].mean() if len(lowest) else np.nan,
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    known = photographs()
    print(f"{len(known[0])} photographs; by class {np.bincount(known[2]).tolist()}")
    for share in (0.0, 0.05, 0.1, 0.2, 0.3, 0.5):
        results = [trial(*known, share, seed) for seed in range(arguments.seeds)]
        means = {name: np.mean([each[name] for each in results]) for name in results[0]}
        spread = np.std([each["recall"] for each in results], ddof=1)
        print(
            f"{share:4.0%} wrong: " + ", ".join(f"{k} {v:.3f}" for k, v in means.items()) + f" (recall sd {spread:.3f})"
        )


if __name__ == "__main__":
    main()
