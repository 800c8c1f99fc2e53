"""The uids of each arm of a comparison. Filters are evaluated here, so that training reads uids only.

For each seed the pool is resampled with replacement, and every arm is a part of the same resample. So the arms of one
seed are paired, and seeds vary the data as well as the learner.
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
from pipeline.manifest.document import selection_json
from pipeline.manifest.manifest import Manifest
from pipeline.store.digests import digest
from pipeline.store.parquet import ROW_GROUP
from pipeline.store.storage import Storage

Rows = npt.NDArray[np.int64]
"""Rows of the pool, with repetitions."""

ARMS = ("raw", "filtered", "random")
"""The whole resample, its pairs that the manifest keeps, and its pairs in a random subset of the pool of that size."""


def without(name: str) -> str:
    """The arm of the pairs that the recipe would keep without that filter."""
    return f"without-{name}"


def control_of(arm: str) -> str:
    """The control of another arm: a random subset of the pool, of the same size."""
    return "random" if arm == "filtered" else f"random-{arm}"


@dataclass(frozen=True)
class Choice:
    """A manifest's pairs, and the recipe that decides which of them are kept: the published one, or another."""

    manifest: Manifest
    recipe: Recipe
    published: bool

    @classmethod
    def open(cls, storage: Storage, id: str | None = None, recipe: Recipe | None = None) -> Self:  # noqa: A002
        """The manifest that `id` names, with its own recipe or another. Raises StorageError."""
        manifest = Manifest.open(storage, id)
        if recipe is None or _definition(recipe) == _definition(manifest.recipe):
            return cls(manifest, manifest.recipe, published=True)
        return cls(manifest, recipe, published=False)

    @property
    def key(self) -> str:
        """Sixteen hex digits that identify a recipe of a manifest."""
        return digest([self.manifest.id, _definition(self.recipe)])[:16]

    def downloaded(
        self, column: str | None = None, question: str | None = None, recaption: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """The pairs that have a picture, in ledger order: uid, caption, shard, member, sha256, kept and dropped_by.

        The column `without(name)` of each filter tells whether the recipe would keep the pair without that filter. The
        whole recipe is evaluated again for it, because `distinct` then compares more pairs and `{rest}` differs. If the
        recipe keeps pairs more than once, `copies` tells how often, and so does `without(name)`: uint16.
        `column` is a further column of rows, returned as `target`, and `question` and `recaption` are columns that are
        returned as these. Raises SourceError for one that does not exist.
        """
        known, also = self.manifest.columns.names, ""
        for name, place, called in (
            (column, "column", "target"),
            (question, "vqa.question", "question"),
            (recaption, "budget.recaption", "recaption"),
        ):
            if name is not None and name not in known:
                way = "name it in pairs.extra, and run `winnow curate`"
                raise SourceError(f"task.{place}: the rows have no column {name!r}{did_you_mean(name, known)} ({way})")
            also += f', "{name}" AS "{called}"' if name is not None else ""
        also += ", copies" if self.recipe.repeats else ""
        kept_without = {without(name): self.manifest.select(self.recipe.without(name)) for name in self.recipe.reasons}
        verdicts, start = None if self.published else self.manifest.verdicts(self.recipe), 0
        with self.manifest.connection() as con:
            for batch in con.sql(
                f"SELECT uid, caption, shard, member, sha256, kept, dropped_by{also} FROM rows WHERE status = 'ok'"
            ).to_arrow_reader(ROW_GROUP):
                updated = batch if verdicts is None else _with_verdicts(batch, verdicts.slice(start, len(batch)))
                for name, chosen in kept_without.items():
                    updated = updated.append_column(name, _copies(batch["uid"], chosen))
                yield updated
                start += len(batch)


def _definition(recipe: Recipe) -> list[Any]:
    """The part of a recipe that decides what it keeps."""
    distinct = asdict(recipe.distinct) if recipe.distinct else None
    selection = [selection_json(recipe.selection)] if recipe.selection else []
    return [[[each.name, each.sql] for each in recipe.filters], distinct, *selection]


def _with_verdicts(batch: pa.RecordBatch, verdicts: pa.Table) -> pa.RecordBatch:
    """The same rows with other verdicts. Raises StorageError if the verdicts belong to other rows."""
    if not pc.all(pc.equal(batch["uid"], verdicts["uid"].combine_chunks())).as_py():
        raise StorageError("the verdicts of a recipe are not in the order of the rows: report this")
    for name in {"kept", "dropped_by", "copies"} & set(batch.schema.names):
        place = batch.schema.get_field_index(name)
        batch = batch.set_column(place, name, verdicts[name].combine_chunks())
    return batch


def _copies(uids: pa.Array, chosen: pa.Table) -> pa.Array:
    """Whether each uid is in the table of `Manifest.select`; or how often, if it has `copies`."""
    known = chosen["uid"].combine_chunks()
    if "copies" not in chosen.column_names:
        return pc.is_in(uids, value_set=known)
    return pc.fill_null(chosen["copies"].combine_chunks().take(pc.index_in(uids, value_set=known)), 0)


def draw(pool: pa.Table, seed: int, filters: Sequence[str] = ()) -> dict[str, pa.Array]:
    """The uids of each arm, with repetitions, in ledger order: of ARMS, of an arm without each filter, of its control.

    `pool` has the columns uid, kept and `without(name)` of each filter. It has the pairs that may be trained on,
    without those whose picture is in the test set. The same pool and seed give the same "raw", whatever was kept.

    Each "random" arm has the pairs that a blind filter would keep: for each seed another random subset of the pool's
    rows, from the same resample, with as many pairs as the arm that it controls for. A row that was drawn twice is in
    it twice (except possibly the last one), so that rows repeat equally in both arms.

    If the recipe keeps pairs more than once, `pool` has the column `copies`. "filtered" then has each row so many times
    as often, and its control has random rows, each repeated as often as some kept row, drawn at random.
    """
    generator = np.random.default_rng([seed, len(pool)])
    sample = np.sort(generator.integers(len(pool), size=len(pool))) if len(pool) else np.zeros(0, np.int64)
    rows = {"raw": sample}
    filtered = "copies" if "copies" in pool.column_names else "kept"
    columns = {"filtered": filtered} | {without(name): without(name) for name in filters}
    for arm, column in columns.items():
        copies = pool[column].to_numpy().astype(np.int64)
        rows[arm] = np.repeat(sample, copies[sample])
        own = np.random.default_rng([seed, len(pool), *arm.encode()])
        blind = sample if copies.max(initial=0) < 2 else _repeated_blindly(sample, copies, own)
        rows[control_of(arm)] = _control(blind, len(rows[arm]), own, len(pool))
    return {arm: pool["uid"].take(pa.array(drawn)).combine_chunks() for arm, drawn in rows.items()}


def _repeated_blindly(sample: Rows, copies: Rows, generator: np.random.Generator) -> Rows:
    """The draws of a resample, those of a row as many times as a random kept row has copies. At least as many as the
    kept rows have."""
    times = generator.choice(copies[copies > 0], len(copies))
    blind = np.repeat(sample, times[sample])
    missing = max(int(copies[sample].sum()) - len(blind), 0)
    return np.concatenate([blind, np.resize(blind, missing)])


def _control(sample: Rows, size: int, generator: np.random.Generator, pool: int) -> Rows:
    """The first `size` draws of a resample of the pool by a random order of its rows, sorted.

    Draws of a row stay together.
    """
    place = generator.permutation(pool)[sample]
    return np.sort(sample[np.argsort(place, kind="stable")[:size]])


def count_draws(drawn: Mapping[str, pa.Array]) -> pa.Table:
    """The draws as a table of uid, arm, and how many times the uid was drawn."""
    return pa.concat_tables(_count_arm(arm, uids) for arm, uids in drawn.items())


def _count_arm(arm: str, uids: pa.Array) -> pa.Table:
    times = pc.value_counts(uids)
    arms = pa.repeat(pa.scalar(arm), len(times))
    return pa.table({"uid": times.field("values"), "arm": arms, "times": times.field("counts")})
