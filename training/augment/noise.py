"""Noise in a pool of pairs, on purpose, to measure what learners bear (Zhai et al. 2023, figure 7, with p of 0 to 0.5).

A share p of pairs is corrupted, each pair with that probability and by its own draw. A larger p with the same seed
corrupts the same pairs and more. The corruption of a pair depends on the seed, its row and the pool. So it is the same
in every epoch, in whatever order pairs are read.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt

VERSION = 1

Kind = Literal["images", "texts", "both", "alignment", "all"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Pixels = npt.NDArray[np.uint8]
Number = TypeVar("Number", bound=np.floating)


class Noise(NamedTuple):
    """What becomes of each pair, [pairs]: whether its picture and its text are replaced, and whose text it gets."""

    images: npt.NDArray[np.bool_]
    texts: npt.NDArray[np.bool_]
    order: npt.NDArray[np.int64]


def draw(kind: Kind, share: float, pairs: int, seed: int) -> Noise:
    """Which pairs are corrupted, by the kind of noise:

    images: a picture becomes uniform noise. texts: a text becomes random words or tokens. both: the two before, drawn
    independently. alignment: pairs exchange their texts. all: the three, drawn independently.
    Texts are exchanged before they are replaced: texts[order], then those where `texts` is true. They go round among
    the drawn pairs in a random order, so that each gets the text of another. A pair that is drawn alone keeps its own.
    Raises ValueError for a share that is not within 0 and 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of noise is {share:g}, not within 0 and 1")
    generator = np.random.default_rng([seed, VERSION])
    images, texts, moved = generator.random((3, pairs)) < share
    nothing = np.zeros(pairs, bool)
    order = np.arange(pairs)
    if kind in ("alignment", "all"):
        around = generator.permutation(pairs)
        around = around[moved[around]]
        order[around] = np.roll(around, 1)
    return Noise(
        images if kind in ("images", "both", "all") else nothing,
        texts if kind in ("texts", "both", "all") else nothing,
        order,
    )


def picture(like: Pixels, row: int, seed: int) -> Pixels:
    """In place of the pixels of that pair: as many, each uniform from 0 to 255."""
    return _generator(row, seed).integers(256, size=like.shape, dtype=np.uint8)


def features(pool: npt.NDArray[Number], chosen: npt.NDArray[np.bool_], seed: int) -> npt.NDArray[Number]:
    """Stored features [pairs, ..., dim] with those of the chosen pairs replaced.

    Each number is uniform between the least and the largest of its place in the pool. That is noise for a learner that
    sees features only. It is not what the encoder would give for a picture of noise: those are all much alike.
    """
    made = pool.copy()
    low, high = pool.min(axis=0).astype(np.float64), pool.max(axis=0).astype(np.float64)
    for row in np.flatnonzero(chosen).tolist():
        made[row] = _generator(row, seed).uniform(low, high)
    return made


def captions(pool: Sequence[str], chosen: npt.NDArray[np.bool_], seed: int) -> list[str]:
    """Captions with the chosen ones replaced by random words: as many as a random caption of the pool has.

    Every distinct word of the pool, split at blanks, is equally likely.
    """
    words = sorted({word for caption in pool for word in caption.split()})
    made = list(pool)
    for row in np.flatnonzero(chosen).tolist() if words else ():
        generator = _generator(row, seed)
        length = len(pool[int(generator.integers(len(pool)))].split())
        made[row] = " ".join(words[each] for each in generator.integers(len(words), size=length))
    return made


def tokens(
    pool: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_], vocabulary: int, special: Collection[int], seed: int
) -> npt.NDArray[np.int64]:
    """Tokens [pairs, context] with the chosen rows replaced by random tokens: as many as a random row of the pool has.

    Tokens are drawn from 0 to `vocabulary` - 1 without the `special` ones (start, end, padding), which stay where that
    random row has them.
    """
    ordinary = np.setdiff1d(np.arange(vocabulary), list(special))
    made = pool.copy()
    for row in np.flatnonzero(chosen).tolist():
        generator = _generator(row, seed)
        other = pool[generator.integers(len(pool))]
        made[row] = np.where(np.isin(other, list(special)), other, generator.choice(ordinary, size=other.shape))
    return made


def _generator(row: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, VERSION, 1 + row])
