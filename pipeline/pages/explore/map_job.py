"""The map of a manifest's pictures: computed once in a process of its own, and stored."""

import threading
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ModelError, WinnowError
from pipeline.manifest.manifest import Manifest
from pipeline.neighbours import plane
from pipeline.neighbours.kmeans import k_means
from pipeline.process.calls import Call, Limits
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage
from pipeline.uids import random_bits

VERSION = 1

SAMPLE = 200_000
"""Pairs on a map, at most: those with the lowest draws."""

FEWEST = 3
"""Pictures that a map needs."""

CLUSTERS, PICTURES = 12, 20
"""Colours of clusters, at most, and the pictures for each of them, at least."""

DEADLINE, MEMORY = 6 * 3600.0, 256 << 30
"""Seconds and bytes of addresses that the process may use."""


def stage(manifest: Manifest, scorer: str, method: plane.Method) -> Stage:
    """The stage of a map: it depends on the pairs and their embeddings, and not on other scores or the recipe."""
    made_by = {
        "version": VERSION,
        "method": method,
        "openTSNE": version("openTSNE") if method == "t-SNE" else None,
        "sample": SAMPLE,
        **of_pairs(manifest, scorer),
    }
    return Stage(f"maps/{scorer}", made_by)


def of_pairs(manifest: Manifest, scorer: str) -> dict[str, Any]:
    """What decides which pairs and embeddings a map shows, as JSON in `key.json` of its folder."""
    inputs = manifest.document.inputs
    return {
        "ledger": inputs.ledger.digest,
        "quarantined": list(inputs.quarantined),
        "pairs": manifest.counts.pool,
        "embeddings": f"{scorer}-{manifest.stages.scores[scorer]}",
    }


def compute(storage: Storage, name: str, scorer: str, method: plane.Method, told: Path) -> None:
    """Compute and store the map of the manifest `name`: uid, x, y, cluster. The file `told` has done and total steps.

    Raises ModelError for fewer than `FEWEST` pictures with an embedding.
    """
    manifest = Manifest.open(storage, name)

    def tell(done: int, total: int) -> None:
        told.write_text(f"{done} {total}", encoding="utf-8")

    uids = _sample(manifest)
    vectors = manifest.embeddings(scorer, uids).pictures[:]
    there = ~np.isnan(vectors[:, 0]) if vectors.size else np.zeros(len(vectors), bool)
    vectors, uids = vectors[there], uids.filter(pa.array(there))
    if len(vectors) < FEWEST:
        raise ModelError(f"{len(vectors)} pictures have an embedding of {scorer!r}, and a map needs {FEWEST}")
    points = plane.plane(vectors, method, tell)
    wide = vectors.astype(np.float32)
    centres = k_means(wide, min(CLUSTERS, max(1, len(wide) // PICTURES)), lambda done, total: None)
    cluster = (wide @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1)
    made = {"uid": uids, "x": points[:, 0], "y": points[:, 1], "cluster": pa.array(cluster, pa.int32())}
    of = stage(manifest, scorer, method)
    of.describe(storage)
    with storage.making(f"{of.folder}/map.parquet") as path:
        pq.write_table(pa.table(made), path)


def _sample(manifest: Manifest) -> pa.Array:
    """The uids of at most `SAMPLE` downloaded pairs, in the order of their draws."""
    rows = pa.concat_tables(pq.read_table(path, columns=["uid", "status"]) for path in manifest.row_files())
    uids = rows.filter(pc.equal(rows["status"], "ok"))["uid"].combine_chunks()
    drawn = random_bits("map", uids.to_pylist())
    return uids.take(pa.array(np.argsort(drawn, kind="stable")[:SAMPLE]))


class MapJob:
    """One map, which a process computes in the background unless it is stored. The process ends with this one."""

    def __init__(self, manifest: Manifest, scorer: str, scratch: Path) -> None:
        self.method = plane.method()
        self._manifest = manifest
        self._key = f"{stage(manifest, scorer, self.method).folder}/map.parquet"
        self._told = scratch / f"map-{scorer}"
        self._error: WinnowError | MemoryError | TimeoutError | None = None
        self._call: Call | None = None
        self._thread: threading.Thread | None = None
        if not manifest.storage.done(self._key):
            arguments = (manifest.storage, manifest.id, scorer, self.method, self._told)
            limits = Limits(DEADLINE, MEMORY)
            self._call = Call("pipeline.pages.explore.map_job:compute", *arguments, limits=limits)
            self._thread = threading.Thread(target=self._wait, args=(self._call,), daemon=True)
            self._thread.start()

    def table(self) -> pa.Table | None:
        """The map; None while it is computed. Raises ModelError if that failed."""
        if self._thread is not None and self._thread.is_alive():
            return None
        if self._error is not None:
            raise ModelError(f"there is no map: {self._error}")
        return pq.read_table(self._manifest.storage.fetch(self._key), partitioning=None)

    def progress(self) -> tuple[int, int]:
        """Steps that are done, and all of them; 0 and 0 before the first."""
        with suppress(OSError, ValueError):
            done, total = self._told.read_text(encoding="utf-8").split()
            return int(done), int(total)
        return 0, 0

    def close(self) -> None:
        """End the process, if it still computes."""
        if self._call is not None and self._thread is not None:
            self._call.stop()
            self._thread.join()

    def _wait(self, call: Call) -> None:
        try:
            call.result()
        except (WinnowError, MemoryError, TimeoutError) as error:
            self._error = error
