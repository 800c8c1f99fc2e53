"""The speed of downloads on this machine, beside img2dataset's, from a server of its own on loopback.

Each repeat measures in turn: winnow with all cores, img2dataset with a process for each core, and winnow with one core.
All fetch the same URLs and store JPEGs of the same size and quality. img2dataset resizes by area and winnow with its
default. No figure contains the start of the programs. winnow's includes all its guards, robots.txt and the store.
"""

import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipeline.bench import synthetic
from pipeline.errors import WinnowError
from pipeline.images import decoding
from pipeline.images.limits import Limits
from pipeline.process import lifeline, machine
from pipeline.settings.download import Download

DISTINCT = 64
"""Different pictures. The server sends them again and again."""

SHARDS = 4
"""Shards for each core."""


@dataclass(frozen=True)
class Workload:
    """`pictures` of `side` px at the shorter side, from a server that waits for `delay` seconds, `repeats` times."""

    pictures: int = 4000
    side: int = 480
    delay: float = 0.0
    repeats: int = 3


@dataclass(frozen=True)
class Side:
    """One measurement: seconds for all pictures, processor seconds by part, and connections that the server got."""

    pictures: int
    seconds: float
    processor: Mapping[str, float]
    connections: int

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.pictures / self.seconds


@dataclass(frozen=True)
class Repeat:
    """One after another: winnow, img2dataset, and winnow with one core, where a process can be held to one."""

    winnow: Side
    img2dataset: Side
    alone: Side | None


def run(workload: Workload, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure, and call `tell` with each step. Rates are medians, and a ratio the median of those in each repeat."""
    load, cores = os.getloadavg()[0], machine.cores()
    with tempfile.TemporaryDirectory(prefix="winnow-bench-") as folder:
        bench = Bench(workload, Path(folder), cores)
        repeats = []
        with bench.server():
            for number in range(1, workload.repeats + 1):
                tell(f"repeat {number} of {workload.repeats}")
                repeats.append(bench.once(number))
        phases = bench.phases()
        about = {
            "phases": phases,
            "kilobytes": round(bench.bytes / 1000),
            "processor": machine.processor(),
            "cores": cores,
            "load": [round(load, 2), round(os.getloadavg()[0], 2)],
        }
    return figures(repeats, cores, phases) | {"plan": asdict(workload)} | about


def figures(repeats: Sequence[Repeat], cores: int, phases: Mapping[str, float]) -> dict[str, Any]:
    """Medians over the repeats. `seconds_per_picture` has the parts of the time of all cores.

    `phases` are seconds of decoding one picture alone, by step: they divide the decoders' part.
    """

    def middle(value: Callable[[Repeat], float]) -> float:
        return float(f"{median(map(value, repeats)):.4g}")

    found: dict[str, Any] = {
        "pictures_per_second": middle(lambda each: each.winnow.rate),
        "img2dataset_per_second": middle(lambda each: each.img2dataset.rate),
        "ratio_to_img2dataset": middle(lambda each: each.winnow.rate / each.img2dataset.rate),
        "connections": middle(lambda each: each.winnow.connections),
        "img2dataset_connections": middle(lambda each: each.img2dataset.connections),
        "seconds_per_picture": _parts(lambda part: middle(lambda each: _share(each.winnow, part)), phases)
        | {
            "idle": middle(
                lambda each: max(
                    0, cores / each.winnow.rate - sum(each.winnow.processor.values()) / each.winnow.pictures
                )
            )
        },
    }
    if all(each.alone for each in repeats):
        found["alone_per_second"] = middle(lambda each: each.alone.rate if each.alone else 0)
        found["scaling"] = middle(lambda each: each.winnow.rate / each.alone.rate if each.alone else 0)
    return found


def _share(side: Side, part: str) -> float:
    return side.processor[part] / side.pictures


def _parts(share: Callable[[str], float], phases: Mapping[str, float]) -> dict[str, float]:
    """The server, requests, and the steps of decoding; what the decoders take beyond these is their connections."""
    decoders = share("decoders")
    whole = sum(phases.values())
    scale = min(1.0, decoders / whole)
    return {
        "server": share("server"),
        "requests, files": share("downloads"),
        "hosts": share("hosts"),
        **{step: scale * seconds for step, seconds in phases.items()},
        "to and from decoders": max(0.0, decoders - whole),
    }


class Bench:
    """A server, lists of its URLs, and the programs that fetch them."""

    def __init__(self, workload: Workload, folder: Path, cores: int) -> None:
        self._workload, self._folder, self._cores = workload, folder, cores
        self._pictures = folder / "pictures"
        self._pictures.mkdir()
        for number in range(DISTINCT):
            (self._pictures / f"{number:03d}.jpg").write_bytes(synthetic.jpeg(number, workload.side)[0])
        self.bytes = sum(path.stat().st_size for path in self._pictures.iterdir()) / DISTINCT
        self._size = -(-workload.pictures // (SHARDS * cores))
        self.port = 0

    @contextlib.contextmanager
    def server(self) -> Iterator[None]:
        """Serve meanwhile, from a process of its own."""
        command = lifeline.python("pipeline.bench.picture_server", str(self._pictures), str(self._workload.delay))
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            self.port = int(process.stdout.readline())
            try:
                yield
            finally:
                process.kill()

    def once(self, number: int) -> Repeat:
        """Measure each in turn. One core gets its share of the pictures."""
        whole = self._workload.pictures
        return Repeat(
            self._side("winnow", number, whole, self._cores),
            self._side("img2dataset", number, whole, self._cores),
            self._side("winnow", number, whole // self._cores, 1) if hasattr(os, "sched_setaffinity") else None,
        )

    def phases(self) -> dict[str, float]:
        """Seconds of decoding, resizing and encoding one picture, in this process."""
        limits = Limits.of(Download())
        spent = dict.fromkeys(("decode", "resize", "encode"), 0.0)
        for path in self._pictures.iterdir():
            data, times = path.read_bytes(), [time.perf_counter()]
            with Image.open(BytesIO(data)) as image:
                size = decoding.load(image, limits)
                times.append(time.perf_counter())
                small = decoding.resize(image, size, limits)
                times.append(time.perf_counter())
                decoding.encode(small, limits)
                times.append(time.perf_counter())
            for step, (began, ended) in zip(spent, itertools.pairwise(times), strict=True):
                spent[step] += (ended - began) / DISTINCT
        return spent

    def _side(self, name: str, number: int, pictures: int, cores: int) -> Side:
        folder = self._folder / f"{name}-{number}-{cores}"
        folder.mkdir()
        listed = folder / "pairs.parquet"
        count = pictures + self._size  # the first shard starts the programs and does not count
        urls = [f"http://127.0.0.1:{self.port}/{each}/{number}.jpg" for each in range(count)]
        pq.write_table(pa.table({"url": urls, "caption": list(map(str, range(count)))}), listed)
        before = self._ask("processor"), self._ask("connections")
        done = subprocess.run(
            lifeline.python("pipeline.bench.download_sides", name, str(listed), str(self._size), str(cores)),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WinnowError(f"{name} failed: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
        found = json.loads(done.stdout.splitlines()[-1])
        served = (self._ask("processor") - before[0]) * found["pictures"] / count
        return Side(
            found["pictures"],
            found["seconds"],
            found["processor"] | {"server": served},
            round(self._ask("connections") - before[1]),
        )

    def _ask(self, what: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{what}/") as answer:
            return float(answer.read())
