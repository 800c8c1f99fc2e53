"""The gain of a manifest: the same learners on the kept pairs, on all pairs, and on a random subset of the kept size.

The source file names the learners in advance, and all of them are reported.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.errors import SourceError
from pipeline.manifest import arms, recipes
from pipeline.progress import Progress, silent
from pipeline.scorers.clip import ClipSpec
from pipeline.settings.task import Task
from pipeline.sources.source import Source
from pipeline.store.digests import canonical_json, digest
from pipeline.store.storage import Storage
from pipeline.trials.trials import FORMAT, GAIN, Trial
from training.data import near_duplicates, pool, versions
from training.data.heldout import HeldOut
from training.data.version_maker import VersionMaker
from training.learners import dual_encoder, probe
from training.measures import intervals, ranking
from training.measures.intervals import Bootstrap
from training.measures.matching import Retrieval
from training.measures.metrics import Measure
from training.studies import answering, learning, roster
from training.studies.experiment import Experiment
from training.studies.fairness import check_comparable, check_scorers, check_test
from training.studies.learner import CELLS
from training.studies.measuring import measure_of
from training.studies.summary import filter_comparisons, learner_comparisons, trials_of


def measure(
    source: Source,
    storage: Storage,
    manifest_id: str | None = None,
    progress: Progress = silent,
    recipe: str | None = None,
) -> dict[str, Any]:
    """The gain of the newest manifest, or of the one whose id begins with `manifest_id`, as JSON.

    The kept pairs are the published ones, or those that a named `recipe` keeps. Idempotent: a second run trains
    nothing, and after a crash the next run resumes at the missing trial. Raises SourceError if the source has no task
    or test set, and CompareError for a comparison that would not be fair.
    """
    task, chosen = task_of(source), recipes.find(source, storage, recipe) if recipe else None
    choice = arms.Choice.open(storage, manifest_id, chosen)
    test = HeldOut.read(task.test, task) if task.test else None
    if test:
        check_test(test, task)
    planned = roster.plan(source, storage)
    maker = VersionMaker(storage, task.budget, _clip(source)) if task.budget.augmentations else None
    key = f"gains/{_digest(choice, task, test, planned, maker)}.json"
    if not storage.done(key):
        loaded = planned.load(source, storage)
        known = pool.read(choice, task, loaded.extractors, test, progress)
        check_test(known.test, task)
        check_scorers(source.scorers, known.test)
        augmented = versions.read(choice, known, task, loaded.extractors, maker, progress) if maker else None
        learners = loaded.learners(choice, known, augmented)
        trials = Experiment(source.name, choice, task, known, known.test, learners, augmented).run(storage, progress)
        made = summary(trials, measure_of(task, known.test), known) | {"published": choice.published}
        made |= {"remarks": list(learning.remarks(learners))}
        counts = {**augmented.counts, "says": versions.summarize(augmented.counts)} if augmented else None
        storage.put_if_absent(key, canonical_json({**made, "versions": counts}))
    gain: dict[str, Any] = json.loads(storage.fetch(key).read_bytes())
    return gain


def summary(trials: Sequence[Trial], measure: Measure, known: pool.Pool) -> dict[str, Any]:
    """By learner, rows by cell and differences with intervals; by filter, what it adds for the first learner.

    Raises CompareError for what must not be compared.
    """
    by_name: dict[str, list[Trial]] = {}
    for each in trials:
        by_name.setdefault(each.setting.learner, []).append(each)
    for name, own in by_name.items():
        check_comparable(name, own)
    first, test = trials[0].setting, known.test
    seeds = len({each.setting.seed for each in trials})
    bootstrap = Bootstrap(measure, len(test.labels), seeds)
    return {
        "code": GAIN,
        "source": first.source,
        "manifest": first.manifest,
        "recipe": first.recipe,
        "kind": first.kind,
        "metrics": [[name, says] for name, says in measure.metrics.items()],
        "classes": {name: list(words) for name, words in first.classes.items()},
        "budget": {**first.budget, "seeds": seeds},
        "test": {
            "says": test.description,
            "pictures": len(test.labels),
            "captions": len(test.pairs.text) if test.pairs else 0,
            "ambiguous": test.ambiguous,
            "unlabelled": test.unlabelled,
            "digest": first.test,
        },
        "leak_rule": near_duplicates.LEAK_RULE,
        "interval": f"{intervals.LEVEL:.0%}, {intervals.METHOD}",
        "ranks": _ranks(by_name, measure, bootstrap),
        "answering": answering.summarize(by_name, measure),
        "losses": learning.summarize(by_name),
        "learners": [learner_comparisons(own, bootstrap, first.recipe) for own in by_name.values()],
        "filters": filter_comparisons(by_name[first.learner], bootstrap, known.filters),
        "seconds": {name: round(sum(each.seconds for each in own), 1) for name, own in by_name.items()},
        "baseline": baseline(known, measure),
        "counts": dict(known.counts),
    }


def _ranks(by_name: Mapping[str, Sequence[Trial]], measure: Measure, bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Of retrieval, the ranks of each learner on each cell; else empty."""
    if not isinstance(measure, Retrieval):
        return []
    return [
        {
            "learner": name,
            "arm": arm,
            "augmented": augmented,
            "directions": ranking.summarize(measure, np.array([each.predictions for each in own]), bootstrap),
        }
        for name, trials in by_name.items()
        for arm, augmented in CELLS
        if (own := trials_of((arm, augmented), trials))
    ]


def baseline(known: pool.Pool, measure: Measure) -> dict[str, Any]:
    """The scores of a learner that sees no picture, and its description."""
    says, scores = measure.baseline(known.table["label"].to_numpy())
    return {"says": says, **scores}


def task_of(source: Source) -> Task:
    """The task that the gain is measured on. Raises SourceError if it is missing or incomplete."""
    if source.task is None:
        raise SourceError(f"{source.name}: there is no [task] to measure the gain on")
    if source.task.test is None and source.task.split is None:
        raise SourceError(f"{source.name}: [task.test] is missing: a gain needs held-out pictures (or [task.split])")
    roster.check_augmentations(source.task, source.name)
    if "guarded" in source.task.budget.augmentations and not _clip(source):
        raise SourceError(f"{source.name}: task.budget.augmentations: a guard needs a scorer of kind clip")
    return source.task


def _clip(source: Source) -> ClipSpec | None:
    """The first of the source's scorers that is a CLIP."""
    return next((spec for spec in source.scorers.values() if isinstance(spec, ClipSpec)), None)


def _digest(
    choice: arms.Choice,
    task: Task,
    test: HeldOut | None,
    planned: roster.Roster,
    maker: VersionMaker | None,
) -> str:
    """A digest of all inputs of the gain."""
    classes = [[name, list(words)] for name, words in task.classes.items()]
    parts = [GAIN, FORMAT, probe.VERSION, dual_encoder.VERSION, choice.key, task.kind, task.column, classes]
    parts += [maker.made_by] if maker else []
    parts += [task.budget.model_dump(), planned.identities]
    if test is not None:
        parts.append(test.digest)
    else:
        parts.append(task.split.model_dump() if task.split else None)
    return digest(parts)[:32]
