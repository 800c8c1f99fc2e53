"""The programs that `pipeline.bench.downloading` measures, each in a process of its own.

Run as `python -m pipeline.bench.download_sides winnow|img2dataset LIST SHARD_SIZE CORES`. The last line of the output
is a JSON object: pictures, seconds, and processor seconds by part.
"""

import contextlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pyarrow.parquet as pq

from pipeline.download.download import THREADS, Downloading
from pipeline.engine.local import run_wide
from pipeline.ledger import ingest
from pipeline.settings.download import Download
from pipeline.sources.source import Source
from pipeline.store.storage import Storage


def winnow(listed: Path, shard_size: int, cores: int) -> dict[str, Any]:
    """Download with every guard on. The first shard starts the processes and does not count."""
    place = urlsplit(pq.read_table(listed, columns=["url"])["url"][0].as_py()).netloc
    settings = {"shard_size": shard_size, "allow_hosts": [place], "per_host": THREADS * cores}
    source = Source.model_validate({"name": "bench", "pairs": {"location": str(listed)}, "download": settings})
    storage = Storage(listed.parent / "store")
    first, *shards = ingest.update(source, storage).shards
    with Downloading(source, storage) as downloading:
        downloading(first)
        before, began = _processor(), time.perf_counter()
        for _, error in run_wide(downloading, shards):
            if error:
                raise error
        seconds = time.perf_counter() - began
        spent = _processor() - before
    return {"pictures": sum(shard.rows for shard in shards), "seconds": seconds, "processor": spent}


def img2dataset(listed: Path, shard_size: int, cores: int) -> dict[str, Any]:
    """As many processes as cores, and as many threads in each as winnow has for a core."""
    from img2dataset import download

    settings, folder = Download(), listed.parent / "out"
    download(
        url_list=str(listed),
        input_format="parquet",
        caption_col="caption",
        output_folder=str(folder),
        output_format="webdataset",
        processes_count=cores,
        thread_count=THREADS,
        image_size=settings.image_size,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=settings.quality,
        number_sample_per_shard=shard_size,
        enable_wandb=False,
    )
    each = [json.loads(path.read_text()) for path in folder.glob("*_stats.json")]
    counted = [shard for shard in each if shard["successes"]]
    return {
        "pictures": sum(shard["successes"] for shard in counted),
        "seconds": max(shard["end_time"] for shard in counted) - min(shard["start_time"] for shard in counted),
        "processor": {},
    }


def _processor() -> Counter[str]:
    """Processor seconds of this process and all below it, those that ended included, by what they do."""
    spent: Counter[str] = Counter({"downloads": 0.0, "decoders": 0.0, "hosts": 0.0})
    for process in (own := psutil.Process(), *own.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # a shard that ends just now
            times, command = process.cpu_times(), " ".join(process.cmdline())
            seconds = times.user + times.system
            if "decode_process" in command:
                spent["decoders"] += seconds
            elif "download.worker" in command and "download.worker" in " ".join(process.parent().cmdline()):
                spent["hosts"] += seconds
            else:
                spent["downloads"] += seconds + times.children_user + times.children_system
    return spent


if __name__ == "__main__":
    side, listed, shard_size, cores = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    print(json.dumps({"winnow": winnow, "img2dataset": img2dataset}[side](Path(listed), int(shard_size), int(cores))))
