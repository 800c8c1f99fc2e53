"""Whether the random control is fair: a filter that looks at nothing must come out at zero against it.

    python tests/benchmarks/control.py [POOLS]

Each pool is drawn anew: Gaussian features of 6 classes, a fifth of the labels wrong. A blind filter keeps a random
share of its rows, the same rows for all seeds. Arms, learner and intervals are winnow's own. Printed, by setting: the
mean difference of macro-F1 between the kept rows and the control, which should be 0 within a few standard errors, and
how often the 95 % interval holds 0.
"""

import sys

import numpy as np
import pyarrow as pa
import torch

from pipeline.manifest import arms
from pipeline.settings.task import Budget
from training.learners import probe
from training.learners.targets import Objective
from training.measures import intervals, metrics

CLASSES, DIM, ROWS, PICTURES, SEEDS, WRONG = 6, 16, 600, 300, 10, 0.2
SETTINGS = {"no signal, keeps 50 %": (0.0, 0.5)} | {
    f"signal, keeps {share:.0%}".replace("%", " %"): (0.45, share) for share in (0.3, 0.5, 0.8)
}
BUDGET = Budget(steps=60, batch=64, learning_rate=3e-2)
COMPARED = ("filtered", "random")


def world(generator, signal):
    """Features [rows, 1, dim] and labels of a pool and of its test pictures."""
    centres = np.random.default_rng(1).normal(size=(CLASSES, DIM)) * signal

    def draw(count):
        labels = generator.integers(CLASSES, size=count).astype(np.int16)
        return (centres[labels] + generator.normal(size=(count, DIM))).astype(np.float16)[:, None], labels

    features, labels = draw(ROWS)
    wrong = generator.random(ROWS) < WRONG
    return features, np.where(wrong, generator.integers(CLASSES, size=ROWS), labels).astype(np.int16), *draw(PICTURES)


def interval(number, signal, share):
    """The interval of one pool."""
    generator = np.random.default_rng([7, number, int(signal * 100), int(share * 100)])
    features, labels, pictures, truth = world(generator, signal)
    kept = np.zeros(ROWS, bool)
    kept[generator.permutation(ROWS)[: int(share * ROWS)]] = True
    table = pa.table({"uid": [str(row) for row in range(ROWS)], "kept": kept})
    predicted = {arm: [] for arm in COMPARED}
    for seed in range(SEEDS):
        drawn = arms.draw(table, seed)
        for arm in COMPARED:
            rows = np.array(drawn[arm].to_pylist(), np.int64)
            by_step = probe.train("linear", features[rows], Objective(labels[rows], CLASSES), pictures, BUDGET, seed)
            predicted[arm].append(by_step[max(by_step)])
    measure = metrics.Single(truth, [str(each) for each in range(CLASSES)])
    bootstrap = intervals.Bootstrap(measure, PICTURES, SEEDS, 2000)
    means = {arm: bootstrap.mean(np.stack(each)) for arm, each in predicted.items()}
    return intervals.difference(*(means[arm] for arm in COMPARED))


def main(pools):
    torch.set_num_threads(1)
    for name, (signal, share) in SETTINGS.items():
        found = [interval(number, signal, share) for number in range(pools)]
        values = np.array([each.difference for each in found])
        covers = np.mean([each.low <= 0 <= each.high for each in found])
        width = np.mean([each.high - each.low for each in found]) / 2
        print(
            f"{name:24} mean {values.mean():+.4f} (se {values.std(ddof=1) / pools**0.5:.4f})  "
            f"sd over pools {values.std(ddof=1):.4f}  half width {width:.4f}  holds 0: {covers:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
