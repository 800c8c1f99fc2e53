"""The pairs of a pool, and the held-out pictures, as a dual encoder reads them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.images import decoders
from pipeline.manifest.arms import Choice
from pipeline.settings.encoder import Pixels
from pipeline.settings.task import Budget
from pipeline.store.storage import Storage
from pipeline.store.tarfiles import Tars
from training.data import pictures, pool, streams
from training.data.features import Extractor, Features
from training.data.heldout import HeldOut
from training.data.order import Order
from training.data.pool import Pool
from training.encoders.encoders import Preparing
from training.learners.clip import Data
from training.learners.inputs import Inputs, chunks, embed
from training.measures.matching import Retrieval
from training.measures.metrics import Predictions, Units

if TYPE_CHECKING:
    import torch

HASHED = Pixels(kind="pixels", side=16)
"""What is stored of pictures for a tower that trains: no feature is used, only the perceptual hash beside it."""


def extractor(inputs: Inputs, decoder: decoders.Name, budget: Budget | None) -> Extractor:
    """The features that a model's training reads, with their augmented versions under a budget."""
    if inputs.model.visual.frozen:
        return Extractor(inputs.storage, inputs.image_features, decoder, budget)
    return Extractor(inputs.storage, HASHED, decoder, None)


@dataclass(frozen=True)
class Corpus:
    """All pairs of a pool: both sides, the number of each row's picture, and of the captions how many were cut."""

    images: streams.Stream
    texts: streams.Stored
    pictures: npt.NDArray[np.int64]
    uid: Callable[[int], str]
    cut: int

    def data(self, order: Order) -> Data:
        """Some of them, in an order."""
        return Data(self.images, self.texts, self.pictures, self.texts.place[:, 0], self.uid, order)


def read(inputs: Inputs, choice: Choice, known: Pool, own: Features, decoder: decoders.Name, policy: str) -> Corpus:
    """The corpus of a pool. `own` has the features of its pictures, from `extractor`.

    Raises ModelError for features that are not finite.
    """
    table = pool.captions(choice, known.table["uid"])
    captions, place = np.unique(np.array(table["caption"].to_pylist(), object), return_inverse=True)
    read = inputs.texts(captions.tolist())
    shows, uids = np.unique(known.table["sha256"].to_pylist(), return_inverse=True)[1], known.table["uid"]
    images: streams.Stream
    if inputs.model.visual.frozen:
        count, versions, dim = own.views.shape
        first = known.table["picture"].to_numpy()[:, None] * versions
        images = streams.Stored(own.views.reshape(count * versions, dim), first + np.arange(versions))
    else:
        places = list(zip(table["shard"].to_pylist(), table["member"].to_pylist(), strict=True))
        tars, resize = Tars(inputs.storage, choice.manifest.stages.shards), decoders.from_pixels(decoder)
        images = streams.Pictures(tars, places, inputs.model.pictures.prepare, resize, policy)
    texts = streams.Stored(read.values, place.reshape(-1, 1).astype(np.int64))
    return Corpus(images, texts, shows.reshape(-1).astype(np.int64), lambda row: str(uids[row]), read.cut)


@dataclass(frozen=True)
class Gallery:
    """Held-out pictures and captions, which a model ranks. `texts` are what `Inputs.texts` made of the captions.

    `cut` of these are longer than the text tower reads.
    """

    measure: Retrieval
    pictures: "Callable[[], Iterable[torch.Tensor]]"
    texts: npt.NDArray[np.generic]
    cut: int

    def images(self, inputs: Inputs) -> Units:
        """The embeddings of the pictures. Raises TrainingError for one that is not finite."""
        return embed(inputs.model, inputs.model.visual, self.pictures())

    def ranks(self, inputs: Inputs, images: Units | None = None) -> Predictions:
        """As of `Retrieval`. Raises TrainingError for embeddings that are not finite."""
        model, shown = inputs.model, self.images(inputs) if images is None else images
        return self.measure.predict(shown, embed(model, model.text, chunks(self.texts)))


def gallery(inputs: Inputs, choice: Choice, test: HeldOut, own: Features, decoder: decoders.Name) -> Gallery:
    """The gallery of a test set that has captions. `own` has the features of its pictures."""
    assert test.pairs is not None
    texts, shown = inputs.texts(list(test.pairs.texts)), test_pictures(inputs, choice, test, own, decoder)
    return Gallery(Retrieval(test.pairs, len(test.labels)), shown, texts.values, texts.cut)


def test_pictures(
    inputs: Inputs, choice: Choice, test: HeldOut, own: Features, decoder: decoders.Name
) -> "Callable[[], Iterable[torch.Tensor]]":
    """The held-out pictures in their order, in chunks, again at every call."""
    if inputs.model.visual.frozen:
        return lambda: chunks(own.views[:, 0])
    return test_pixels(inputs.storage, inputs.model.pictures, choice, test, decoder)


def test_pixels(
    storage: Storage, tower: Preparing, choice: Choice, test: HeldOut, decoder: decoders.Name
) -> "Callable[[], Iterable[torch.Tensor]]":
    """The held-out pictures in their order, prepared for a tower, uint8 in chunks, again at every call."""
    tars = Tars(storage, choice.manifest.stages.shards)
    heldout = test.pictures if test.paths else partial(pictures.split_off, choice, tars, test)
    shown = pictures.Pictures(tars, heldout, decoders.from_pixels(decoder))
    return lambda: map(stacked, shown.prepare_heldout(tower))


def stacked(window: list[npt.NDArray[np.uint8]]) -> "torch.Tensor":
    """Prepared pictures as one uint8 tensor [pictures, height, width, 3]."""
    import torch

    return torch.from_numpy(np.stack(window))
