"""{arm: uids} for a comparison. What was kept is asked here, so that training is given uids and never filters.

For each seed the pool is resampled with replacement, and every arm is cut from the same resample: arms of one seed
are paired, and seeds vary the data, not only the learner.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from filters.core import Recipe
from pipeline.errors import SourceError, StorageError, did_you_mean
from pipeline.manifest.manifest import Manifest
from pipeline.store.digests import digest
from pipeline.store.parquet import ROW_GROUP
from pipeline.store.storage import Storage

Rows = npt.NDArray[np.int64]
"""Rows of the pool, with repetitions."""

ARMS = ("raw", "filtered", "random")
"""All of the resample; those of it that the manifest kept; those of a random subset of the pool of the same size."""


def without(name: str) -> str:
    """The arm that the manifest would have kept if it had not had that filter."""
    return f"without-{name}"


def control_of(arm: str) -> str:
    """The control of another arm: a random subset of the pool, of the same size."""
    return "random" if arm == "filtered" else f"random-{arm}"


@dataclass(frozen=True)
class Choice:
    """A manifest's pairs, and the recipe that says which of them are kept: the one that was published, or another."""

    manifest: Manifest
    recipe: Recipe
    published: bool

    @classmethod
    def open(cls, storage: Storage, id: str | None = None, recipe: Recipe | None = None) -> Self:  # noqa: A002
        """The manifest that `id` means, with its own recipe or with another. Raises StorageError."""
        manifest = Manifest.open(storage, id)
        if recipe is None or _definition(recipe) == _definition(manifest.recipe):
            return cls(manifest, manifest.recipe, published=True)
        return cls(manifest, recipe, published=False)

    @property
    def key(self) -> str:
        """Sixteen hex digits that tell one recipe of one manifest from others."""
        return digest([self.manifest.id, _definition(self.recipe)])[:16]

    def downloaded(self, column: str | None = None) -> Iterator[pa.RecordBatch]:
        """The pairs that have a picture, in ledger order: uid, caption, shard, member, sha256, kept, dropped_by; and
        for each filter, in the column `without(name)`, whether the recipe would keep the pair if it did not have it.

        The whole recipe is asked again: `distinct` looks at the pairs that come back, and `{rest}` is another.
        `column` is one of rows that is wanted besides, as `target`. Raises SourceError if there is none of that name.
        """
        known = self.manifest.columns.names
        if column is not None and column not in known:
            way = "name it in pairs.extra, and run `winnow curate`"
            raise SourceError(f"task.column: the rows have no column {column!r}{did_you_mean(column, known)} ({way})")
        also = f', "{column}" AS target' if column is not None else ""
        kept_without = {
            without(name): self.manifest.select(self.recipe.without(name))["uid"].combine_chunks()
            for name in self.recipe.reasons
        }
        verdicts, start = None if self.published else self.manifest.verdicts(self.recipe), 0
        with self.manifest.connection() as con:
            for batch in con.sql(
                f"SELECT uid, caption, shard, member, sha256, kept, dropped_by{also} FROM rows WHERE status = 'ok'"
            ).to_arrow_reader(ROW_GROUP):
                updated = batch if verdicts is None else _with_verdicts(batch, verdicts.slice(start, len(batch)))
                for name, uids in kept_without.items():
                    updated = updated.append_column(name, pc.is_in(batch["uid"], value_set=uids))
                yield updated
                start += len(batch)


def _definition(recipe: Recipe) -> list[Any]:
    """All of a recipe that decides what it keeps."""
    return [[[each.name, each.sql] for each in recipe.filters], asdict(recipe.distinct) if recipe.distinct else None]


def _with_verdicts(batch: pa.RecordBatch, verdicts: pa.Table) -> pa.RecordBatch:
    """The same rows with other verdicts. Raises StorageError if these are of other rows."""
    if not pc.all(pc.equal(batch["uid"], verdicts["uid"].combine_chunks())).as_py():
        raise StorageError("the verdicts of a recipe came in another order than the rows: report this")
    for name in ("kept", "dropped_by"):
        place = batch.schema.get_field_index(name)
        batch = batch.set_column(place, name, verdicts[name].combine_chunks())
    return batch


def draw(pool: pa.Table, seed: int, filters: Sequence[str] = ()) -> dict[str, pa.Array]:
    """The uids of each arm, with repetitions, in ledger order: those of ARMS, one without each of `filters`, as many.

    `pool` has the columns uid, kept and `without(name)` of each filter: what may be trained on, without the pairs whose
    picture is in the test set. The same pool and seed give the same "raw", whatever was kept.

    Each "random" arm is what a filter that looks at nothing would have kept: for each seed another random subset of
    the pool's rows, cut from the same resample, with as many pairs as the arm that it is the control of. A row that was
    drawn twice is in it twice (but for the last one), so that rows repeat in both arms alike.
    """
    generator = np.random.default_rng([seed, len(pool)])
    sample = np.sort(generator.integers(len(pool), size=len(pool))) if len(pool) else np.zeros(0, np.int64)
    rows = {"raw": sample}
    columns = {"filtered": "kept"} | {without(name): without(name) for name in filters}
    for arm, column in columns.items():
        rows[arm] = sample[pool[column].to_numpy()[sample]]
        rows[control_of(arm)] = _control(
            sample, len(rows[arm]), np.random.default_rng([seed, len(pool), *arm.encode()])
        )
    return {arm: pool["uid"].take(pa.array(drawn)).combine_chunks() for arm, drawn in rows.items()}


def _control(sample: Rows, size: int, generator: np.random.Generator) -> Rows:
    """`size` draws of a resample, in order: those of whole rows, in a random order of rows, until there are enough."""
    place = generator.permutation(len(sample))[sample]
    return np.sort(sample[np.argsort(place, kind="stable")[:size]])


def count_draws(drawn: Mapping[str, pa.Array]) -> pa.Table:
    """What was drawn as a table of uid, arm, and how many times."""
    return pa.concat_tables(_count_arm(arm, uids) for arm, uids in drawn.items())


def _count_arm(arm: str, uids: pa.Array) -> pa.Table:
    times = pc.value_counts(uids)
    arms = pa.repeat(pa.scalar(arm), len(times))
    return pa.table({"uid": times.field("values"), "arm": arms, "times": times.field("counts")})
