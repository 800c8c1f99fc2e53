"""How long the page of `winnow explore` waits: python tests/benchmarks/explore.py [ROWS]

Reads a synthetic manifest (1,000,000 rows unless told otherwise, with 20 more score columns than that of `winnow bench
--choose`), then asks what the page asks while somebody drags a slider, over HTTP on loopback, and prints the median and
the worst of many answers in milliseconds.
"""

import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
from choose import timed

from filters.core import Filter
from pipeline.bench import choosing, synthetic_manifest
from pipeline.manifest.document import StageKeys
from pipeline.manifest.manifest import Manifest
from pipeline.pages.explore import app
from pipeline.pages.explore.explorer import Choice, Explorer
from pipeline.pages.explore.rows import Rows
from pipeline.process import machine
from pipeline.store.storage import Storage

MORE = 20
STEPS = 60


def wide(start, count):
    """More scores, where to find the picture, and what else the page reads."""
    table = synthetic_manifest.table(start, count)
    generator = np.random.default_rng(start + 1)
    ok = pa.compute.equal(table["status"], "ok")
    missing = ~np.asarray(ok)
    for number in range(MORE):
        values = generator.normal(number, 1, count).astype(np.float32)
        table = table.append_column(f"score_{number}", pa.array(values, mask=missing))
    table = table.append_column("shard", pa.array(np.arange(start, start + count) // 1000, pa.int32()))
    return table.append_column("member", pa.array([f"{n % 1000:05d}.jpg" for n in range(start, start + count)]))


def manifest(store, total):
    """A published one with these rows; the scorers of its columns are named, so that they get histograms."""
    found = synthetic_manifest.publish_rows(store, total, choosing.RECIPE, make=wide)
    stages = StageKeys("", dict.fromkeys(("captions", "clip", "pixels", "more", "score"), "none"))
    inputs = replace(found.document.inputs, stages=stages)
    made = Manifest(store, found.id, replace(found.document, inputs=inputs))
    scores = [name for name in made.columns.names if name.partition("_")[0] in stages.scores]
    vars(made)["card"] = {**found.card, "ranges": dict.fromkeys(scores)}
    return made


def asked(client, question, what):
    """Milliseconds of each answer, by the clock and of the processor."""
    clock, processor = [], []
    for number in range(STEPS):
        body = question(number)
        started, used = time.perf_counter(), time.process_time()
        client.post(f"/api/{what}", json=body).raise_for_status()
        clock.append((time.perf_counter() - started) * 1000)
        processor.append((time.process_time() - used) * 1000)
    return clock, processor


def told(what, taken):
    clock, processor = taken
    print(
        f"{statistics.median(clock):8.0f} ms  {what} (worst {max(clock):.0f}, first {clock[0]:.0f}; "
        f"of the processor {statistics.median(processor):.0f})",
        flush=True,
    )


def main(total):
    with tempfile.TemporaryDirectory() as folder:
        store = Storage(Path(folder))
        with timed(f"write {total:,} rows"):
            found = manifest(store, total)
        with timed("winnow explore reads them"), store.scratch() as scratch:
            held = Rows(found, scratch)
        with app.listening(Explorer(held, [Choice("published", choosing.RECIPE)]), 0) as (address, answer, end):
            server = threading.Thread(target=answer)
            server.start()
            base, token = address.split("/#")
            headers = {"Authorization": f"Bearer {token}"}
            try:
                with httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as client:
                    ask(client, held)
            finally:
                end()
                server.join()
        held.close()
        print(f"{machine.peak_memory_mb() / 1024:.1f} GB of memory at most")


def ask(client, held):
    others = [
        {"name": each.name, "sql": each.sql, "why": ""}
        for each in (*choosing.RECIPE.filters, Filter("pretty", "score_1 >= 1"))
    ]

    def dragged(number, first=0.05, step=0.001):
        moving = {"name": "moving", "sql": f"score_0 >= {first - 1 + step * number:.4f}", "why": ""}
        return {"filters": [*others[1:], moving]}

    print(f"{len(held.axes)} histograms, {held.pool:,} downloaded pairs")
    told("a slider moves by a little", asked(client, dragged, "funnel"))
    told("a slider jumps", asked(client, lambda n: dragged(n, step=(-1) ** n * n / 30), "funnel"))
    share = "clip_similarity >= (SELECT quantile_cont(clip_similarity, {}) FROM rows)"
    told(
        "the slider of a quantile moves",
        asked(
            client,
            lambda n: {"filters": [*others[:4], {"name": "q", "sql": share.format(0.3 + n / 200), "why": ""}]},
            "funnel",
        ),
    )
    told(
        "the same, against another recipe",
        asked(client, lambda n: dragged(n, 0.5) | {"other": {"filters": others}}, "funnel"),
    )
    shown = {"show": "kept", "edge": "", "text": "", "unlabelled": False, "start": 0}
    told("24 kept pairs", asked(client, lambda n: dragged(1) | shown | {"seed": n // 8}, "pairs"))
    at = {"show": "edge", "edge": "moving", "seed": 0}
    told("24 pairs at a line", asked(client, lambda n: dragged(n) | shown | at, "pairs"))
    told(
        "24 pairs with a text",
        asked(client, lambda n: dragged(1) | shown | {"text": f"{n // 4}", "seed": 0}, "pairs"),
    )
    told("one pair", asked(client, lambda n: dragged(1) | {"place": n * 1000}, "pair"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
