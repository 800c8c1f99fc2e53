"""What each recipe keeps and what that is worth, on pools whose faults are known:
PYTHONPATH=.:tests [WINNOW_DATA=...] python tests/benchmarks/recipe_zoo.py [SEEDS] [FOLDER, for the pools]

Pools: the demo's, with more scorers, and with WINNOW_DATA photographs of Flickr8k with planted faults
(zoo_photographs.py). Every recipe is compared at one size, SHARE of the downloaded pairs: of a recipe that keeps more,
each seed draws that many at random; one that keeps fewer is marked. A recipe that repeats pairs is drawn with its
repetitions.

Printed, of each recipe: how many pairs it keeps itself, which share of what is kept has each fault, and macro-F1 of the
task's learners, each seed on another resample of the pool, all recipes on the same one. The difference to a random
subset of the same size has a 95 % interval over seeds and test pictures. Learners and recipes were named beforehand.
"""

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import zoo_demo
import zoo_photographs

from filters import catalog
from pipeline.errors import RecipeError
from pipeline.manifest.arms import Choice
from pipeline.models import device
from pipeline.progress import silent
from training.data import pool
from training.data.heldout import HeldOut
from training.measures import intervals
from training.studies import roster
from training.studies.experiment import Experiment
from training.studies.measurement import task_of
from training.studies.trainer import Trainer

SHARE = 0.3
SEEDS = 10
LEAST = 50
"""Pairs with a label. Of a recipe that keeps fewer nothing is learned."""
OWN = "everything"
"""The recipe that keeps every pair: cut to the common size it is a random subset, the baseline of the others."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What a recipe keeps: `copies` of each row of `rows`, int64 [downloaded pairs]."""

    name: str
    copies: np.ndarray

    @property
    def size(self):
        return int(self.copies.sum())

    def cut(self, size, seed):
        """The copies of a random subset of `size` of what is kept; all of it if it is smaller."""
        if self.size <= size:
            return self.copies
        rows = np.repeat(np.arange(len(self.copies)), self.copies)
        drawn = np.random.default_rng([seed, *self.name.encode()]).choice(rows, size, replace=False)
        return np.bincount(drawn, minlength=len(self.copies))


def kept_by(manifest, recipe, uids):
    chosen = manifest.select(recipe)
    copies = np.zeros(len(uids), np.int64)
    rows = pc.index_in(chosen["uid"].combine_chunks(), value_set=uids).to_numpy()
    copies[rows] = chosen["copies"].to_numpy() if "copies" in chosen.column_names else 1
    return Kept(recipe.name, copies)


def measure(found, seeds):
    """`found`: a pool of zoo_demo or zoo_photographs, curated."""
    source, storage = found.source, found.storage
    choice, task = Choice.open(storage), task_of(source)
    rows = choice.manifest.select(catalog.recipes()[OWN])["uid"].combine_chunks()
    fault = np.array(found.faults(rows))
    size = round(SHARE * len(rows))
    recipes, left_out = [], []
    for recipe in [*catalog.recipes().values(), *found.recipes]:
        try:
            recipes.append(kept_by(choice.manifest, recipe, rows))
        except RecipeError as error:
            left_out.append((recipe.name, str(error)))
    loaded = roster.plan(source, storage).load(source, storage)
    known = pool.read(choice, task, loaded.extractors, HeldOut.read(task.test, task), silent)
    learners = loaded.learners(choice, known, None)
    experiment = Experiment(source.name, choice, task, known, known.test, learners)
    usable = np.flatnonzero(~known.leaked)
    place = pc.index_in(known.table["uid"].combine_chunks(), value_set=rows).to_numpy()
    trainer = Trainer(task, known, known.test, None)
    labelled = place[usable]
    few = [each for each in recipes if each.copies[labelled].sum() < LEAST]
    left_out += [(each.name, f"it keeps {each.size:,} pairs") for each in few]
    recipes = [each for each in recipes if each not in few]
    predictions = {(each.name, learner.name): [] for each in recipes for learner in learners}
    for seed in range(seeds):
        sample = np.sort(np.random.default_rng([seed, len(usable)]).choice(usable, len(usable)))
        for each in recipes:
            drawn = np.repeat(sample, each.cut(size, seed)[place[sample]])
            for learner in learners:
                setting = experiment.setting(learner, "filtered", False, seed)
                _, by_steps = trainer.best(learner, setting, {"raw": sample, "filtered": drawn})
                predictions[each.name, learner.name].append(by_steps[max(by_steps)])
        print(f"{found.name}: seed {seed}, {time.process_time():.0f} s", file=sys.stderr, flush=True)
    show(found, experiment, recipes, left_out, fault, size, predictions, seeds)


def show(found, experiment, recipes, left_out, fault, size, predictions, seeds):
    kinds = [kind for kind in np.unique(fault).tolist() if kind != found.good]
    learners = [each.name for each in experiment.learners]
    test = experiment.test
    bootstrap = intervals.Bootstrap(experiment.measure, len(test.labels), seeds)
    print(f"\n## {found.name}: {len(fault):,} downloaded pairs, {size:,} kept, {len(test.labels)} test pictures\n")
    heads = ["recipe", "keeps", *(kind.replace("_", " ") for kind in kinds), "all faults"]
    heads += [f"{name}, less random" for name in learners]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    lines = []
    for each in recipes:
        cuts = np.mean([each.cut(size, seed) for seed in range(seeds)], axis=0)
        shares = [cuts[fault == kind].sum() / cuts.sum() for kind in kinds]
        cells, first = [], 0.0
        for name in learners:
            own, blind = (bootstrap.mean(np.stack(predictions[key, name])) for key in (each.name, OWN))
            score = np.mean([experiment.measure.scores(one)["f1_macro"] for one in predictions[each.name, name]])
            if each.name == OWN:
                cells.append(f"{score:.3f}")
            else:
                gain = intervals.difference(own, blind)
                cells.append(f"{score:.3f}, {gain.difference:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]")
            first = first or score
        small = "" if each.size >= size else " (fewer)"
        row = [each.name, f"{each.size:,}{small}", *(f"{share:.1%}" for share in shares), f"{sum(shares):.1%}", *cells]
        lines.append((first, "| " + " | ".join(row) + " |"))
    print("\n".join(line for _, line in sorted(lines, reverse=True)))
    print("\nNot measured here: " + "; ".join(f"{name}: {why}" for name, why in left_out) + "\n", flush=True)


def main(seeds, folder):
    with zoo_demo.curated(folder / "demo") as found:
        measure(found, seeds)
    if zoo_photographs.there():
        with zoo_photographs.curated(folder / "photographs") as found:
            measure(found, seeds)
    print(f"{time.process_time():.0f} s of processor time")


if __name__ == "__main__":
    with device.one_thread(), tempfile.TemporaryDirectory() as scratch:
        main(int((sys.argv[1:] or [str(SEEDS)])[0]), Path((sys.argv[2:] or [scratch])[0]))
