"""What a manifest was worth: the same learners on what was kept, on everything, and on as much taken blindly.

The learners are named beforehand, in the source file, and all of them are reported.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.errors import CompareError, SourceError
from pipeline.manifest import arms, recipes
from pipeline.progress import Progress, silent
from pipeline.scorers.clip import ClipSpec
from pipeline.settings.encoder import Encoder, Network
from pipeline.settings.task import MIN_SEEDS, Task
from pipeline.sources.source import Source
from pipeline.store.digests import canonical_json, digest
from pipeline.store.storage import Storage
from pipeline.trials.trials import FORMAT, GAIN, Trial
from training.data import heldout, pool, versions
from training.data.features import Extractor
from training.data.heldout import HeldOut
from training.data.texts import Texts, prompts
from training.learners import dual_encoder, probe
from training.measures import intervals
from training.measures.intervals import Bootstrap
from training.measures.metrics import Measure
from training.studies.experiment import CELLS, Experiment, Learner, measured
from training.studies.summary import filter_comparisons, learner_comparisons, trials_of


def measure(
    source: Source,
    storage: Storage,
    manifest_id: str | None = None,
    progress: Progress = silent,
    recipe: str | None = None,
) -> dict[str, Any]:
    """The gain of the newest manifest, or of the one whose id begins with `manifest_id`, as JSON.

    What counts as kept is what was published, or what a named `recipe` keeps of the same pairs. Safe to run twice: a
    second time nothing is trained, and after a crash it goes on at the trial. Raises SourceError where the source has
    no task or test set, and CompareError for a comparison that would not be fair.
    """
    task, chosen = asked(source), recipes.find(source, storage, recipe) if recipe else None
    choice = arms.Choice.open(storage, manifest_id, chosen)
    test = HeldOut.read(task.test, task) if task.test else None
    if test:
        check_test(test, task)
    extractors = _extractors(source, storage)
    maker = versions.Maker(storage, task.budget, _clip(source)) if task.budget.augmentations else None
    key = f"gains/{_digest(choice, task, test, extractors, maker)}.json"
    if not storage.done(key):
        known = pool.read(choice, task, extractors, test, progress)
        check_test(known.test, task)
        more = versions.read(choice, known, task, extractors, maker, progress) if maker else None
        learners = _learners(choice, task, extractors, known, more)
        trials = Experiment(source.name, choice, task, known, known.test, learners, more).run(storage, progress)
        made = summary(trials, measured(task, known.test), known) | {"published": choice.published}
        made["versions"] = {**more.counts, "says": versions.told(more.counts)} if more else None
        storage.put_if_absent(key, canonical_json(made))
    found: dict[str, Any] = json.loads(storage.fetch(key).read_bytes())
    return found


def summary(trials: Sequence[Trial], measure: Measure, known: pool.Pool) -> dict[str, Any]:
    """By learner, rows by cell and differences with intervals; by filter, what it adds for the first learner.

    Raises CompareError for what must not be compared.
    """
    by_name: dict[str, list[Trial]] = {}
    for each in trials:
        by_name.setdefault(each.setting.learner, []).append(each)
    for name, found in by_name.items():
        check_comparable(name, found)
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
            "says": test.says,
            "pictures": len(test.labels),
            "captions": len(test.pairs.text) if test.pairs else 0,
            "ambiguous": test.ambiguous,
            "unlabelled": test.unlabelled,
            "digest": first.test,
        },
        "leak_rule": heldout.LEAK_RULE,
        "interval": f"{intervals.LEVEL:.0%}, {intervals.SAYS}",
        "learners": [learner_comparisons(found, bootstrap, first.recipe) for found in by_name.values()],
        "filters": filter_comparisons(by_name[first.learner], bootstrap, known.filters),
        "seconds": {name: round(sum(each.seconds for each in found), 1) for name, found in by_name.items()},
        "baseline": baseline(known, measure),
        "counts": dict(known.counts),
    }


def check_comparable(name: str, trials: Sequence[Trial]) -> None:
    """Raises CompareError unless all cells have the same seeds, MIN_SEEDS or more, and all else but the cell is equal.

    `name` is that of the learner whose trials they are.
    """
    for factor in ("budget", "encoder", "kind", "column", "classes", "test", "choice", "head", "code"):
        if len({canonical_json(getattr(each.setting, factor)) for each in trials}) > 1:
            raise CompareError(
                f"the trials of {name!r} differ in their {factor}: only arm, augmentation and seed may differ"
            )
    there = dict.fromkeys([*CELLS, *(each.setting.cell for each in trials)])
    seeds = {cell: [each.setting.seed for each in trials_of(cell, trials)] for cell in there}
    if len({tuple(found) for found in seeds.values()}) > 1:
        raise CompareError(f"the trials are not paired: {seeds}")
    if len(set(seeds[CELLS[0]])) < MIN_SEEDS:
        raise CompareError(f"a comparison needs at least {MIN_SEEDS} seeds: raise task.budget.seeds")


def check_test(test: HeldOut, task: Task) -> None:
    """Raises CompareError if some class has no held-out picture, or no caption could be wrong."""
    if test.pairs is not None and len(test.pairs.texts) < 2:
        raise CompareError(f"the {test.says} say the same: there is nothing to tell apart")
    if task.kind == "match" and test.pairs is not None and len(np.unique(test.pairs.match)) < 2:
        raise CompareError("of the held-out pairs all match, or none: task.test.column must tell both")
    for number, name in enumerate(task.classes):
        if number not in test.labels:
            raise CompareError(
                f"no held-out picture shows the class {name!r}: take it out of task.classes, or lower task.test.agree"
            )


def asked(source: Source) -> Task:
    """What a source wants to be measured on. Raises SourceError if it does not say."""
    if source.task is None:
        raise SourceError(f"{source.name}: there is no [task] to measure the gain on")
    if source.task.test is None and source.task.split is None:
        raise SourceError(f"{source.name}: [task.test] is missing: a gain needs held-out pictures (or [task.split])")
    if "guarded" in source.task.budget.augmentations and not _clip(source):
        raise SourceError(f"{source.name}: task.budget.augmentations: a guard needs a scorer of kind clip")
    return source.task


def _extractors(source: Source, storage: Storage) -> list[Extractor]:
    """One for each encoder: learners that share an encoder share its features."""
    task, encoders = asked(source), list[Encoder]()
    for learner in task.learners.values():
        if learner.encoder not in encoders:
            encoders.append(learner.encoder)
    return [Extractor(storage, encoder, source.decoder, task.budget) for encoder in encoders]


def _learners(
    choice: arms.Choice,
    task: Task,
    extractors: Sequence[Extractor],
    known: pool.Pool,
    more: versions.Versions | None,
) -> tuple[Learner, ...]:
    encoders = [extractor.encoder for extractor in extractors]
    made = []
    for name, each in task.learners.items():
        at, texts = encoders.index(each.encoder), None
        asked = [[text] for text in known.test.pairs.texts] if known.test.pairs else prompts(task.classes)
        if each.head == "dual" and isinstance(each.encoder, Network):
            captions = versions.captions(choice, known.table["uid"])["caption"].to_pylist()
            texts = Texts.read(each.encoder, captions, asked, more)
        made.append(Learner(name, each.head, extractors[at].identity, known.features[at], known.heldout[at], at, texts))
    return tuple(made)


def _clip(source: Source) -> ClipSpec | None:
    """The CLIP at hand: the first of the source's scorers that is one."""
    return next((spec for spec in source.scorers.values() if isinstance(spec, ClipSpec)), None)


def _digest(
    choice: arms.Choice,
    task: Task,
    test: HeldOut | None,
    extractors: Sequence[Extractor],
    maker: versions.Maker | None,
) -> str:
    classes = [[name, list(words)] for name, words in task.classes.items()]
    encoders = [extractor.encoder for extractor in extractors]
    learners = [
        [name, each.head, extractors[encoders.index(each.encoder)].identity] for name, each in task.learners.items()
    ]
    held = test.digest if test else task.split.model_dump() if task.split else None
    parts = [GAIN, FORMAT, probe.VERSION, dual_encoder.VERSION, choice.key, task.kind, task.column, classes]
    parts += [maker.made_by] if maker else []
    return digest([*parts, task.budget.model_dump(), learners, held])[:32]


def baseline(known: pool.Pool, measure: Measure) -> dict[str, Any]:
    """What a learner that looks at no picture would score, and what that is called."""
    says, scores = measure.baseline(known.table["label"].to_numpy())
    return {"says": says, **scores}
