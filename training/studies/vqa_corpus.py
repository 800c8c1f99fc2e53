"""The questions of a pool, and their pictures, as a model that answers them reads them, plain and augmented."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.images import decoders
from pipeline.manifest.arms import Choice
from pipeline.settings.task import Budget
from pipeline.settings.vqa import VqaModel
from pipeline.store.storage import Storage
from pipeline.store.tarfiles import Tars
from training.augment import questions as rules
from training.data import pool
from training.data.answers import Vocabulary
from training.data.features import Extractor, Features
from training.data.order import Order
from training.data.pool import Pool
from training.data.questions import Questions
from training.data.streams import Pictures, Stored, Stream
from training.learners.vqa import Data, Texts
from training.learners.vqa_inputs import VqaInputs
from training.studies.corpus import HASHED

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
    themselves, by row, for one that trains. `apart` is that of `Order`.
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
    apart: bool = False
    _kept: dict[tuple[str, bool], "tuple[Views, tuple[str, ...]] | Texts"] = field(default_factory=dict)

    def data(self, model: "Answerer", rows: npt.NDArray[np.int64], seed: int, augmented: bool) -> Data:
        """The rows that the vocabulary answers, in the order of a seed, with what the model's towers read."""
        views, _ = self._views(augmented)
        texts = self.texts(model, augmented)
        known = rows[views.targets[rows, 0] >= 0]
        order = Order(known, model.settings.batch, seed, views.seen.shape[1], self.apart)
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


def inputs(settings: VqaModel, about: Mapping[str, Any], storage: Storage) -> VqaInputs:
    """The towers of a model, for what does not depend on its answers. Raises ModelError."""
    from training.vqa import build

    return VqaInputs(build.build(settings, 1, 0), about, storage)


def extractor(inputs: VqaInputs, decoder: decoders.Name, budget: Budget) -> Extractor:
    """The features that a model's training reads, with augmented versions by the policy for questions."""
    if not _stores(inputs.model):
        return Extractor(inputs.storage, HASHED, decoder, None)
    own = budget.model_copy(update={"policy": rules.policy_of(budget.policy)})
    return Extractor(inputs.storage, inputs.image_features, decoder, own)


def read(
    inputs: VqaInputs, choice: Choice, known: Pool, own: Features, decoder: decoders.Name, budget: Budget
) -> VqaCorpus:
    """The questions of a pool. `own` has the features of its pictures, from `extractor`."""
    assert known.questions is not None
    assert known.test.vocabulary is not None
    table = pool.captions(choice, known.table["uid"])
    places = list(zip(table["shard"].to_pylist(), table["member"].to_pylist(), strict=True))
    tars, resize = Tars(inputs.storage, choice.manifest.stages.shards), decoders.from_pixels(decoder)
    policy, uids = rules.policy_of(budget.policy), known.table["uid"]
    return VqaCorpus(
        inputs,
        known.questions,
        known.test.vocabulary,
        lambda row: str(uids[row]),
        known.table["sha256"].to_pylist(),
        budget.policy,
        1 + budget.augmented_views,
        own.views if _stores(inputs.model) else None,
        Pictures(tars, places, inputs.model.pictures.prepare, resize, policy),
        known.repeats,
    )


def _stores(model: "Answerer") -> bool:
    """Whether features of the image tower are stored: it is frozen, at least until adapters are added."""
    return model.image is not None and model.image_frozen
