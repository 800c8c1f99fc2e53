"""The trials of one manifest: every arm, plain and augmented, for every seed, under one budget."""

import time
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import arms, trials
from pipeline.errors import CompareError
from pipeline.storage import Storage
from pipeline.task import Task
from pipeline.trials import Progress, Setting, Trial
from training import evaluate, probe
from training.features import Features
from training.heldout import HeldOut
from training.pool import Pool

CELLS = tuple((arm, augmented) for arm in arms.ARMS for augmented in (False, True))
"""What is trained for each seed: an arm, and whether its pictures are augmented."""


@dataclass(frozen=True)
class Experiment:
    """All that the trials share."""

    source: str
    manifest: str
    task: Task
    encoder: dict[str, object]
    pool: Pool
    test: HeldOut
    heldout: Features

    def run(self, storage: Storage, progress: Progress) -> list[Trial]:
        """The trials, by seed and cell. Those that are there are not trained again."""
        settings = [
            self.setting(arm, augmented, seed) for seed in range(self.task.budget.seeds) for arm, augmented in CELLS
        ]
        draw = lru_cache(maxsize=1)(self.drawn)
        found = []
        for done, setting in enumerate(settings):
            progress("trials", done, len(settings))
            found.append(trials.once(storage, setting, lambda at=setting: self.trial(at, draw(at.seed))))  # type: ignore[misc]
        progress("trials", len(settings), len(settings))
        return found

    def setting(self, arm: str, augmented: bool, seed: int) -> Setting:
        """What decides the trial of a cell and a seed."""
        return Setting(
            code=probe.VERSION,
            source=self.source,
            manifest=self.manifest,
            learner=probe.LEARNER,
            arm=arm,
            augmented=augmented,
            seed=seed,
            budget=self.task.budget.trial,
            encoder=self.encoder,
            classes=self.task.classes,
            test=self.test.digest,
        )

    def drawn(self, seed: int) -> dict[str, npt.NDArray[np.int64]]:
        """The rows of the pool that each arm has. Raises CompareError for an arm that cannot be compared fairly."""
        uids = arms.draw(self.pool.table, seed, self.pool.leaked)
        check_leaks(uids, self.pool.leaked)
        rows = {arm: pc.index_in(drawn, value_set=self.pool.table["uid"]).to_numpy() for arm, drawn in uids.items()}
        for arm, drawn in rows.items():
            check_arm(arm, seed, self.pool.table["label"].to_numpy()[drawn], list(self.task.classes))
        return rows

    def trial(self, setting: Setting, drawn: dict[str, npt.NDArray[np.int64]]) -> Trial:
        """Train and evaluate."""
        start = time.perf_counter()
        rows = drawn[setting.arm]
        pictures = self.pool.table["picture"].to_numpy()[rows]
        views = self.pool.features.views[pictures]
        predicted = probe.predictions(
            views if setting.augmented else views[:, :1],
            self.pool.table["label"].to_numpy()[rows],
            self.heldout.views,
            len(self.task.classes),
            self.task.budget,
            setting.seed,
        )
        seconds = time.perf_counter() - start
        return Trial(
            setting=setting,
            pairs=len(rows),
            distinct=len(np.unique(rows)),
            predictions=predicted.tolist(),
            seconds=round(seconds, 3),
            **evaluate.scores(self.test.labels, predicted, list(self.task.classes)),
        )


def check_arm(arm: str, seed: int, drawn: npt.NDArray[np.int16], classes: list[str]) -> None:
    """Raises CompareError if the arm is empty, or has no pair of some class."""
    if not len(drawn):
        raise CompareError(f"the arm {arm!r} is empty: the manifest keeps no pair that has a label; loosen its filters")
    for number, name in enumerate(classes):
        if number not in drawn:
            raise CompareError(
                f"the arm {arm!r} has no pair of the class {name!r} in seed {seed}: "
                "take the class out of task.classes, or give it more pairs"
            )


def check_leaks(drawn: dict[str, pa.Array], leaked: pa.Array) -> None:
    """Raises CompareError if a pair is trained on whose picture is in the test set."""
    for arm, uids in drawn.items():
        if pc.any(pc.is_in(uids, value_set=leaked)).as_py():
            raise CompareError(f"the arm {arm!r} trains on a picture of the test set; report this")
