"""Which columns of a manifest's rows are scores."""

import pyarrow.parquet as pq

from pipeline.manifest.manifest import Manifest


def score_columns(manifest: Manifest) -> frozenset[str]:
    """The names of the score columns, as the manifest's card (numbers) and the stored results (all types) list them.

    Names are not parsed, because an extra column may begin like a score column.
    """
    found = set(manifest.card["ranges"])
    for name, key in manifest.stages.scores.items():
        for result in manifest.storage.find(f"scores/{name}-{key}/[0-9]*.parquet")[:1]:
            found |= set(pq.read_schema(manifest.storage.fetch(result)).names)
    return frozenset(found - {"uid"})
