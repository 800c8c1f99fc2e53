"""{arm: uids} for a comparison. What was kept is asked here, so that training is given uids and never filters.

For each seed the pool is resampled with replacement, and every arm is cut from the same resample: arms of one seed
are paired, and seeds vary the data, not only the learner.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.manifest import Manifest

ARMS = ("raw", "filtered", "random")
"""All of the resample; those of it that the manifest kept; as many as those, taken blindly."""


def without(name: str) -> str:
    """The arm that the manifest would have kept if it had not had that filter."""
    return f"without-{name}"


def downloaded(manifest: Manifest) -> Iterator[pa.RecordBatch]:
    """The pairs that have a picture, in ledger order: uid, caption, shard, member, sha256, kept, dropped_by."""
    with manifest.connection() as con:
        yield from con.sql(
            "SELECT uid, caption, shard, member, sha256, kept, dropped_by FROM rows WHERE status = 'ok'"
        ).to_arrow_reader(65_536)


def dropped_alone(pool: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """Which pairs this filter drops and no other does, by the verdicts; having no answer is dropping, too.

    They are what would be kept besides if it were not there. (A recipe's `distinct` never looked at those that a filter
    drops: near-duplicates among them would come back together.)
    """
    alone: npt.NDArray[np.bool_] = pc.equal(pc.binary_join(pool["dropped_by"], ","), name).to_numpy()
    return alone


def draw(pool: pa.Table, seed: int, leaked: pa.Array, filters: Sequence[str] = ()) -> dict[str, pa.Array]:
    """The uids of each arm, with repetitions, in ledger order: those of ARMS, and one without each of `filters`.

    `pool` has the columns uid, kept and dropped_by: what can be trained on. `leaked` are uids whose picture is in the
    test set: they are in no arm, and the resample has as many pairs as the pool has without them. The same pool, seed
    and leaked give the same "raw", whatever was kept.
    """
    pool = pool.filter(pc.invert(pc.is_in(pool["uid"], value_set=leaked)))
    generator = np.random.default_rng([seed, len(pool)])
    sample = np.sort(generator.integers(len(pool), size=len(pool))) if len(pool) else np.zeros(0, np.int64)
    kept = pool["kept"].to_numpy()
    filtered = sample[kept[sample]]
    blind = np.sort(generator.choice(len(sample), size=len(filtered), replace=False))
    rows = {"raw": sample, "filtered": filtered, "random": sample[blind]}
    rows |= {without(name): sample[(kept | dropped_alone(pool, name))[sample]] for name in filters}
    return {arm: pool["uid"].take(pa.array(drawn)).combine_chunks() for arm, drawn in rows.items()}
