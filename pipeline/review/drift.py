"""Drift: the distance of the columns of two manifests, and whether it stops automatic training."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from pipeline.trials.trials import gain_of

Values = npt.NDArray[np.float64]
"""Sorted, without NULL."""

LEAST = 1e-4
"""The share that an empty bin counts as: the logarithm of 0 is infinite."""

WORDS = 10
"""Values of a text column with a bin of their own. All others share one."""

MOST_WORDS = 100
"""A text column with more distinct values is no category, and is left out."""

_NO_MEASUREMENT = {"uid", "url", "caption", "status", "cause", "error", "sha256", "shard", "member"}


@dataclass(frozen=True)
class Drift:
    """One column of two manifests.

    `psi` is the population stability index over the deciles of the one before, with a bin for NULL: the sum of
    (a - b) ln(a / b) over the bins' shares; of a text column over its ten most frequent words, all others, and NULL.
    0 is no change; above 0.25 is commonly taken for a large one. `ks` is the Kolmogorov-Smirnov statistic, 0 to 1, of
    the values that are there; None for text. Both are None where a side has no row, `ks` also where it has no value.
    """

    column: str
    psi: float | None
    ks: float | None


def inputs(before: Manifest, after: Manifest) -> list[Drift]:
    """The drift of every column that both have, over the downloaded pairs."""
    if [part.rows for part in before.parts] == [part.rows for part in after.parts]:
        return [Drift(name, 0.0, None if _is_text(kind) else 0.0) for name, kind in _columns(before, after)]
    return _drifts(before, after, only_kept=False)


def kept(before: Manifest, after: Manifest) -> list[Drift]:
    """The drift of every column that both have, over the pairs that each keeps; another recipe drifts by design."""
    return _drifts(before, after, only_kept=True)


def hold(source: Source, storage: Storage, manifest: Manifest) -> str | None:
    """The reason, in one line, why training on this manifest does not start automatically; None if there is none.

    The input columns are compared with those of the last manifest that was trained on, or of the parent without one.
    """
    most, before = source.drift.max_psi, _reference(storage, manifest)
    if most is None or before is None:
        return None
    over = [each for each in inputs(before, manifest) if each.psi is not None and each.psi > most]
    if not over:
        return None
    columns = ", ".join(
        f"{each.column} (PSI {each.psi:.3g})" for each in sorted(over, key=lambda each: -(each.psi or 0))
    )
    return (
        f"no training follows: inputs drifted beyond max_psi = {most:g} from manifest {before.id[:12]}: {columns}; "
        f"compare them with `winnow diff {source.name}`, then run `winnow train {source.name}`, or raise max_psi"
    )


def psi(before: Values, after: Values, missing: tuple[int, int]) -> float | None:
    """The index over the deciles of `before`; `missing` rows of each side have no value.

    A value that fills two deciles or more gets a bin of its own: what is mostly one number can leave it to both sides.
    """
    cuts = np.empty(0)
    if len(before):
        deciles = np.quantile(before, np.linspace(0, 1, 11))
        values, times = np.unique(deciles, return_counts=True)
        own = values[times > 1]
        cuts = np.unique(np.concatenate([deciles[1:-1], own, np.nextafter(own, np.inf)]))
    counts = [
        np.diff(np.concatenate([[0], np.searchsorted(side, cuts), [len(side)], [len(side) + gone]]))
        for side, gone in zip((before, after), missing, strict=True)
    ]
    return _index(*counts)


def ks(before: Values, after: Values) -> float | None:
    """The largest distance between the two distribution functions."""
    if not len(before) or not len(after):
        return None
    at = np.concatenate([before, after])
    below = (np.searchsorted(side, at, side="right") / len(side) for side in (before, after))
    return float(np.abs(np.subtract(*below)).max())


def words(before: pa.ChunkedArray, after: pa.ChunkedArray) -> float | None:
    """The index over the most frequent words of `before`, all other words, and NULL."""
    counted: list[dict[str | None, int]] = [
        {row["values"]: row["counts"] for row in pc.value_counts(side).to_pylist()} for side in (before, after)
    ]
    ranked = sorted((word for word in counted[0] if word is not None), key=lambda word: (-counted[0][word], word))
    named: list[str | None] = [*ranked[:WORDS], None]
    bins = [[side.get(word, 0) for word in named] for side in counted]
    bins = [[*counts, sum(side.values()) - sum(counts)] for counts, side in zip(bins, counted, strict=True)]
    return _index(np.array(bins[0]), np.array(bins[1]))


def _index(before: npt.NDArray[np.int64], after: npt.NDArray[np.int64]) -> float | None:
    if not before.sum() or not after.sum():
        return None
    b, a = (np.maximum(counts / counts.sum(), LEAST) for counts in (before, after))
    empty = (before == 0) & (after == 0)
    return float(np.where(empty, 0, (a - b) * np.log(a / b)).sum())


def _drifts(before: Manifest, after: Manifest, only_kept: bool) -> list[Drift]:
    """Of every column that both have; several at a time, each read by itself."""
    masks = [_mask(manifest, only_kept) for manifest in (before, after)]

    def drift(column: tuple[str, pa.DataType]) -> Drift | None:
        name, kind = column
        sides = [_column(manifest, name).filter(mask) for manifest, mask in zip((before, after), masks, strict=True)]
        if _is_text(kind):
            few = pc.count_distinct(sides[0]).as_py() <= MOST_WORDS
            return Drift(name, words(*sides), None) if few else None
        one, other = (_sorted(side.drop_null()) for side in sides)
        return Drift(name, psi(one, other, (sides[0].null_count, sides[1].null_count)), ks(one, other))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [each for each in pool.map(drift, _columns(before, after)) if each]


def _columns(before: Manifest, after: Manifest) -> Iterator[tuple[str, pa.DataType]]:
    """The columns that both have: numbers, booleans and text, but no hashes (64 unsigned bits) and no names of rows."""
    for field in after.columns:
        both = field.name in before.columns.names and before.columns.field(field.name).type == field.type
        number = pa.types.is_boolean(field.type) or pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
        if (
            both
            and field.name not in _NO_MEASUREMENT
            and field.type != pa.uint64()
            and (number or _is_text(field.type))
        ):
            yield field.name, field.type


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind))


def _mask(manifest: Manifest, only_kept: bool) -> pa.ChunkedArray:
    if not only_kept:
        return pc.equal(_column(manifest, "status"), "ok")
    return _read(manifest.storage.fetch_all(part.verdicts for part in manifest.parts), "kept")


def _column(manifest: Manifest, name: str) -> pa.ChunkedArray:
    return _read(manifest.storage.fetch_all(part.rows for part in manifest.parts), name)


def _read(files: Sequence[Path], name: str) -> pa.ChunkedArray:
    return pq.ParquetDataset(files, partitioning=None).read(columns=[name])[name]


def _sorted(column: pa.ChunkedArray) -> Values:
    """The values, which are sorted as what they are: the narrower, the faster."""
    plain = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    values: Values = np.sort(plain.to_numpy()).astype(np.float64)
    return values


def _reference(storage: Storage, manifest: Manifest) -> Manifest | None:
    """The last manifest before this one that was trained on; its parent if none was; None without a complete one."""
    earlier = [commit.id for commit in commits(storage)]
    names = earlier[: len(earlier) - 1 - earlier[::-1].index(manifest.id)]
    before = [each for name in names if (each := Manifest.open(storage, name)).complete]
    for each in reversed(before):
        if each.id != manifest.id and gain_of(storage, each.id):
            return each
    return before[-1] if before else None
