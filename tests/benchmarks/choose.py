"""How long what follows choosing takes: python tests/benchmarks/choose.py [ROWS]

Makes up the manifest of `winnow bench --choose` (1,000,000 rows of 20 columns unless told otherwise), then prints the
seconds for a funnel of several recipes, publishing another, a diff, an audit, and queries typed by a person.
"""

import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from pipeline.bench import choosing, synthetic_manifest
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.process import machine
from pipeline.query import sandbox
from pipeline.query.named import QUERIES
from pipeline.review import audit, diff
from pipeline.store.storage import Storage


@contextmanager
def timed(what):
    started = time.perf_counter()
    yield
    print(f"{time.perf_counter() - started:8.2f} s  {what}", flush=True)


def main(total):
    with tempfile.TemporaryDirectory() as folder:
        store = Storage(Path(folder))
        with timed(f"make {total:,} rows, and publish them"):
            manifest = synthetic_manifest.publish_rows(store, total, choosing.RECIPE)
        others = [choosing.RECIPE.without(each.name) for each in choosing.RECIPE.filters]
        with timed(f"funnel of {len(others)} recipes side by side"):
            manifest.compare(others)
        with timed("publish another recipe from what is there"):
            publish.republish(store, others[-1])
        with timed("diff of the two"):
            diff.between(Manifest.open(store, "-2"), Manifest.open(store, "-1"), 5)
        with timed("audit"):
            audit.audit(manifest, choosing.RECIPE)
        with timed("winnow sql: count and mean by verdict"):
            sandbox.run("SELECT kept, count(*), avg(clip_similarity) FROM rows GROUP BY kept", [store])
        with timed("winnow sql: history"):
            sandbox.run(QUERIES["flipped"].sql, [store])
        print(f"{machine.peak_memory_mb():,} MiB at most")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
