"""The trials of one manifest: every learner on every arm, plain and augmented, for every seed, under one budget."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.manifest import arms
from pipeline.neighbours import hamming
from pipeline.progress import Progress
from pipeline.settings.task import Task
from pipeline.store.storage import Storage
from pipeline.trials import claims
from pipeline.trials.trials import EpochLosses, LearningCurvePoint, Setting, Trial
from training.data.heldout import HeldOut
from training.data.near_duplicates import NEAR
from training.data.pool import Pool
from training.data.versions import Versions
from training.measures.metrics import Predictions, main_metric
from training.studies import memory
from training.studies.fairness import check_arm, check_leaks
from training.studies.helpers import assisted
from training.studies.learner import CELLS, Cell, Learner, Rows
from training.studies.measuring import AnyMeasure, measure_of
from training.studies.trainer import Trainer

Planned = tuple[Learner, Setting]
"""A trial to be trained."""

Train = Callable[[], Trial]
Result = TypeVar("Result")

_COPIES = 4
"""How many times a process may hold the features of a pool: its own, those of an arm, and those with all versions."""


class Trained(NamedTuple):
    """The predictions for the test set by the number of steps, the learning rate that was chosen, and the seconds.

    Of a model there are losses. `memory_mb` is the peak memory.
    """

    predictions: Mapping[int, Predictions]
    seconds: float
    learning_rate: float | None = None
    losses: tuple[EpochLosses, ...] = ()
    memory_mb: int | None = None


@dataclass(frozen=True)
class Experiment:
    """The common inputs of the trials, and the learners."""

    source: str
    choice: arms.Choice
    task: Task
    pool: Pool
    test: HeldOut
    learners: tuple[Learner, ...]
    versions: Versions | None = None

    def run(self, storage: Storage, progress: Progress) -> list[Trial]:
        """The trials, by seed, learner and cell. Stored ones are not trained again.

        On more than one core, other processes help with a long experiment. They leave learners that are models alone.
        """
        planned = [
            (learner, self.setting(learner, arm, augmented, seed))
            for seed in range(self.task.budget.seeds)
            for learner in self.learners
            for arm, augmented in self.cells(learner)
        ]
        heads = [each for each in planned if each[0].model is None]
        help_out = partial(replace(self, learners=()).train_free, storage, heads)
        memory = _COPIES * sum(each.views.nbytes for each in self.pool.features)
        with closing(assisted(planned, help_out, memory, storage, partial(progress, "trials"))) as shared:
            self.train_free(storage, shared)
        return list(self.train(storage, planned, claims.train_once))

    def train_free(self, storage: Storage, planned: Iterable[Planned]) -> None:
        """Train those that are not stored and that no other process trains."""
        for _ in self.train(storage, planned, claims.train_if_free):
            pass

    def train(
        self, storage: Storage, planned: Iterable[Planned], claimed: Callable[[Storage, Setting, Train], Result]
    ) -> Iterator[Result]:
        """What a function of `claims` gives for each, which trains where it has to."""
        draw = lru_cache(maxsize=1)(self.draw)
        for learner, setting in planned:
            if not storage.done(f"{setting.draw}.parquet"):
                self.record(storage, setting, draw(setting.seed))
            yield claimed(storage, setting, partial(self.trial, learner, setting, draw))

    def cells(self, learner: Learner) -> list[Cell]:
        """What a learner is trained on: `CELLS`, the task's augmentations, and, for the first learner, ablations."""
        augmentations = self.task.budget.augmentations if self.versions else ()
        cells = [*CELLS, *(("filtered", how) for how in augmentations)]
        if learner is self.learners[0]:
            ablations = [arms.without(name) for name in self.filters]
            cells += [(arm, False) for each in ablations for arm in (each, arms.control_of(each))]
        return cells

    @property
    def filters(self) -> list[str]:
        """The filters whose omission gives another arm."""
        return [name for name, dropped in self.pool.filters.items() if dropped.alone]

    @property
    def measure(self) -> AnyMeasure:
        """The scores that are computed on the test set."""
        return measure_of(self.task, self.test)

    def setting(self, learner: Learner, arm: str, augmented: bool | str, seed: int) -> Setting:
        """The inputs of the trial of a learner, a cell and a seed."""
        return Setting(
            code=learner.code,
            source=self.source,
            manifest=self.choice.manifest.id,
            recipe=self.choice.recipe.name,
            choice=self.choice.key,
            learner=learner.name,
            head=learner.head,
            arm=arm,
            augmented=bool(augmented),
            augmentation=augmented if isinstance(augmented, str) else "image",
            seed=seed,
            budget=self.task.budget.per_trial,
            encoder=learner.encoder,
            kind=self.task.kind,
            column=self.task.column,
            classes=self.task.classes,
            test=self.test.digest,
        )

    def draw(self, seed: int) -> Rows:
        """The rows of the pool that each arm has. Raises CompareError for an arm that cannot be compared fairly."""
        uids = arms.draw(self.pool.usable, seed, self.filters)
        rows = {arm: pc.index_in(drawn, value_set=self.pool.table["uid"]).to_numpy() for arm, drawn in uids.items()}
        check_leaks(rows, self.shows_test)
        classes = () if self.task.trains_on_captions else tuple(self.task.classes)
        for arm, drawn in rows.items():
            check_arm(arm, seed, self.pool.table["label"].to_numpy()[drawn], classes)
        return rows

    @cached_property
    def shows_test(self) -> npt.NDArray[np.bool_]:
        """Which rows of the pool show a picture of the test set, by the test set itself: [rows].

        This is a check on `Pool.leaked`: it does not read it, and compares hashes in another way.
        """
        table, test = self.pool.table, self.pool.test
        exact = pc.is_in(table["sha256"], value_set=pa.array(test.sha256, pa.string())).to_numpy()
        own, heldout = self.pool.features[0].phash, np.unique(self.pool.heldout[0].phash)
        bits, _ = hamming.nearest_targets(own, heldout, NEAR)
        shows: npt.NDArray[np.bool_] = exact | (bits <= NEAR)[table["picture"].to_numpy()]
        return shows

    def record(self, storage: Storage, setting: Setting, drawn: Rows) -> None:
        """Store which pairs each arm of a seed is trained on, and how many times, for the view `trained_on`."""
        uids = {arm: self.pool.table["uid"].take(rows).combine_chunks() for arm, rows in drawn.items()}
        with storage.scratch() as scratch:
            pq.write_table(arms.count_draws(uids), scratch / "draw", compression="zstd")
            storage.put_file(f"{setting.draw}.parquet", scratch / "draw")

    def trial(self, learner: Learner, setting: Setting, draw: Callable[[int], Rows]) -> Trial:
        """Train and evaluate."""
        drawn = draw(setting.seed)
        memory.reset()
        start = time.perf_counter()
        if learner.model is not None:
            predictions, losses = learner.model.train(self.task, self.pool, setting, drawn)
            seconds = time.perf_counter() - start
            trained = Trained(predictions, seconds, losses=losses, memory_mb=memory.peak_mb())
            return self.summarize(setting, drawn[setting.arm], trained)
        rate, predictions = Trainer(self.task, self.pool, self.test, self.versions).best(learner, setting, drawn)
        trained = Trained(predictions, time.perf_counter() - start, rate, memory_mb=memory.peak_mb())
        return self.summarize(setting, drawn[setting.arm], trained, len(self.task.budget.candidates))

    def summarize(self, setting: Setting, rows: npt.NDArray[np.int64], trained: Trained, tries: int = 1) -> Trial:
        """The trial of a setting that was trained on `rows` of the pool, under so many learning rates."""
        measure, batch, final = self.measure, setting.budget["batch"], max(trained.predictions)
        predictions = trained.predictions[final]
        scores, labels = measure.scores(predictions), self.pool.table["label"].to_numpy()
        return Trial(
            setting=setting,
            pairs=len(rows),
            distinct=len(np.unique(rows)),
            scores={name: scores[name] for name in measure.metrics},
            baseline=measure.baseline(labels)[1][main_metric(measure)],
            per_class=scores.get("per_class", {}),
            curve=[
                LearningCurvePoint(step * batch, measure.scores(each)[main_metric(measure)])
                for step, each in trained.predictions.items()
            ],
            predictions=predictions.tolist(),
            learning_rate=trained.learning_rate,
            images=final * batch * tries,
            seconds=round(trained.seconds, 3),
            losses=trained.losses,
            memory_mb=trained.memory_mb,
        )
