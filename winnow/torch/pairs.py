"""A dataset of a manifest's kept pairs, any of which can be read."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import numpy as np
from torch.utils.data import Dataset

from filters.core import Recipe
from pipeline.errors import QueryError, RecipeError, SourceError, WinnowError, did_you_mean
from pipeline.images import decoders
from pipeline.manifest.manifest import Manifest as Published
from winnow.manifests import Manifest
from winnow.torch.epochs import EpochNumber
from winnow.torch.items import Item, Items
from winnow.torch.order import Share, Uneven
from winnow.torch.sampler import PairSampler
from winnow.torch.selection import Numbers, select
from winnow.torch.stream import PairStream, Settings
from winnow.torch.tars import Pictures

BUFFER = 2000
"""Pairs among which a stream shuffles."""


class Pairs(Dataset[Item]):
    """The pairs that a recipe keeps, read from the tars of the store. Nothing is copied or exported.

    An item is a dict: `image` (RGB, PIL or what `transform` makes of it), `caption` (str), `uid` (32 hex digits), the
    chosen columns under their names, as Python values (None for NULL), and `tokens` if there is a tokenizer. Pairs are
    sorted by shard and by picture: `shuffle=True` of a loader reads all over the store, `stream` reads tar by tar.
    Workers may be forked or spawned; files are opened where they are read.

    If the recipe keeps a pair more than once, it occurs that often in an epoch. Another column of copies may have
    fractions, which are rounded up or down at random, by seed, epoch and uid. `len` is that of the epoch.
    """

    def __init__(
        self,
        manifest: Manifest | Published,
        recipe: str | Recipe | None = None,
        transform: Callable[[Any], Any] | None = None,
        tokenize: Callable[[str], Any] | None = None,
        columns: Sequence[str] = (),
        seed: int = 0,
        decoder: decoders.Name | Callable[[bytes], Any] | None = None,
        copies: str | None = "copies",
    ) -> None:
        """Reads the rows of the pairs, and no picture.

        `recipe` is a recipe or the name of one; None means the published one. `tokenize` takes a caption; if it
        returns a tensor [1, context], as open_clip's do, the item has [context]. `decoder` is that of the source file
        (for a manifest of `pipeline`, Pillow), the name of another one, or a function of the bytes of a JPEG.
        `copies` names the column of copies: "copies" are those of the recipe, another is a number in `rows`. None takes
        each pair once.

        Raises RecipeError for a recipe that does not fit or for copies that are no numbers, QueryError for an unknown
        column, SourceError for a decoder that is unknown or not installed, StorageError if no pair is kept.
        """
        published = manifest.published if isinstance(manifest, Manifest) else manifest
        if tokenize and "tokens" in columns:
            raise QueryError("a column 'tokens' cannot be read beside a tokenizer, whose result has that name")
        selection = select(published, _recipe(manifest, recipe), columns, copies)
        decode = _decode(manifest, decoder)
        self._items = Items(selection, decode, transform, tokenize)
        self._pictures = Pictures(published.storage, published.stages.shards, selection)
        self._manifest, self._seed = published.id, seed
        self._epoch, self._counted = EpochNumber(), -1
        self._ends: Numbers | None = None

    def __len__(self) -> int:
        ends = self._occurrences()
        return len(self._items.selection) if ends is None else int(ends[-1])

    def __getitem__(self, index: int) -> Item:
        """One item. Raises StorageError for a missing or damaged tar, and for a picture that cannot be decoded."""
        length = len(self)
        if not -length <= index < length:
            raise IndexError(f"item {index} of {length}")
        ends, place = self._occurrences(), index % length
        row = place if ends is None else int(np.searchsorted(ends, place, side="right"))
        return self._items.make(row, self._pictures.read(int(self._items.selection.pictures[row])))

    @property
    def uids(self) -> list[str]:
        """The uids of the pairs, in the order of the dataset, each once."""
        return [self._items.selection.uid(row) for row in range(len(self._items.selection))]

    def set_epoch(self, epoch: int) -> None:
        """Round fractions of copies for another epoch, and give a `sampler` another order."""
        self._epoch.set(epoch)

    def stream(
        self,
        shuffle: bool = True,
        buffer: int = BUFFER,
        rank: int | None = None,
        world: int | None = None,
        uneven: Uneven = "keep",
        batch_size: int = 1,
    ) -> PairStream:
        """The same pairs as an IterableDataset that reads each tar from its beginning.

        Shards are shuffled, and pairs among `buffer` of them, whose JPEGs a worker holds in memory, half of them on
        average. Without `shuffle` the order is that of the dataset. `rank` and `world` are those of torch.distributed
        where it is initialized when reading begins, else 0 and 1. Each pair occurs on exactly one rank and worker. If
        ranks do not divide an epoch, `uneven` decides: "keep" (some ranks have one pair more), "drop" (fewer pairs than
        ranks are left out, others in each epoch), or "repeat" (as many occur twice). With the loader's `batch_size`
        each rank has one smaller batch at most, and `len(loader)` is right; else each worker has one. Copies of a pair
        are then put into different batches, as far as there are enough.

        Raises WinnowError for a rank outside the world, or one without the other.
        """
        share = _share(rank, world, uneven, batch_size)
        settings = Settings(self._manifest, self._items.selection.digest, self._seed, shuffle, buffer, share)
        return PairStream(self._items, self._pictures, settings)

    def sampler(
        self, batch_size: int, rank: int | None = None, world: int | None = None, uneven: Uneven = "keep"
    ) -> PairSampler:
        """A shuffled order for a loader of this dataset with that `batch_size`: `DataLoader(..., sampler=...)`.

        Copies of a pair are in different batches, of all ranks together, as far as there are enough. The order depends
        on the seed and the epoch alone: `set_epoch` gives another one. `rank`, `world` and `uneven` are as in `stream`.

        Raises WinnowError as `stream` does.
        """
        return PairSampler(self._counts, self._epoch, self._seed, _share(rank, world, uneven, batch_size))

    def _counts(self) -> Numbers:
        """How often each pair occurs in this epoch, int64 [pairs]."""
        ends = self._occurrences()
        return np.ones(len(self._items.selection), np.int64) if ends is None else np.diff(ends, prepend=0)

    def _occurrences(self) -> Numbers | None:
        """Where the copies of each pair end, int64 [pairs]; None if each occurs once."""
        epoch = self._epoch.get()
        if self._items.selection.copies is not None and self._counted != epoch:
            counts = self._items.selection.counts(self._seed, epoch)
            self._ends, self._counted = None if counts is None else np.cumsum(counts), epoch
        return self._ends


def _share(rank: int | None, world: int | None, uneven: Uneven, batch_size: int) -> Share:
    if (rank is None) != (world is None) or (rank is not None and world is not None and not 0 <= rank < world):
        raise WinnowError(f"rank {rank} of {world}: give both, with 0 <= rank < world")
    if uneven not in ("keep", "drop", "repeat") or batch_size < 1:
        raise WinnowError(f"uneven is 'keep', 'drop' or 'repeat', not {uneven!r}; batch_size is at least 1")
    return Share(rank or 0, world or 0, uneven=uneven, batch_size=batch_size)


def _recipe(manifest: Manifest | Published, recipe: str | Recipe | None) -> Recipe | None:
    if not isinstance(recipe, str):
        return recipe
    if isinstance(manifest, Manifest):
        return manifest.origin.recipe(recipe)
    raise RecipeError(f"recipe {recipe!r} is a name, which a winnow.Manifest finds: pass one, or the Recipe itself")


def _decode(manifest: Manifest | Published, decoder: Any) -> Callable[[bytes], Any]:
    own = manifest.origin.described.decoder if isinstance(manifest, Manifest) else "pillow"
    chosen = own if decoder is None else decoder
    if callable(chosen):
        return chosen  # type: ignore[no-any-return]
    if chosen not in get_args(decoders.Name):
        raise SourceError(f"no decoder is called {chosen!r}{did_you_mean(str(chosen), get_args(decoders.Name))}")
    return decoders.decoder(chosen)
