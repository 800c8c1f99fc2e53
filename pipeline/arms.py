"""{arm: uids} for a comparison. What was kept is asked here, so that training is given uids and never filters.

For each seed the pool is resampled with replacement, and every arm is cut from the same resample: arms of one seed
are paired, and seeds vary the data, not only the learner.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.manifest import Manifest

ARMS = ("raw", "filtered", "random")
"""All of the resample; those of it that the manifest kept; as many as those, taken blindly."""


def downloaded(manifest: Manifest) -> Iterator[pa.RecordBatch]:
    """The pairs that have a picture, in ledger order: uid, caption, shard, member, sha256, kept."""
    with manifest.connection() as con:
        yield from con.sql(
            "SELECT uid, caption, shard, member, sha256, kept FROM rows WHERE status = 'ok'"
        ).to_arrow_reader(65_536)


def draw(pool: pa.Table, seed: int, leaked: pa.Array) -> dict[str, pa.Array]:
    """The uids of each arm, with repetitions, in ledger order.

    `pool` has the columns uid and kept: what can be trained on. `leaked` are uids whose picture is in the test set:
    they are in no arm, and the resample has as many pairs as the pool has without them. The same pool, seed and leaked
    give the same "raw", whatever was kept.
    """
    pool = pool.filter(pc.invert(pc.is_in(pool["uid"], value_set=leaked)))
    generator = np.random.default_rng([seed, len(pool)])
    sample = np.sort(generator.integers(len(pool), size=len(pool))) if len(pool) else np.zeros(0, np.int64)
    filtered = sample[pool["kept"].to_numpy()[sample]]
    blind = np.sort(generator.choice(len(sample), size=len(filtered), replace=False))
    rows = {"raw": sample, "filtered": filtered, "random": sample[blind]}
    return {arm: pool["uid"].take(pa.array(rows[arm])).combine_chunks() for arm in ARMS}
