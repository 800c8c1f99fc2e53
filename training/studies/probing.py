"""Linear probes on features of the same pictures, one encoder after another, and networks trained end to end."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from pipeline.images import decoders
from pipeline.manifest.arms import Choice
from pipeline.progress import Progress
from pipeline.settings.encoder import Encoder, Network
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.storage import Storage
from pipeline.trials import claims
from pipeline.trials.trials import Setting, Trial
from training.data import pool
from training.data.features import Extractor
from training.data.heldout import HeldOut
from training.data.pictures import Pictures, split_off
from training.data.pool import Pool
from training.learners import finetune
from training.learners.divergence import located
from training.measures.intervals import Bootstrap, Mean
from training.studies.experiment import Experiment, Trained
from training.studies.fairness import check_test
from training.studies.learner import Learner
from training.studies.measurement import task_of

ARM = "filtered"
"""The arm of the probes: the pairs that the manifest keeps."""


class Probing:
    """The probes of one source and manifest. `pool` is that of the last encoder."""

    def __init__(
        self, source: Source, storage: Storage, choice: Choice, test: HeldOut | None, progress: Progress
    ) -> None:
        self._source, self._storage, self._choice, self._progress = source.name, storage, choice, progress
        self._task, self._test, self.decoder = task_of(source), test, source.decoder
        self.pool: Pool | None = None

    def experiment(self, encoder: Encoder, workers: int) -> Experiment:
        """A linear probe on the encoder's features, for which so many workers decode pictures."""
        extractor = Extractor(self._storage, encoder, self.decoder, None, workers)
        known = self.pool = pool.read(self._choice, self._task, [extractor], self._test, self._progress)
        check_test(known.test, self._task)
        learner = Learner(encoder.name, "linear", extractor.identity, known.features[0], known.heldout[0])
        return Experiment(self._source, self._choice, self._task, known, known.test, (learner,))

    def trials(self, experiment: Experiment) -> list[Trial]:
        """One a seed, on what the manifest keeps."""
        (learner,) = experiment.learners
        draw, trials = lru_cache(maxsize=1)(experiment.draw), []
        for seed in range(self._task.budget.seeds):
            setting = experiment.setting(learner, ARM, False, seed)
            trials.append(claims.train_once(self._storage, setting, partial(experiment.trial, learner, setting, draw)))
        return trials

    def finetuned(self, experiment: Experiment, encoder: Network) -> list[Trial]:
        """One for each of the first `finetune.SEEDS` seeds, on the same pairs as the probe."""
        trials = []
        for seed in range(finetune.SEEDS):
            self._progress("finetuning", seed, finetune.SEEDS)
            setting = replace(
                experiment.setting(experiment.learners[0], ARM, False, seed),
                code=finetune.VERSION,
                head="finetuned",
                budget=finetune.BUDGET,
            )
            train = partial(self._finetune, experiment, encoder, setting)
            trials.append(claims.train_once(self._storage, setting, train))
        self._progress("finetuning", finetune.SEEDS, finetune.SEEDS)
        return trials

    def _finetune(self, experiment: Experiment, encoder: Network, setting: Setting) -> Trial:
        rows, started = experiment.draw(setting.seed)[setting.arm], time.perf_counter()
        tars = tarfiles.Tars(self._storage, self._choice.manifest.stages.shards)
        heldout = experiment.test.pictures if self._test else partial(split_off, self._choice, tars, experiment.test)
        pictures = Pictures(tars, heldout, decoders.from_pixels(self.decoder))
        pairs = experiment.pool.table.take(rows)
        with located(setting.description):
            predicted = finetune.train(encoder, pictures, pairs, len(self._task.classes), setting.seed)
        trained = Trained({setting.budget["steps"]: predicted}, time.perf_counter() - started)
        return experiment.summarize(setting, rows, trained)

    def mean(self, experiment: Experiment, trials: Sequence[Trial]) -> Mean:
        """The mean of the main score."""
        bootstrap = Bootstrap(experiment.measure, len(experiment.test.labels), len(trials))
        return bootstrap.mean(np.array([each.predictions for each in trials]))
