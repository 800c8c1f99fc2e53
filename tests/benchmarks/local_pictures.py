"""Pictures a second that are taken from tars on this machine, against one core that decodes the same pictures.

PYTHONPATH=.:tests python tests/benchmarks/local_pictures.py [PICTURES] measures pictures that are referred to (256 px)
and pictures that are made smaller (640 x 480), in turn with the decoding alone, and the peak memory of all processes.
"""

import io
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import webdataset_tars
from PIL import Image

from pipeline.download import by_source
from pipeline.engine import local
from pipeline.images.decoding import decode
from pipeline.images.limits import Limits
from pipeline.ledger import ingest
from pipeline.sources import loading
from pipeline.store.storage import Storage

DISTINCT = 50
REPEATS = 3


def photograph(seed, size):
    """Smooth colours with a little noise: about as many bytes as a photograph."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3)).astype(np.uint8))
    pixels = np.asarray(small.resize(size, Image.Resampling.BICUBIC)).astype(int) + rng.integers(
        -8, 9, (*size[::-1], 3)
    )
    data = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "JPEG", quality=90)
    return data.getvalue()


def source(folder, pictures, count, per_tar=2000):
    for start in range(0, count, per_tar):
        members = []
        for number in range(start, min(count, start + per_tar)):
            values = {"url": f"http://host/{number}.jpg", "caption": f"picture number {number}", "key": f"{number:09d}"}
            members.append((f"{number:09d}.jpg", pictures[number % len(pictures)]))
            members.append((f"{number:09d}.json", json.dumps(values).encode()))
        webdataset_tars.tar(folder / "in" / f"{start // per_tar:05d}.tar", members)
    (folder / "mine.toml").write_text('[pairs]\nshards = "in"\n')
    return loading.load(folder / "mine.toml")


def one_core(pictures, limits):
    """Pictures a second, and a second of processor time."""
    started, used, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < 3:
        for each in pictures:
            decode(each, limits, lambda picture: picture)
        done += len(pictures)
    return done / (time.perf_counter() - started), done / (time.process_time() - used)


class Memory(threading.Thread):
    """The peak of the proportional set size of this process's descendants, in MiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.done = 0.0, threading.Event()

    def run(self):
        while not self.done.wait(0.2):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_full_info().pss
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.peak = max(self.peak, total / 2**20)


def processor_seconds():
    """Of all processes below this one, and of those that have ended."""
    return sum(sum(process.cpu_times()[:4]) for process in psutil.Process().children(recursive=True))


def taking(described, storage):
    """Pictures a second, without the start of the processes; a second of processor time; peak memory; bytes stored."""
    ledger = ingest.update(described, storage)
    memory = Memory()
    memory.start()
    with by_source.fetching(described, storage) as work:
        work(ledger.shards[0])
        rest = ledger.shards[1:]
        before = processor_seconds()
        started = time.perf_counter()
        for _, error in local.run_wide(work, rest):
            assert error is None, error
        seconds = time.perf_counter() - started
        processor = processor_seconds() - before
    memory.done.set()
    stage = by_source.stage(described)
    rows = [pq.read_table(storage.fetch(stage.item(shard.number, ".parquet"))) for shard in rest]
    assert all(set(each["status"].to_pylist()) == {"ok"} for each in rows)
    stored = sum(storage.size(stage.item(shard.number, ".tar")) for shard in rest)
    return sum(map(len, rows)) / seconds, sum(map(len, rows)) / processor, memory.peak, stored / sum(map(len, rows))


def main(count):
    for size in ((256, 256), (640, 480)):
        pictures = [photograph(seed, size) for seed in range(DISTINCT)]
        with tempfile.TemporaryDirectory() as folder:
            described = source(Path(folder), pictures, count)
            limits = Limits(256, 95, 50_000_000, keep_plain=True)
            Image.init()
            for repeat in range(REPEATS):
                alone, alone_of_processor = one_core(pictures, limits)
                rate, of_processor, peak, stored = taking(described, Storage(Path(folder) / f"data{repeat}"))
                print(
                    f"{size[0]}x{size[1]}, {sum(map(len, pictures)) // DISTINCT:,} B, load {os.getloadavg()[0]:.1f}: "
                    f"one core {alone:.0f}/s ({alone_of_processor:.0f} of processor time), taken {rate:.0f}/s "
                    f"({of_processor:.0f}) on {len(os.sched_getaffinity(0))} cores, ratio {rate / alone:.2f} "
                    f"({of_processor / alone_of_processor:.2f}); peak {peak:.0f} MiB, {stored:.0f} bytes stored",
                    flush=True,
                )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6000)
