"""What a bucket costs beside a folder: `winnow curate` of the demo, and a funnel over a cached manifest.

python tests/benchmarks/bucket.py [REPEATS] [DELAY] prints one JSON object. The server is moto's, a Python program on
this machine, behind a proxy that waits DELAY milliseconds before each request. Each repeat curates into a folder, then
into a bucket, both new; the world of the demo is drawn before. The funnel is that of clip-top30, 30 times in turn.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import s3_server

from filters import catalog
from pipeline.manifest.manifest import Manifest
from pipeline.process import machine
from pipeline.store.places import place
from pipeline.store.storage import Storage


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def curate(root):
    command = [sys.executable, "-m", "flows", "curate", "demo", "--root", str(root)]
    subprocess.run(command, check=True, capture_output=True)


def main(repeats, delay):
    with tempfile.TemporaryDirectory() as scratch, s3_server.running() as server, s3_server.Proxy(server) as proxy:
        if delay:
            proxy.faults.append(lambda method, path: delay / 1000)
        os.environ.update(s3_server.variables(proxy.address), WINNOW_CACHE=f"{scratch}/cache")
        curate(Path(scratch, "first"))
        world = next(Path(scratch, "first", "demo").glob("demo-*"))
        took, requests = {"folder": [], "bucket": []}, []
        for number in range(repeats):
            folder, bucket = Path(scratch, f"folder-{number}"), s3_server.root(f"bucket-{number}")
            for store in (Storage(folder / "demo"), Storage(bucket / "demo").local):
                shutil.copytree(world, store.root / world.name)
            took["folder"].append(seconds(lambda root=folder: curate(root)))
            before = proxy.requests.total()
            took["bucket"].append(seconds(lambda root=bucket: curate(root)))
            requests.append(proxy.requests.total() - before)
        recipe = catalog.recipes()["clip-top30"]
        funnels = {"folder": [], "bucket": []}
        for _ in range(30):
            for name, root in (("folder", folder), ("bucket", place(str(bucket)))):
                manifest = Manifest.open(Storage(root / "demo"))
                funnels[name].append(seconds(lambda manifest=manifest: manifest.funnel(recipe)))
        answer = {
            "processor": machine.processor(),
            "cores": machine.cores(),
            "delay_ms": delay,
            "curate_s": {name: [round(each, 1) for each in found] for name, found in took.items()},
            "ratio": round(statistics.median(b / f for f, b in zip(*took.values(), strict=True)), 2),
            "requests": statistics.median(requests),
            "funnel_ms": {name: round(1000 * statistics.median(found), 1) for name, found in funnels.items()},
        }
        print(json.dumps(answer))


if __name__ == "__main__":
    main(int((sys.argv[1:] or ["3"])[0]), float((sys.argv[2:] or ["0"])[0]))
