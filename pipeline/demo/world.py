"""The embedded source: a small world, rendered once on this machine, and served on loopback during each run."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.demo import captions, pool, web
from pipeline.demo.hold import hold
from pipeline.process import spawning
from pipeline.scenes import scenes
from pipeline.settings.pairs import Demo, Pairs
from pipeline.settings.task import TestSet
from pipeline.sources.loading import with_test_set
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.stage import Stage
from pipeline.store.storage import Storage

TEST_CAPTIONS = 5
"""Captions of each test picture. All of them name its main thing; the second thing is rarely in all of them."""

_BLOCK = 100  # pictures of one tar, which one worker draws

Progress = Callable[[int, int], None]
"""Called with the number of finished pictures, and of all."""


@contextlib.contextmanager
def served(source: Source, storage: Storage, progress: Progress | None = None) -> Iterator[Source]:
    """Serve the demo world of a source, and give the source with pairs, allowed host and test set, and `demo` unset.

    A source without [demo] is given as it is. The first time, the world is rendered, with a progress bar on stderr
    unless there is a `progress`. Raises SourceError if another program has the port.
    """
    if source.demo is None:
        yield source
        return
    world = World(source.demo, storage.local)
    if progress is not None:
        world.build(progress)
    elif not world.built:
        with _bar() as bar:
            world.build(bar)
    with hold(world.folder, source.demo.port, world.stage.key):
        yield world.fill(source)


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("drawing the demo world")
        yield lambda done, total: bar.update(task, completed=done, total=total)


@dataclass(frozen=True)
class World:
    """One rendered world, in the folder demo-<key> of a store on this machine.

    The pipeline reads pairs.tsv. The server reads pictures/ and faults.json. test/ and test.parquet are the clean
    held-out set, which only the pool has. truth.parquet (url, caption, label) is for calibration and for checks of
    results. Nothing that fetches, scores or filters reads truth.parquet or faults.json.
    """

    demo: Demo
    storage: Storage

    @cached_property
    def stage(self) -> Stage:
        """The stage of the world: its key covers everything that changes a byte of it."""
        made_by: dict[str, Any] = {
            "versions": [scenes.VERSION, captions.VERSION, pool.VERSION],
            "demo": self.demo.model_dump(),
            "libraries": {"numpy": np.__version__, "opencv": cv2.__version__, "pillow": PIL.__version__},
        }
        return Stage("demo", made_by)

    @property
    def folder(self) -> Path:
        """The folder of the world."""
        return Path(self.storage.address(self.stage.folder))

    @property
    def truth(self) -> Path:
        """The file of labels: url, caption, and the fault of each pair, or "clean"."""
        return self.folder / "truth.parquet"

    @property
    def built(self) -> bool:
        """Whether the world is complete."""
        return self.storage.done(self._key("key.json"))

    def _key(self, name: str) -> str:
        return f"{self.stage.folder}/{name}"

    def url(self, picture: int) -> str:
        """The URL of a picture, the same in every run."""
        return f"http://{web.HOST}:{self.demo.port}/{pool.name(picture)}"

    def fill(self, source: Source) -> Source:
        """The source without [demo], reading this world over HTTP."""
        hosts = (*source.download.allow_hosts, f"{web.HOST}:{self.demo.port}")
        changes: dict[str, Any] = {
            "demo": None,
            "pairs": Pairs(location=str(self.folder / "pairs.tsv"), columns=("caption", "url")),
            "download": source.download.model_copy(update={"allow_hosts": hosts}),
        }
        if source.task is not None and source.task.test is None and self.demo.stream == "pool":
            test = TestSet(location=self.folder / "test.parquet", folder=self.folder / "test", agree=TEST_CAPTIONS)
            changes["task"] = source.task.model_copy(update={"test": test})
        return with_test_set(source.model_copy(update=changes))

    def build(self, progress: Progress) -> None:
        """Render what is missing. Safe to kill and to run again: finished tars are not drawn again."""
        if self.built:
            return
        stream = pool.STREAMS[self.demo.stream]
        test_images = self.demo.test_images if self.demo.stream == "pool" else 0
        plan = pool.plan(self.demo.seed, self.demo.pairs, stream, test_images)
        tests = pool.clean(pool.TEST, range(test_images))
        self._draw([*_blocks("pictures", plan.shots), *_blocks("test-pictures", tests)], progress)
        self._write_lists(plan.lines)
        if test_images:
            self._write_test()
        self.stage.describe(self.storage)  # written last: it marks the world as complete

    def _draw(self, blocks: Sequence["_Work"], progress: Progress) -> None:
        total, done = sum(len(work.shots) for work in blocks), 0
        with (
            self.storage.scratch() as scratch,
            spawning.pool() as drawers,
        ):
            missing = [work for work in blocks if not self.storage.done(self._key(work.tar))]
            done = total - sum(len(work.shots) for work in missing)
            progress(done, total)
            paths = [scratch / work.tar.replace("/", "-") for work in missing]
            drawn = drawers.map(_draw, missing, [self.demo.seed] * len(missing), paths)
            for work, path in zip(missing, drawn, strict=True):
                self.storage.put_file(self._key(work.tar), path)
                done += len(work.shots)
                progress(done, total)

    def _write_lists(self, lines: Sequence[pool.Line]) -> None:
        bad = {pool.name(line.picture): line.label for line in lines if line.label in pool.WEB_FAULTS}
        truth = pa.table(
            {
                "url": [self.url(line.picture) for line in lines],
                "caption": [line.caption for line in lines],
                "label": [line.label for line in lines],
            }
        )
        with self.storage.scratch() as scratch:
            (scratch / "pairs.tsv").write_text(
                "".join(f"{line.caption}\t{self.url(line.picture)}\n" for line in lines), encoding="utf-8"
            )
            (scratch / "faults.json").write_text(json.dumps(bad), encoding="utf-8")
            pq.write_table(truth, scratch / "truth.parquet")
            (scratch / "bomb.png").write_bytes(pool.bomb())
            for name in ("bomb.png", "pairs.tsv", "faults.json", "truth.parquet"):
                self.storage.put_file(self._key(name), scratch / name)

    def _write_test(self) -> None:
        numbers = range(self.demo.test_images)
        rows = [
            (pool.name(n), caption)
            for n in numbers
            for caption in pool.captions(self.demo.seed, pool.TEST, n, TEST_CAPTIONS)
        ]
        with self.storage.scratch() as scratch:
            for tar in self.storage.keys(self._key("test-pictures")):
                for name, content in tarfiles.read(self.storage.fetch(tar)):
                    (scratch / name).write_bytes(content)
                    self.storage.put_file(self._key(f"test/{name}"), scratch / name)
            table = pa.table({"image": [row[0] for row in rows], "caption": [row[1] for row in rows]})
            pq.write_table(table, scratch / "test.parquet")
            self.storage.put_file(self._key("test.parquet"), scratch / "test.parquet")


@dataclass(frozen=True)
class _Work:
    """A block of pictures, and the key of their tar."""

    tar: str
    shots: dict[int, pool.Shot]


def _blocks(folder: str, shots: Mapping[int, pool.Shot]) -> list[_Work]:
    return [
        _Work(f"{folder}/{index:05d}.tar", dict(list(shots.items())[start : start + _BLOCK]))
        for index, start in enumerate(range(0, len(shots), _BLOCK))
    ]


def _draw(work: _Work, seed: int, path: Path) -> Path:
    tarfiles.write(path, pool.files(seed, work.shots))
    return path
