"""Measures on held-out pictures and captions: retrieval, and match or no match of pairs.

Captions that are equal but for case and blanks are one text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from training.data.pairs import Mask, Pairs, Positions
from training.measures import medians
from training.measures.metrics import Floats, Measure, Predictions, Units

AT = (1, 5, 10)
"""The k of recall at k."""

_CHUNK = 1024


def ranks(queries: Units, candidates: Units, relevant: Mask) -> Positions:
    """The rank of the first relevant candidate of each query, from 1. At equal cosines others rank before it.

    `relevant` is [queries, candidates].
    """
    import torch

    first, among = np.empty(len(queries), np.int64), torch.from_numpy(candidates)
    for at in range(0, len(queries), _CHUNK):
        part = relevant[at : at + _CHUNK]
        cosines = (torch.from_numpy(queries[at : at + _CHUNK]) @ among.T).numpy()
        best = np.where(part, cosines, -np.inf).max(axis=1, keepdims=True)
        first[at : at + _CHUNK] = 1 + ((cosines >= best) & ~part).sum(axis=1)
    return first


@dataclass(frozen=True)
class Retrieval:
    """Recall of captions by pictures and of pictures by captions, among all of so many `pictures` and their captions.

    Predictions are ranks: of the first relevant text for each picture, then of the first relevant picture for each
    caption.
    """

    pairs: Pairs
    pictures: int

    metrics: ClassVar[Mapping[str, str]] = {
        "mean_recall": "mean recall",
        **{f"i2t_r{k}": f"text R@{k}" for k in AT},
        **{f"t2i_r{k}": f"image R@{k}" for k in AT},
        "i2t_median": "median text rank",
        "t2i_median": "median image rank",
    }

    def predict(self, pictures: Units, texts: Units) -> Predictions:
        """Ranks by cosine, among all pictures and all texts."""
        relevant = self.pairs.relevance(self.pictures)
        return np.concatenate([ranks(pictures, texts, relevant), ranks(texts, pictures, relevant.T)[self.pairs.text]])

    def scores(self, predictions: Predictions) -> dict[str, Any]:
        """Recalls at 1, 5 and 10, of texts by their picture and of pictures by their text, and their mean; medians.

        Medians are of ranks, as of `training.measures.medians`.
        """
        hits, queries = self._hits(predictions)
        recalls = (hits.sum(axis=0) / queries.sum(axis=0)).tolist()
        return self._by_name(recalls, [medians.median(ranks) for ranks, _ in self._directions(predictions)])

    def resampled(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """The mean recall. A picture counts with its captions. The candidates are always the whole set."""
        mean: Floats = self.resampled_recalls(predictions, times).mean(axis=1)
        return mean

    def resampled_recalls(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """The six recalls in each resample, in the order of `metrics`: [resamples, 6]."""
        hits, queries = self._hits(predictions)
        recalls: Floats = (times @ hits) / (times @ queries)
        return recalls

    def resampled_medians(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """The two medians in each resample, in the order of `metrics`: [resamples, 2]."""
        found = [medians.resampled(*each, times) for each in self._directions(predictions)]
        return np.stack(found, axis=1)

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """The expected recalls of a random order, and its median ranks."""
        relevant = self.pairs.relevance(self.pictures)
        texts, pictures = relevant.sum(axis=1), relevant.sum(axis=0)[self.pairs.text]
        recalls = [chance(texts, relevant.shape[1], k) for k in AT] + [chance(pictures, self.pictures, k) for k in AT]
        middle = [medians.by_chance(texts, relevant.shape[1]), medians.by_chance(pictures, self.pictures)]
        return "chance", self._by_name(recalls, middle)

    def _by_name(self, recalls: Sequence[float], middle: Sequence[int]) -> dict[str, float]:
        return dict(zip(self.metrics, [float(np.mean(recalls)), *recalls, *map(float, middle)], strict=True))

    def _directions(self, predictions: Predictions) -> tuple[tuple[Positions, Positions], tuple[Positions, Positions]]:
        """The ranks of the pictures and of the captions, each with the picture of each query."""
        image, text = predictions[: self.pictures], predictions[self.pictures :]
        return (image, np.arange(self.pictures)), (text, self.pairs.picture)

    def _hits(self, predictions: Predictions) -> tuple[Floats, Floats]:
        """By picture, how many of its queries have a hit, and how many there are: [pictures, recalls]."""
        image, text = predictions[: self.pictures], predictions[self.pictures :]
        captions = np.bincount(self.pairs.picture, minlength=self.pictures)
        hits: list[npt.NDArray[Any]] = [image <= k for k in AT]
        hits += [np.bincount(self.pairs.picture, text <= k, minlength=self.pictures) for k in AT]
        queries = [np.ones(self.pictures)] * len(AT) + [captions] * len(AT)
        return np.stack(hits, axis=1).astype(np.float64), np.stack(queries, axis=1).astype(np.float64)


def chance(relevant: Positions, candidates: int, k: int) -> float:
    """Expected recall at k of a random order of the candidates, of which so many are `relevant` to each query."""
    missed = 1 - relevant[:, None] / (candidates - np.arange(min(k, candidates)))
    return float(np.mean(1 - missed.clip(min=0).prod(axis=1)))


@dataclass(frozen=True)
class Match:
    """Whether picture and caption of each pair belong together.

    Predictions are cosines less a threshold: 0 or more is a match.
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

    def predict(self, pictures: Units, texts: Units) -> Predictions:
        """The cosine of each pair, before `subtract_threshold`."""
        cosines: Predictions = np.einsum("nd,nd->n", pictures[self.pairs.picture], texts[self.pairs.text])
        return cosines

    def scores(self, predictions: Predictions) -> dict[str, Any]:
        """F1, precision and recall of match, accuracy, and ROC AUC, which needs no threshold; ties count half."""
        from scipy.stats import rankdata

        positive, match = predictions >= 0, self.pairs.match
        correct, count = int((positive & match).sum()), int(match.sum())
        above = rankdata(predictions)[match].sum() - count * (count + 1) / 2
        return {
            "f1": 2 * correct / (int(positive.sum()) + count),
            "precision": correct / max(int(positive.sum()), 1),
            "recall": correct / count,
            "accuracy": float((positive == match).mean()),
            "auc": float(above / (count * (len(match) - count))),
        }

    def resampled(self, predictions: Predictions, times: npt.NDArray[np.float32]) -> Floats:
        """F1 of match; 0 without matches and positive predictions. A picture counts with its pairs."""
        positive, match = predictions >= 0, self.pairs.match
        correct, either = (
            times @ np.bincount(self.pairs.picture, weights, minlength=self.pictures)
            for weights in (2.0 * (positive & match), 1.0 * positive + match)
        )
        f1: Floats = np.divide(correct, either, out=np.zeros(len(times)), where=either > 0)
        return f1

    def baseline(self, targets: npt.NDArray[Any]) -> tuple[str, dict[str, float]]:
        """Always match, which has the best F1 of all that look at no picture."""
        return "always match", self.scores(np.zeros(len(self.pairs.match)))


def subtract_threshold(predictions: Sequence[Predictions], measure: Measure) -> list[Predictions]:
    """Predictions for several sets; cosines of pairs less the threshold of the last set, whose `measure` it is."""
    if not isinstance(measure, Match):
        return list(predictions)
    line = threshold(predictions[-1], measure.pairs.match)
    return [each.astype(np.float64) - line for each in predictions]


def threshold(cosines: npt.NDArray[np.floating[Any]], match: Mask) -> float:
    """The cosine from which calling pairs a match is most accurate; of several the lowest.

    It is meant for pairs of which half match: there it maximises hits less false alarms. Wrong captions among the
    matches lower both alike and do not move it.
    """
    values, place = np.unique(cosines, return_inverse=True)
    gained = np.bincount(place, np.where(match, 1.0, -1.0), minlength=len(values))
    above = np.append(
        np.cumsum(gained[::-1])[::-1], 0.0
    )  # hits less false alarms from each value on; 0 for no match at all
    between = np.concatenate([[-2.0], (values[1:] + values[:-1]) / 2, [2.0]])
    return float(between[above.argmax()])
