"""The questions of a pool, and their pictures, as a model that answers them reads them, plain and augmented."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from training.augment import questions as rules
from training.data.answers import Vocabulary
from training.data.order import Order
from training.data.questions import Questions
from training.data.streams import Stored, Stream
from training.learners.vqa import Data, Texts
from training.learners.vqa_inputs import VqaInputs

if TYPE_CHECKING:
    from training.vqa.model import Answerer


class Views(NamedTuple):
    """How the rows of a pool are seen, [rows, versions] each: the number of a picture's version, 0 for the plain one;
    the question among the distinct ones; and the number of the answer, negative if the vocabulary lacks it."""

    seen: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


@dataclass(frozen=True)
class VqaCorpus:
    """The questions of the rows of a pool. `sha256` is that of each row's picture, and `policy` augments pictures.

    `features`, float16 [pictures, versions, dim], are those of a frozen image tower. `pixels` are the pictures
    themselves, by row, for one that trains.
    """

    inputs: VqaInputs
    questions: Questions
    vocabulary: Vocabulary
    uid: Callable[[int], str]
    sha256: Sequence[str]
    policy: str
    versions: int
    features: npt.NDArray[np.float16] | None
    pixels: Stream | None
    _kept: dict[tuple[str, bool], "tuple[Views, tuple[str, ...]] | Texts"] = field(default_factory=dict)

    def data(self, model: "Answerer", rows: npt.NDArray[np.int64], seed: int, augmented: bool) -> Data:
        """The rows that the vocabulary answers, in the order of a seed, with what the model's towers read."""
        views, _ = self._views(augmented)
        texts = self.texts(model, augmented)
        known = rows[views.targets[rows, 0] >= 0]
        order = Order(known, model.settings.batch, seed, views.seen.shape[1])
        return Data(self._images(model), texts, views.seen, views.place, views.targets, self.uid, order)

    def targets(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The numbers of the answers of those of the rows that have one."""
        numbers = self._views(False)[0].targets[rows, 0]
        known: npt.NDArray[np.int64] = numbers[numbers >= 0]
        return known

    def texts(self, model: "Answerer", augmented: bool) -> Texts:
        """The distinct questions, with features if the text tower is frozen."""
        key = "texts with features" if model.text_frozen else "texts", augmented
        if key not in self._kept:
            self._kept[key] = self.inputs.texts(self._views(augmented)[1], model.text_frozen)
        found = self._kept[key]
        assert isinstance(found, Texts)
        return found

    def _images(self, model: "Answerer") -> Stream | None:
        if model.image is None:
            return None
        if not model.image_frozen or self.features is None:
            return self.pixels
        count, versions, dim = self.features.shape
        place = self.questions.picture[:, None] * versions + np.arange(versions)
        return Stored(self.features.reshape(count * versions, dim), place)

    def _views(self, augmented: bool) -> tuple[Views, tuple[str, ...]]:
        key = "views", augmented
        if key not in self._kept:
            self._kept[key] = self._made(self.versions if augmented else 1)
        found = self._kept[key]
        assert not isinstance(found, Texts)
        return found

    def _made(self, versions: int) -> tuple[Views, tuple[str, ...]]:
        flipped = self._flipped(versions)
        asked = [
            [
                rules.asked(question, answers, version, self.policy, (sha256, version) in flipped)
                for version in range(versions)
            ]
            for question, answers, sha256 in zip(
                self.questions.question, self.questions.answers, self.sha256, strict=True
            )
        ]
        texts, place = np.unique([[each.question for each in row] for row in asked], return_inverse=True)
        targets = [self.vocabulary.encode([row[version].answers for row in asked]) for version in range(versions)]
        seen = np.array([[each.version for each in row] for row in asked], np.int64)
        made = np.stack(targets, axis=1)
        shape = seen.shape
        # A version whose answer no longer is in the vocabulary is seen as the plain one.
        plain = np.where(made < 0, 0, np.arange(versions))
        at = np.arange(shape[0])[:, None], plain
        place = place.reshape(shape).astype(np.int64)
        return Views(seen[at], place[at], made[at]), tuple(texts.tolist())

    def _flipped(self, versions: int) -> set[tuple[str, int]]:
        pictures = set(self.sha256)
        return {
            (each, version)
            for each in pictures
            for version in range(1, versions)
            if rules.flipped(each, version, self.policy)
        }
