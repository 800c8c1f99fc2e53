"""The gain of a manifest: the same learners on the kept pairs, on all pairs, and on a random subset of the kept size.

The source file names the learners in advance, and all of them are reported.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.progress import Progress, silent
from pipeline.sources.source import Source
from pipeline.store.digests import canonical_json
from pipeline.store.storage import Storage
from pipeline.trials.trials import GAIN, Trial
from training.data import near_duplicates, pool, versions
from training.measures import intervals, ranking
from training.measures.intervals import Bootstrap
from training.measures.matching import Retrieval
from training.measures.metrics import Measure
from training.studies import answering, learning
from training.studies.fairness import check_comparable
from training.studies.learner import CELLS
from training.studies.measurement import Measurement
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
    measurement = Measurement.open(source, storage, manifest_id, recipe)
    if not storage.done(measurement.key):
        trials, known, learners, augmented = measurement.run(progress)
        made = summary(trials, measure_of(measurement.task, known.test), known)
        made |= {"published": measurement.choice.published, "remarks": list(learning.remarks(learners))}
        counts = {**augmented.counts, "says": versions.summarize(augmented.counts)} if augmented else None
        storage.put_if_absent(measurement.key, canonical_json({**made, "versions": counts}))
    gain: dict[str, Any] = json.loads(storage.fetch(measurement.key).read_bytes())
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
