"""Scores of answers to questions about held-out pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.ledger.asked import agreed
from training.augment.questions import COLOUR_WORDS
from training.data.answers import Vocabulary
from training.data.questions import Questions
from training.measures.collapse import collapse
from training.measures.metrics import Floats, Predictions

ANNOTATORS = 3
"""An answer that so many other people gave is fully right (Antol et al. 2015, VQA)."""

TYPES: Mapping[str, Callable[[str], bool]] = {
    "yes_no": lambda answer: answer in ("yes", "no"),
    "number": str.isdigit,
    "colour": COLOUR_WORDS.__contains__,
    "other": lambda answer: True,
}
"""By name, whether an answer in lower case is of that type. The first that fits counts."""


@dataclass(frozen=True)
class Answering:
    """Answers to `questions`, whose pictures are numbered up to so many `pictures`, chosen from a `vocabulary`.

    Predictions are numbers of the vocabulary, int64 [questions]. The right answer is the one that most people gave, as
    text: "Yes" is not "yes". A question whose answer is not in the vocabulary counts as wrong. Precision, recall and F1
    are over all answers that are true or predicted; of one that is never predicted the precision is 0, and F1, as
    scikit-learn's `zero_division=0` has it.
    """

    questions: Questions
    vocabulary: Vocabulary
    pictures: int

    @property
    def metrics(self) -> Mapping[str, str]:
        """Accuracy first. Of types of answers those that the test has."""
        types = {name: f"accuracy, {name.replace('_', '/')}" for name in TYPES if (self._types == name).any()}
        return {
            "accuracy": "accuracy",
            "soft_accuracy": "soft accuracy",
            **{f"{what}_weighted": f"weighted {what}" for what in ("precision", "recall", "f1")},
            **{f"{what}_macro": f"macro {what}" for what in ("precision", "recall", "f1")},
            **types,
            "top2_share": "share of the two most given answers",
        }

    def scores(self, predictions: Predictions) -> dict[str, Any]:
        """Each of `metrics`."""
        right = predictions == self.truth
        found = {"accuracy": float(right.mean()), "soft_accuracy": float(self._soft(predictions).mean())}
        for how, weights in (("weighted", self._support(predictions)), ("macro", None)):
            means = np.average(np.stack(self._by_answer(predictions)), axis=1, weights=weights)
            found |= {f"{what}_{how}": float(x) for what, x in zip(("precision", "recall", "f1"), means, strict=True)}
        found |= {name: float(right[own].mean()) for name in TYPES if (own := self._types == name).any()}
        given = np.sort(np.unique(predictions, return_counts=True)[1])[::-1]
        return found | {"top2_share": float(given[:2].sum() / len(predictions))}

    def resampled(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """The accuracy in each resample. A picture counts with all of its questions."""
        right = np.bincount(self.questions.picture, predictions == self.truth, minlength=self.pictures)
        accuracy: Floats = (times @ right) / (times @ np.bincount(self.questions.picture, minlength=self.pictures))
        return accuracy

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """Always the most frequent answer of the pool, whatever is asked."""
        number = int(np.bincount(targets[targets >= 0]).argmax())
        constant = self.scores(np.full_like(self.truth, number))
        return f"always {self.vocabulary.answers[number]!r}", {name: constant[name] for name in self.metrics}

    def alarm(self, predictions: Predictions) -> str | None:
        """A sentence if the model has collapsed to one or two answers; else None."""
        return collapse(predictions, self.truth, self.vocabulary.answers)

    def confusion(self, predictions: Predictions, most: int) -> list[list[int]]:
        """How often the `most_frequent` answers, rows, were answered by each of them, columns; the last: otherwise."""
        rows, chosen = [], self._frequent(most)
        for true in chosen:
            given = predictions[self.truth == true]
            counts = [int((given == each).sum()) for each in chosen]
            rows.append([*counts, len(given) - sum(counts)])
        return rows

    def most_frequent(self, most: int) -> list[str]:
        """The right answers that are the most frequent ones of the test, among those of the vocabulary."""
        return [self.vocabulary.answers[number] for number in self._frequent(most)]

    def _frequent(self, most: int) -> list[int]:
        known = self.truth[self.truth < len(self.vocabulary.answers)]
        numbers, counts = np.unique(known, return_counts=True)
        chosen: list[int] = numbers[(-counts).argsort(kind="stable")[:most]].tolist()
        return chosen

    @cached_property
    def truth(self) -> npt.NDArray[np.int64]:
        """The numbers of the right answers. Those outside of the vocabulary have numbers of their own beyond it."""
        known = self.vocabulary.encode(self.questions.answers)
        others = [agreed(each) or "" for each in self.questions.answers]
        _, number = np.unique(np.array(others, object), return_inverse=True)
        return np.where(known >= 0, known, len(self.vocabulary.answers) + number.reshape(-1))

    @cached_property
    def _types(self) -> npt.NDArray[Any]:
        answers = [(agreed(each) or "").lower() for each in self.questions.answers]
        return np.array([next(name for name, fits in TYPES.items() if fits(each)) for each in answers])

    def _soft(self, predictions: Predictions) -> Floats:
        given = [self.vocabulary.answers[number] for number in predictions.tolist()]
        return np.array([soft(one, each) for one, each in zip(given, self.questions.answers, strict=True)])

    def _by_answer(self, predictions: Predictions) -> tuple[Floats, Floats, Floats]:
        """Precision, recall and F1 of every answer that is true or predicted."""
        answers, true, given = self._counted(predictions)
        right = np.array([np.sum((predictions == each) & (self.truth == each)) for each in answers])
        zero = np.zeros(len(answers))
        return (
            np.divide(right, given, out=zero.copy(), where=given > 0),
            np.divide(right, true, out=zero.copy(), where=true > 0),
            2 * right / (true + given),
        )

    def _support(self, predictions: Predictions) -> npt.NDArray[np.int64]:
        return self._counted(predictions)[1]

    def _counted(self, predictions: Predictions) -> tuple[npt.NDArray[np.int64], ...]:
        """The answers that are true or predicted, and how often each is true and how often predicted."""
        answers, number = np.unique(np.concatenate([self.truth, predictions]), return_inverse=True)
        number = number.reshape(-1)
        true, given = (
            np.bincount(part, minlength=len(answers)) for part in (number[: len(self.truth)], number[len(self.truth) :])
        )
        return answers, true, given


def soft(answer: str, people: Sequence[str]) -> float:
    """The accuracy of an answer by those of several people, as VQA has it: the mean, over leaving out each of them, of
    min(1, how many others gave it / 3). Of one person's answer it is 1 or 0."""
    if len(people) < 2:
        return float(answer in people)
    same = sum(each == answer for each in people)
    return float(np.mean([min(1.0, (same - (each == answer)) / ANNOTATORS) for each in people]))
