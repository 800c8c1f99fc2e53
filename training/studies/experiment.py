"""The trials of one manifest: every learner on every arm, plain and augmented, for every seed, under one budget."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import CompareError
from pipeline.manifest import arms
from pipeline.neighbours import hamming
from pipeline.progress import Progress
from pipeline.settings.task import Budget, Task
from pipeline.store.storage import Storage
from pipeline.trials import claims
from pipeline.trials.trials import Look, Setting, Trial
from training.data import heldout
from training.data.features import Features
from training.data.heldout import HeldOut
from training.data.pairs import Pairs
from training.data.pool import Pool
from training.data.texts import Texts
from training.data.versions import Versions
from training.learners import dual_encoder, probe
from training.learners.dual_encoder import Embed
from training.learners.objectives import Objective
from training.measures import matching
from training.measures.matching import Match, Retrieval
from training.measures.metrics import Predicted, Regression, Single, Units, main

Cell = tuple[str, bool | str]
"""An arm, and what is augmented: False for nothing, True for pictures alone, or one of versions.HOW."""

CELLS: tuple[Cell, ...] = tuple((arm, augmented) for arm in arms.ARMS for augmented in (False, True))
"""What is trained for each learner and seed: an arm, and whether its pictures are augmented.

The first learner is also trained without each filter, on plain pictures, where this gives another arm than "filtered",
and on as many pairs taken blindly.
"""

Measured = Single | Regression | Retrieval | Match

MOST, LEAST = 2000, 20
"""Pairs that a learner is tried on before it is tested: as many at most, and at least."""

Rows = Mapping[str, npt.NDArray[np.int64]]
"""The rows of the pool that each arm has, with repetitions."""


@dataclass(frozen=True)
class Learner:
    """A head on the features of an encoder, the one `at` that place: of the pool's pictures, and of the test set's.

    One that reads captions has `texts`.
    """

    name: str
    head: str
    encoder: Mapping[str, object]
    training: Features
    heldout: Features
    at: int = 0
    texts: Texts | None = None


class Exam(NamedTuple):
    """What learners are asked: of `pictures`, [pictures, 1, dim], by those that read captions beside texts `asked`."""

    measure: Measured
    pictures: npt.NDArray[np.float16]
    asked: Units | None


@dataclass(frozen=True)
class Experiment:
    """All that the trials share, and the learners."""

    source: str
    choice: arms.Choice
    task: Task
    pool: Pool
    test: HeldOut
    learners: tuple[Learner, ...]
    versions: Versions | None = None

    def run(self, storage: Storage, progress: Progress) -> list[Trial]:
        """The trials, by seed, learner and cell. Those that are there are not trained again."""
        planned = [
            (learner, self.setting(learner, arm, augmented, seed))
            for seed in range(self.task.budget.seeds)
            for learner in self.learners
            for arm, augmented in (*CELLS, *self.further, *(self.without if learner is self.learners[0] else ()))
        ]
        draw = lru_cache(maxsize=1)(self.drawn)
        found = []
        for done, (learner, setting) in enumerate(planned):
            progress("trials", done, len(planned))
            if not storage.done(f"{setting.draw}.parquet"):
                self.record(storage, setting, draw(setting.seed))
            train = partial(self.trial, learner, setting, draw)
            found.append(claims.once(storage, setting, train))
        progress("trials", len(planned), len(planned))
        return found

    @property
    def filters(self) -> list[str]:
        """Those without which another arm would be trained on."""
        return [name for name, dropped in self.pool.filters.items() if dropped.alone]

    @property
    def without(self) -> list[Cell]:
        """The cells that leave out a filter, each with the blind one of its size."""
        left_out = [arms.without(name) for name in self.filters]
        return [(arm, False) for each in left_out for arm in (each, arms.as_many(each))]

    @property
    def further(self) -> list[Cell]:
        """The filtered pairs, augmented otherwise than pictures alone."""
        return [("filtered", how) for how in self.task.budget.augmentations] if self.versions else []

    @property
    def measure(self) -> Measured:
        """What is scored on the test set."""
        return measured(self.task, self.test)

    def setting(self, learner: Learner, arm: str, augmented: bool | str, seed: int) -> Setting:
        """What decides the trial of a learner, a cell and a seed."""
        return Setting(
            code=dual_encoder.VERSION if learner.texts else probe.VERSION,
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

    def drawn(self, seed: int) -> Rows:
        """The rows of the pool that each arm has. Raises CompareError for an arm that cannot be compared fairly."""
        uids = arms.draw(self.pool.usable, seed, self.filters)
        rows = {arm: pc.index_in(drawn, value_set=self.pool.table["uid"]).to_numpy() for arm, drawn in uids.items()}
        check_leaks(rows, self.tested)
        for arm, drawn in rows.items():
            named = [] if self.task.trains_on_captions else list(self.task.classes)
            check_arm(arm, seed, self.pool.table["label"].to_numpy()[drawn], named)
        return rows

    @cached_property
    def tested(self) -> npt.NDArray[np.bool_]:
        """Which rows of the pool show a picture of the test set, by what that has itself.

        It does not look at `Pool.leaked`, and finds hashes in another way: it is there to notice that one being wrong.
        """
        table, test = self.pool.table, self.pool.test
        exact = pc.is_in(table["sha256"], value_set=pa.array(test.sha256, pa.string())).to_numpy()
        own, held = self.pool.features[0].phash, np.unique(self.pool.heldout[0].phash)
        bits, _ = hamming.nearest_targets(own, held, heldout.NEAR)
        found: npt.NDArray[np.bool_] = exact | (bits <= heldout.NEAR)[table["picture"].to_numpy()]
        return found

    def record(self, storage: Storage, setting: Setting, drawn: Rows) -> None:
        """Store which pairs each arm of a seed is trained on, and how many times, for the view `trained_on`."""
        uids = {arm: self.pool.table["uid"].take(rows).combine_chunks() for arm, rows in drawn.items()}
        with storage.scratch() as scratch:
            pq.write_table(arms.counted(uids), scratch / "draw", compression="zstd")
            storage.put_file(f"{setting.draw}.parquet", scratch / "draw")

    def trial(self, learner: Learner, setting: Setting, draw: Callable[[int], Rows]) -> Trial:
        """Train and evaluate."""
        drawn = draw(setting.seed)
        start = time.perf_counter()
        rate, said = self.said(learner, setting, drawn)
        spent = time.perf_counter() - start
        return self.told(setting, drawn[setting.arm], said, spent, len(self.task.budget.candidates), rate)

    def views(self, learner: Learner, how: bool | str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """What a learner sees of rows of the pool, the plain picture first: [rows, versions, dim]."""
        views: npt.NDArray[np.float16] = learner.training.views[self.pool.table["picture"].to_numpy()[rows]]
        if how is True:
            return views
        plain: npt.NDArray[np.float16] = views[:, :1]
        if self.versions is None or how in (False, "text"):  # of captions alone there is but one picture
            return plain
        return self.versions.chosen(str(how), rows, plain, self.versions.views[learner.at])

    def said(self, learner: Learner, setting: Setting, drawn: Rows) -> tuple[float, Mapping[int, Predicted]]:
        """What a learner that is trained on an arm of what was drawn says of the test set, by the steps done.

        Of several learning rates that which is best on the dev set, and what was said under it.
        """
        exams, budgets = [self.exam(learner)], self.task.budget.candidates
        if len(budgets) > 1 or self.task.kind == "match":
            exams.append(self.dev(learner, drawn["raw"], setting.seed))
        found = {each.learning_rate: self.trained(learner, setting, drawn, exams, each) for each in budgets}

        def score(rate: float) -> float:
            _, *dev = found[rate][max(found[rate])]
            return tried(exams[-1].measure, dev[0]) if dev else 0.0

        best = max(found, key=score)
        return best, {steps: said[0] for steps, said in found[best].items()}

    def trained(
        self, learner: Learner, setting: Setting, drawn: Rows, exams: Sequence[Exam], budget: Budget
    ) -> Mapping[int, list[Predicted]]:
        """What is said in each exam, by the steps done; the last one is what a threshold is found on, where needed."""
        (_, how), rows = setting.cell, drawn[setting.arm]
        views = self.views(learner, how, rows)
        if learner.texts is None:
            objective = Objective(self.pool.table["label"].to_numpy()[rows], len(self.task.classes))
            asked = np.concatenate([each.pictures for each in exams])
            said = probe.train(learner.head, views, objective, asked, budget, setting.seed)
            ends = np.cumsum([len(each.pictures) for each in exams])[:-1]
            return {steps: np.split(predicted, ends) for steps, predicted in said.items()}

        def answer(embed: Embed) -> list[Predicted]:
            return matching.less_threshold([_compared(each, embed) for each in exams], exams[-1].measure)

        texts = learner.texts.seen(how, rows, self.versions)
        return dual_encoder.train(views, texts, answer, budget, setting.seed)

    def exam(self, learner: Learner) -> Exam:
        """The test set."""
        asked = learner.texts.heldout.astype(np.float32) if learner.texts else None
        return Exam(self.measure, learner.heldout.views[:, :1], asked)

    def dev(self, learner: Learner, drawn: npt.NDArray[np.int64], seed: int) -> Exam:
        """The same of undrawn pairs, by the rows of "raw": as noisy as the pool, and the same for all arms."""
        rows, asked = self.undrawn(drawn, seed), learner.texts.heldout if learner.texts else None
        picture, labels = (self.pool.table[name].to_numpy()[rows] for name in ("picture", "label"))
        pairs = None
        if self.task.evaluates_pairs and learner.texts:
            asked, text = np.unique(learner.texts.plain[rows], axis=0, return_inverse=True)
            picture, place = np.unique(picture, return_inverse=True)
            pairs = Pairs((), place, text.reshape(-1), np.ones(len(rows), bool))
            pairs = pairs.halved(seed) if self.task.kind == "match" else pairs
            labels = np.zeros(len(picture), np.int16)
        measure = measured(self.task, HeldOut((), labels, 0, 0, pairs=pairs))
        return Exam(measure, learner.training.views[picture, :1], None if asked is None else asked.astype(np.float32))

    def undrawn(self, drawn: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
        """Some rows of the pool whose pictures no arm of a seed trains on, by the rows of "raw".

        Raises CompareError if they are too few.
        """
        table = self.pool.table
        seen = pc.is_in(table["sha256"], value_set=table["sha256"].take(drawn).combine_chunks()).to_numpy()
        rows = np.flatnonzero(~(self.pool.leaked | seen))
        if self.task.kind == "zero-shot":  # those whose captions name a class
            rows = rows[table["label"].to_numpy()[rows] >= 0]
        if len(rows) < LEAST:
            raise CompareError(
                f"only {len(rows)} pairs were not drawn in seed {seed}: too few to choose a threshold or a learning "
                f"rate on ({LEAST}); the source needs more pairs"
            )
        return np.sort(np.random.default_rng([seed, len(rows)]).permutation(rows)[:MOST])

    def told(
        self,
        setting: Setting,
        rows: npt.NDArray[np.int64],
        said: Mapping[int, Predicted],
        seconds: float,
        tries: int = 1,
        rate: float | None = None,
    ) -> Trial:
        """What came of a setting that was trained on `rows` of the pool; `said` of the test set, by the steps done."""
        measure, batch, final = self.measure, setting.budget["batch"], max(said)
        scores, labels = measure.scores(said[final]), self.pool.table["label"].to_numpy()
        return Trial(
            setting=setting,
            pairs=len(rows),
            distinct=len(np.unique(rows)),
            scores={name: scores[name] for name in measure.metrics},
            baseline=measure.baseline(labels)[1][main(measure)],
            per_class=scores.get("per_class", {}),
            curve=[Look(step * batch, measure.scores(each)[main(measure)]) for step, each in said.items()],
            predictions=said[final].tolist(),
            learning_rate=rate,
            images=final * batch * tries,
            seconds=round(seconds, 3),
        )


def tried(measure: Measured, predicted: Predicted) -> float:
    """What learning rates are compared by on a dev set: the score that is compared, and of match ROC AUC.

    Wrong captions shrink that alike for all, but by F1 always match would win where many are wrong.
    """
    return float(measure.scores(predicted)["auc" if isinstance(measure, Match) else main(measure)])


def _compared(exam: Exam, embed: Embed) -> Predicted:
    """What a learner of captions says by its cosines."""
    assert not isinstance(exam.measure, Regression)  # the source file would not have been read
    assert exam.asked is not None
    return exam.measure.said(embed(exam.pictures[:, 0]), exam.asked)


def measured(task: Task, test: HeldOut) -> Measured:
    """What is scored on a test set, by the kind of task."""
    if test.pairs is not None:
        return (Match if task.kind == "match" else Retrieval)(test.pairs, len(test.labels))
    return Regression(test.labels) if task.kind == "number" else Single(test.labels, list(task.classes))


def check_arm(arm: str, seed: int, drawn: npt.NDArray[np.int16], classes: list[str]) -> None:
    """Raises CompareError if the arm is empty, or has no pair of some class."""
    if not len(drawn):
        raise CompareError(
            f"the arm {arm!r} is empty: the manifest keeps no pair that can be trained on; loosen its filters"
        )
    for number, name in enumerate(classes):
        if number not in drawn:
            raise CompareError(
                f"the arm {arm!r} has no pair of the class {name!r} in seed {seed}: "
                "take the class out of task.classes, or give it more pairs"
            )


def check_leaks(drawn: Rows, tested: npt.NDArray[np.bool_]) -> None:
    """Raises CompareError if an arm has a row that shows a picture of the test set: see `Experiment.tested`."""
    for arm, rows in drawn.items():
        if tested[rows].any():
            raise CompareError(f"the arm {arm!r} trains on a picture of the test set; report this")
