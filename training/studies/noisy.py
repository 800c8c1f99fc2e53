"""Pairs that are corrupted on purpose, as `training.augment.noise` defines it, on what a model reads."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from training.augment import noise
from training.data.order import Drawn, Rows
from training.data.streams import Stored, Stream
from training.learners.inputs import Inputs
from training.studies.corpus import Corpus
from training.studies.ground import Ground

if TYPE_CHECKING:
    import torch


def corrupt(ground: Ground, inputs: Inputs, rows: Rows, kind: noise.Kind, share: float, seed: int) -> Corpus:
    """The pairs of a ground with a share of these rows corrupted. Other rows, such as those to validate on, stay.

    A picture that becomes noise matches no other caption of the picture that it was. Where only features of pictures
    are read, they are replaced: see `noise.features`.
    """
    drawn = noise.draw(kind, share, len(rows), seed)
    pairs = ground.pairs
    texts = Stored(pairs.texts.values, _exchanged(pairs.texts.place, rows, rows[drawn.order]))
    if drawn.texts.any():
        texts = _random_words(texts, ground, inputs, rows, drawn.texts, seed)
    if not drawn.images.any():
        return replace(pairs, texts=texts)
    pictures, chosen = pairs.pictures.copy(), rows[drawn.images]
    pictures[chosen] = pictures.max() + 1 + np.arange(len(chosen))
    images = _noise(pairs.images, rows, drawn.images, seed)
    return replace(pairs, texts=texts, images=images, pictures=pictures)


@dataclass(frozen=True)
class Replaced:
    """A stream of pictures, uint8 [batch, height, width, 3], in which those of some rows are noise."""

    stream: Stream
    rows: frozenset[int]
    seed: int

    def read(self, drawn: Iterable[Drawn]) -> Iterator["torch.Tensor"]:
        """As of `Stream`."""
        import torch

        steps = list(drawn)
        for step, batch in zip(steps, self.stream.read(steps), strict=True):
            for at, row in enumerate(step.rows.tolist()):
                if row in self.rows:
                    batch[at] = torch.from_numpy(noise.picture(batch[at].numpy(), row, self.seed))
            yield batch


def _exchanged(place: npt.NDArray[np.int64], rows: Rows, others: Rows) -> npt.NDArray[np.int64]:
    moved = place.copy()
    moved[rows] = place[others]
    return moved


def _random_words(
    texts: Stored, ground: Ground, inputs: Inputs, rows: Rows, chosen: npt.NDArray[np.bool_], seed: int
) -> Stored:
    """Captions of random words. They are made for all rows, so that every share of noise reads the same features."""
    captions = ground.captions()
    made = noise.captions([captions[row] for row in rows], np.ones(len(rows), bool), seed)
    distinct, number = np.unique(np.array(made, object), return_inverse=True)
    place = texts.place.copy()
    place[rows[chosen]] = len(texts.values) + number.reshape(-1, 1)[chosen]
    return Stored(np.concatenate([texts.values, inputs.texts(distinct.tolist()).values]), place)


def _noise(images: Stream, rows: Rows, chosen: npt.NDArray[np.bool_], seed: int) -> Stream:
    if not isinstance(images, Stored):
        return Replaced(images, frozenset(rows[chosen].tolist()), seed)
    made = noise.features(images.values[images.place[rows, 0]], chosen, seed)[chosen]
    place = images.place.copy()
    place[rows[chosen]] = len(images.values) + np.arange(len(made))[:, None]
    return Stored(np.concatenate([images.values, made]), place)
