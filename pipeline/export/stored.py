"""What is stored of exported pairs: their pictures, and the embeddings of a scorer."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.errors import ModelError, did_you_mean
from pipeline.manifest.embeddings import Embeddings, Vectors
from pipeline.manifest.manifest import Manifest
from pipeline.store import tarfiles

_ROWS = 100_000
"""Pairs whose embeddings are in memory at a time."""


class Stored:
    """Pictures and embeddings of pairs of a manifest. Only what is asked for is read."""

    def __init__(self, manifest: Manifest, scorer: str | None = None) -> None:
        self._manifest, self._scorer = manifest, scorer
        self._tars = tarfiles.Tars(manifest.storage, manifest.stages.shards)

    def pictures(self, pairs: pa.Table) -> Iterator[bytes]:
        """The stored picture of each pair, as it is stored. Raises StorageError for a missing one."""
        for shard, member in zip(pairs["shard"].to_pylist(), pairs["member"].to_pylist(), strict=True):
            yield self._tars.require(shard, member)

    def vectors(self, pairs: pa.Table) -> tuple[Vectors, Vectors]:
        """float16 [pairs, dim] of the pictures, and of the captions, of length 1; NaN where there is none."""
        found = self._embeddings(pairs["uid"])
        return found.pictures[:], found.captions[:]

    def embedded(self, uids: pa.Table) -> pa.Table:
        """Those of the uids that have an embedding of the picture and one of the caption."""
        found = self._embeddings(uids["uid"])
        whole = np.ones(len(uids), bool)
        for start in range(0, len(uids), _ROWS):
            rows = slice(start, start + _ROWS)
            whole[rows] = ~(np.isnan(found.pictures[rows]) | np.isnan(found.captions[rows])).any(axis=1)
        return uids.filter(pa.array(whole))

    def _embeddings(self, uids: pa.ChunkedArray) -> Embeddings:
        assert self._scorer
        return self._manifest.embeddings(self._scorer, uids.combine_chunks())


def scorer_with_embeddings(manifest: Manifest, name: str | None) -> str:
    """The named scorer, or the only one of a manifest that stored embeddings. Raises ModelError."""
    there = manifest.embedding_scorers
    if name is None and len(there) == 1:
        return there[0]
    if name is None and there:
        raise ModelError(f"several scorers stored embeddings ({', '.join(there)}): name one with --scorer")
    if name not in there:
        hint = did_you_mean(name, there) if name else "; a scorer of kind clip or recorded does"
        raise ModelError(f"no scorer {f'{name!r} ' if name else ''}of this manifest stored embeddings{hint}")
    return name
