"""What a gain is measured with: the pairs, the task, the test set, the learners, and all trials of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from pipeline.errors import SourceError
from pipeline.manifest import recipes
from pipeline.manifest.arms import Choice
from pipeline.progress import Progress
from pipeline.scorers.clip import ClipSpec
from pipeline.settings.task import Task
from pipeline.sources.source import Source
from pipeline.store.digests import digest
from pipeline.store.storage import Storage
from pipeline.trials.trials import FORMAT, GAIN, Trial
from training.data import pool, versions
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.data.version_maker import VersionMaker
from training.data.versions import Versions
from training.learners import dual_encoder, probe
from training.measures import wups
from training.studies import roster
from training.studies.experiment import Experiment
from training.studies.fairness import check_scorers, check_targets, check_test
from training.studies.learner import Learner
from training.studies.roster import Roster


class Ran(NamedTuple):
    """All trials, by seed, learner and cell, and what they read: the pool with its test set, and augmented versions."""

    trials: list[Trial]
    known: Pool
    learners: Sequence[Learner]
    versions: Versions | None


@dataclass(frozen=True)
class Measurement:
    """The learners of a source's task on one choice of pairs. Without `test` the test set is split off the pool."""

    source: Source
    storage: Storage
    choice: Choice
    task: Task
    test: HeldOut | None
    planned: Roster
    maker: VersionMaker | None

    @classmethod
    def open(cls, source: Source, storage: Storage, manifest_id: str | None, recipe: str | None) -> Self:
        """Of the newest manifest, or of the one whose id begins so; the kept pairs are the published or a recipe's.

        Raises SourceError if the source has no task or test set.
        """
        task, chosen = task_of(source), recipes.find(source, storage, recipe) if recipe else None
        choice = Choice.open(storage, manifest_id, chosen)
        test = HeldOut.read(task.test, task) if task.test else None
        if test:
            check_test(test, task)
        planned = roster.plan(source, storage)
        maker = VersionMaker(storage, task.budget, _clip(source)) if task.budget.augmentations else None
        return cls(source, storage, choice, task, test, planned, maker)

    @property
    def key(self) -> str:
        """The storage key of the gain: a digest of all that decides it."""
        task = self.task
        classes = [[name, list(words)] for name, words in task.classes.items()]
        parts = [GAIN, FORMAT, probe.VERSION, dual_encoder.VERSION, self.choice.key, task.kind, task.column, classes]
        parts += [self.maker.made_by] if self.maker else []
        parts += [task.budget.model_dump(exclude_none=True), self.planned.identities]
        parts += [wups.version()] if task.kind == "vqa" else []
        if self.test is not None:
            parts.append(self.test.digest)
        else:
            parts.append(task.split.model_dump() if task.split else None)
        return f"gains/{digest(parts)[:32]}.json"

    def run(self, progress: Progress) -> Ran:
        """Train what is not stored. Raises CompareError for a comparison that would not be fair."""
        loaded = self.planned.load(self.source, self.storage)
        known = pool.read(self.choice, self.task, loaded.extractors, self.test, progress)
        check_test(known.test, self.task)
        check_scorers(self.source.scorers, known.test)
        if self.test is None:
            check_targets(self.source.scorers, self.choice.manifest, known)
        augmented = None
        if self.maker:
            augmented = versions.read(self.choice, known, self.task, loaded.extractors, self.maker, progress)
        learners = loaded.learners(self.choice, known, augmented)
        experiment = Experiment(self.source.name, self.choice, self.task, known, known.test, learners, augmented)
        return Ran(experiment.run(self.storage, progress), known, learners, augmented)


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
