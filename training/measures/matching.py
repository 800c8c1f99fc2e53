"""Held-out pictures and captions that are asked for together: retrieval, and match or no match of pairs.

Captions that are equal in words, whatever their case and their blanks, cannot be told apart, and are one text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from training.data.pairs import Pairs, Places, Truths
from training.measures.metrics import Floats, Measure, Predicted, Units

AT = (1, 5, 10)
"""The places of a ranking up to which it is looked for what is right."""

_CHUNK = 1024


def ranks(queries: Units, candidates: Units, right: Truths) -> Places:
    """The place of the first right candidate of each query, 1 the best; a wrong one that is as near goes before it.

    `right` is [queries, candidates].
    """
    import torch

    found, among = np.empty(len(queries), np.int64), torch.from_numpy(candidates)
    for at in range(0, len(queries), _CHUNK):
        part = right[at : at + _CHUNK]
        near = (torch.from_numpy(queries[at : at + _CHUNK]) @ among.T).numpy()
        best = np.where(part, near, -np.inf).max(axis=1, keepdims=True)
        found[at : at + _CHUNK] = 1 + ((near >= best) & ~part).sum(axis=1)
    return found


@dataclass(frozen=True)
class Retrieval:
    """Of so many `pictures` and their captions those that belong together are to be found among all.

    Predictions are ranks: of the first right text for each picture, then of the first right picture for each caption.
    """

    pairs: Pairs
    pictures: int

    metrics: ClassVar[Mapping[str, str]] = {
        "mean_recall": "mean recall",
        **{f"i2t_r{k}": f"text R@{k}" for k in AT},
        **{f"t2i_r{k}": f"image R@{k}" for k in AT},
    }

    def said(self, pictures: Units, texts: Units) -> Predicted:
        """By cosines, among all pictures and all texts."""
        right = self.pairs.right(self.pictures)
        return np.concatenate([ranks(pictures, texts, right), ranks(texts, pictures, right.T)[self.pairs.text]])

    def scores(self, predicted: Predicted) -> dict[str, Any]:
        """Recalls at 1, 5 and 10, of texts by their picture and of pictures by their text, and their mean."""
        hits, asked = self._hits(predicted)
        return self._named((hits.sum(axis=0) / asked.sum(axis=0)).tolist())

    def resampled(self, predicted: Predicted, times: npt.NDArray[np.float32]) -> Floats:
        """The mean recall. The captions of a picture go with it; what is searched stays the whole set."""
        hits, asked = self._hits(predicted)
        mean: Floats = ((times @ hits) / (times @ asked)).mean(axis=1)
        return mean

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """What a blind order would find."""
        right = self.pairs.right(self.pictures)
        texts, pictures = right.sum(axis=1), right.sum(axis=0)[self.pairs.text]
        told = [chance(texts, right.shape[1], k) for k in AT] + [chance(pictures, self.pictures, k) for k in AT]
        return "chance", self._named(told)

    def _named(self, recalls: Sequence[float]) -> dict[str, float]:
        return dict(zip(self.metrics, [float(np.mean(recalls)), *recalls], strict=True))

    def _hits(self, predicted: Predicted) -> tuple[Floats, Floats]:
        """By picture, how many of its questions find what is right, and how many there are: [pictures, recalls]."""
        image, text = predicted[: self.pictures], predicted[self.pictures :]
        said = np.bincount(self.pairs.picture, minlength=self.pictures)
        found: list[npt.NDArray[Any]] = [image <= k for k in AT]
        found += [np.bincount(self.pairs.picture, text <= k, minlength=self.pictures) for k in AT]
        asked = [np.ones(self.pictures)] * len(AT) + [said] * len(AT)
        return np.stack(found, axis=1).astype(np.float64), np.stack(asked, axis=1).astype(np.float64)


def chance(right: Places, candidates: int, k: int) -> float:
    """How often one of so many `right` ones is among the first k of a blind order of all candidates, on average."""
    missed = 1 - right[:, None] / (candidates - np.arange(min(k, candidates)))
    return float(np.mean(1 - missed.clip(min=0).prod(axis=1)))


@dataclass(frozen=True)
class Match:
    """Of each pair it is asked whether picture and caption belong together.

    Predictions are cosines less a threshold: 0 or more says that they do.
    """

    pairs: Pairs
    pictures: int

    metrics: ClassVar[Mapping[str, str]] = {
        "f1": "F1 of match",
        "precision": "precision",
        "recall": "recall",
        "accuracy": "accuracy",
        "auc": "ROC AUC",
    }

    def said(self, pictures: Units, texts: Units) -> Predicted:
        """The cosine of each pair; the threshold is not in it yet."""
        found: Predicted = np.einsum("nd,nd->n", pictures[self.pairs.picture], texts[self.pairs.text])
        return found

    def scores(self, predicted: Predicted) -> dict[str, Any]:
        """f1, precision and recall of match, accuracy; auc, which needs no threshold: ties count half."""
        from scipy.stats import rankdata

        said, match = predicted >= 0, self.pairs.match
        right, count = int((said & match).sum()), int(match.sum())
        above = rankdata(predicted)[match].sum() - count * (count + 1) / 2
        return {
            "f1": 2 * right / (int(said.sum()) + count),
            "precision": right / max(int(said.sum()), 1),
            "recall": right / count,
            "accuracy": float((said == match).mean()),
            "auc": float(above / (count * (len(match) - count))),
        }

    def resampled(self, predicted: Predicted, times: npt.NDArray[np.float32]) -> Floats:
        """F1 of match, 0 where nothing matches and nothing is said to. A picture's pairs go with it."""
        said, match = predicted >= 0, self.pairs.match
        right, either = (
            times @ np.bincount(self.pairs.picture, weights, minlength=self.pictures)
            for weights in (2.0 * (said & match), 1.0 * said + match)
        )
        f1: Floats = np.divide(right, either, out=np.zeros(len(times)), where=either > 0)
        return f1

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """Always match: by F1 the best of what looks at no picture."""
        return "always match", self.scores(np.zeros(len(self.pairs.match)))


def less_threshold(said: Sequence[Predicted], measure: Measure) -> list[Predicted]:
    """What was said of several sets; where it is cosines of pairs, less the threshold of the last set's `measure`."""
    if not isinstance(measure, Match):
        return list(said)
    line = threshold(said[-1], measure.pairs.match)
    return [each.astype(np.float64) - line for each in said]


def threshold(cosines: npt.NDArray[np.floating[Any]], match: Truths) -> float:
    """From which cosine on most pairs are told rightly, as many of which match as do not; of several the lowest.

    Of such pairs this is where hits less false alarms are most, which wrong captions among those that should match do
    not move: they shrink both alike.
    """
    values, place = np.unique(cosines, return_inverse=True)
    gained = np.bincount(place, np.where(match, 1.0, -1.0), minlength=len(values))
    above = np.append(np.cumsum(gained[::-1])[::-1], 0.0)  # what saying match from each value on gets right, and never
    between = np.concatenate([[-2.0], (values[1:] + values[:-1]) / 2, [2.0]])
    return float(between[above.argmax()])
