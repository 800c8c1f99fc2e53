"""Training of a head, or of a linear map for captions, on stored features: the best of several learning rates."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pipeline.errors import TrainingError
from pipeline.settings.task import Budget, Task
from pipeline.trials.trials import Setting
from training.data.heldout import HeldOut
from training.data.pool import Pool
from training.data.versions import Versions
from training.learners import dual_encoder, probe
from training.learners.divergence import located
from training.learners.dual_encoder import Embed
from training.learners.targets import Objective
from training.measures import matching
from training.measures.metrics import Predictions
from training.studies.evaluation import EvaluationSet, test_set, validation_set
from training.studies.learner import Learner, Rows
from training.studies.measuring import selection_score


class Trainer(NamedTuple):
    """What the learners of an experiment train and are evaluated on."""

    task: Task
    pool: Pool
    test: HeldOut
    versions: Versions | None

    def best(self, learner: Learner, setting: Setting, drawn: Rows) -> tuple[float, Mapping[int, Predictions]]:
        """The learning rate that is best on the validation set, and the predictions under it for the test set.

        A rate under which training diverges is no candidate. Raises TrainingError if there is no other.
        """
        sets, budgets = [test_set(self.task, self.test, learner)], self.task.budget.candidates
        if len(budgets) > 1 or self.task.kind == "match":
            sets.append(validation_set(self.task, self.pool, learner, drawn["raw"], setting.seed))
        by_rate, diverged = dict[float, Mapping[int, list[Predictions]]](), list[TrainingError]()
        for each in budgets:
            try:
                with located(setting.description, f"lower task.budget.learning_rate ({each.learning_rate:g})"):
                    by_rate[each.learning_rate] = self.train(learner, setting, drawn, sets, each)
            except TrainingError as error:
                diverged.append(error)
        if not by_rate:
            raise diverged[0]

        def score(rate: float) -> float:
            _, *validation = by_rate[rate][max(by_rate[rate])]
            return selection_score(sets[-1].measure, validation[0]) if validation else 0.0

        best = max(by_rate, key=score)
        return best, {steps: predictions[0] for steps, predictions in by_rate[best].items()}

    def train(
        self, learner: Learner, setting: Setting, drawn: Rows, sets: Sequence[EvaluationSet], budget: Budget
    ) -> Mapping[int, list[Predictions]]:
        """Train on the setting's arm; the predictions for each of `sets`, by the number of steps."""
        (_, augmented), rows = setting.cell, drawn[setting.arm]
        views = learner.views(self.pool, rows, augmented, self.versions)
        if learner.texts is None:
            objective = Objective(self.pool.table["label"].to_numpy()[rows], len(self.task.classes))
            heldout = np.concatenate([each.pictures for each in sets])
            found = probe.train(learner.head, views, objective, heldout, budget, setting.seed)
            ends = np.cumsum([len(each.pictures) for each in sets])[:-1]
            return {steps: np.split(predictions, ends) for steps, predictions in found.items()}

        def evaluate(embed: Embed) -> list[Predictions]:
            return matching.subtract_threshold([each.predict(embed) for each in sets], sets[-1].measure)

        texts = learner.texts.seen(augmented, rows, self.versions)
        return dual_encoder.train(views, texts, evaluate, budget, setting.seed)
