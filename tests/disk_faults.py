"""Faults at every call that changes the disk. `python tests/disk_faults.py` prints the table of docs/faults.md.

Each step of a run (the ledger grows, pairs are scored, a manifest is published, and one of another recipe) is made once
to count its calls: every new name, write, fsync, rename, link, removal. Then it is made again for each of them, and

- its process ends there without a word (os._exit), and the power may fail too: what was not synced is lost;
- or there is no room from there on.

Whoever reads then must find the manifest of before or the one of after, and every object under its key whole. The next
run must end with the manifest of a run that met no fault. It needs Linux and a C compiler for `disk_faults.c`.
"""

import argparse
import ctypes
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import power_cuts
import published_sources

from filters.core import Filter, Recipe
from pipeline.errors import StorageError
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.manifest.log import commits
from pipeline.manifest.manifest import Manifest
from pipeline.manifest.publish import Published
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.sources.source import Source
from pipeline.store.storage import Storage

COUNT, DIE, FULL = range(3)
DIED, TOLD = 70, 3
CUTS = ("only what was synced is left", "names are left, bytes are not", "any part is left")
OTHER = Recipe("other", (Filter("sharper", "pixels_sharpness >= 43"),))


@dataclass(frozen=True)
class Step:
    """`ready` leaves a store as it is before the step, `begin` gives what is struck, `end` is the next run."""

    ready: Callable[[Source, Storage], object]
    begin: Callable[[Source, Storage], Callable[[], object]]
    end: Callable[[Source, Storage], Published]


def curated(described: Source, storage: Storage) -> Published:
    """A run. What is downloaded is made up."""
    ledger = published_sources.finish(described, storage)
    scoring(described, storage)()
    return publish.publish(Plan.of(described), storage, ledger, {})


def scoring(described: Source, storage: Storage) -> Callable[[], object]:
    shards = ingest.update(described, storage).shards
    return lambda: list(map(Scoring(Plan.of(described), storage), shards))


def publishing(described: Source, storage: Storage) -> Callable[[], object]:
    return partial(publish.publish, Plan.of(described), storage, ingest.update(described, storage), {})


def unscored(described: Source, storage: Storage) -> None:
    """The new pairs are there, and nobody has scored them."""
    shards = published_sources.finish(described, storage).shards
    for stage in Plan.of(described).scores.values():
        storage.fetch(stage.item(shards[-1].number, ".parquet")).unlink()


STEPS = {
    "ledger": Step(lambda *_: None, lambda *of: partial(ingest.update, *of), curated),
    "scores": Step(unscored, scoring, curated),
    "publish": Step(published_sources.finish, publishing, curated),
    "recipe": Step(
        curated,
        lambda _, storage: partial(publish.republish, storage, OTHER),
        lambda _, storage: publish.republish(storage, OTHER),
    ),
}


@dataclass(frozen=True)
class Fault:
    """A fault at a call. `kind` is one of `disk_faults.c`; the clock goes `back` by so many seconds at each reading."""

    name: str
    kind: int
    back: int = 0


FAULTS = (
    Fault("`os._exit`", DIE),
    Fault("no space left from there on", FULL),
    Fault("`os._exit`, and each look at the clock is an hour before the last", DIE, 3600),
)


@dataclass(frozen=True)
class Struck:
    """A disk that a fault left in the folder `place`, and what is wrong with how the process ended."""

    step: str
    fault: Fault
    at: int
    after: str
    place: Path
    wrong: str = ""


@dataclass(frozen=True)
class Room:
    """Where a step is struck: `folder` has the list, and the disk "before" and "after" a run without a fault."""

    step: str
    folder: Path
    shim: Path

    @property
    def described(self) -> Source:
        return loading.load(self.folder / "lists" / "tiny.toml")

    def prepare(self) -> int:
        """Make the disks; how many calls the step makes."""
        before = self.folder / "before"
        (before / "tmp").mkdir(parents=True)
        published_sources.published(
            published_sources.listed(self.folder / "lists", range(40, 43), shard_size=3), store(before)
        )
        published_sources.listed(self.folder / "lists", range(40, 46), shard_size=3)
        STEPS[self.step].ready(self.described, store(before))
        shutil.rmtree(before / "store" / ".tmp")
        shutil.copytree(before, self.folder / "after" / "disk")
        status, said = self.run(self.folder / "after", FAULTS[0], COUNT, 0, self.ended)
        assert status == 0, said
        counted = self.folder / "counted"
        shutil.copytree(before, counted / "disk")
        status, said = self.run(counted, FAULTS[0], COUNT, 0, self.begun)
        assert status == 0, said
        return len((counted / "trace").read_text().splitlines())

    def begun(self, storage: Storage) -> Callable[[], object]:
        return STEPS[self.step].begin(self.described, storage)

    def ended(self, storage: Storage) -> Callable[[], object]:
        return lambda: STEPS[self.step].end(self.described, storage).id

    def run(
        self, place: Path, fault: Fault, kind: int, at: int, begin: Callable[[Storage], Callable[[], object]]
    ) -> tuple[int, str]:
        """Its exit status and what it said, of a process that works on the disk in `place`, and is struck there."""
        (place / "said").write_text("")
        child = os.fork()
        if child == 0:
            os._exit(self._run(place, fault, kind, at, begin))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), (place / "said").read_text()

    def _run(
        self, place: Path, fault: Fault, kind: int, at: int, begin: Callable[[Storage], Callable[[], object]]
    ) -> int:
        disk, shim = place / "disk", ctypes.CDLL(str(self.shim))
        tempfile.tempdir = str(disk / "tmp")
        status, said = 0, None
        try:
            work = begin(store(disk))
            shim.faults_clock(ctypes.c_long(fault.back))
            shim.faults_arm(os.fsencode(disk), os.fsencode(place / "trace"), kind, ctypes.c_long(at))
            with store(disk).lock():
                said = work()
        except StorageError as error:
            status, said = TOLD, str(error)
        except BaseException:  # noqa: BLE001 - whatever it is, it is told
            status, said = 1, traceback.format_exc()
        shim.faults_disarm()
        (place / "said").write_text(said if isinstance(said, str) else "")
        return status


def struck(room: Room, fault: Fault, at: int) -> list[Struck]:
    """Strike once. What differs from every other strike of the step stays, to be judged."""
    place = room.folder / "struck" / f"{FAULTS.index(fault)}-{at}"
    shutil.copytree(room.folder / "before", place / "disk")
    status, said = room.run(place, fault, fault.kind, at, room.begun)
    wrong = ""
    if status not in ((0, DIED) if fault.kind == DIE else (0, TOLD)):
        wrong = f"it ended with {status}: {said[-500:]}"
    elif status == TOLD and ("no space left" not in said or "\n" in said):
        wrong = f"it said {said!r}"
    model = power_cuts.Disk(room.folder / "before", place / "disk", place / "trace")
    found = []
    for after, left in cuts(model, at).items() if fault == FAULTS[0] else ():
        state = room.folder / "states" / digest(left)
        if not state.exists():
            power_cuts.laid(left, place / "cut" / "disk")
            claim(place / "cut", state)
        found.append(Struck(room.step, fault, at, after, state))
    now, safe = digest(power_cuts.read(place / "disk")), digest(model.left(lambda: False, lambda: False))
    if now != digest(model.left(lambda: True, lambda: True)):
        wrong += "; the trace does not tell all that was done to the disk"
    state = room.folder / "states" / f"{FAULTS.index(fault)}-{now}-{safe}"
    claim(place, state)
    return [Struck(room.step, fault, at, "", state, wrong), *found]


def cuts(model: power_cuts.Disk, seed: int) -> dict[str, dict[str, bytes | None]]:
    """What power cuts leave of a disk."""
    chance = random.Random(seed)
    coin = lambda: chance.random() < 0.5  # noqa: E731
    ways = ((lambda: False, lambda: False), (lambda: True, lambda: False), (coin, coin))
    return dict(zip(CUTS, (model.left(*way) for way in ways), strict=True))


def claim(place: Path, state: Path) -> None:
    """Move a folder to where nothing is yet; if something is, it is the same."""
    try:
        place.rename(state)
    except OSError:
        shutil.rmtree(place)


def digest(left: dict[str, bytes | None]) -> str:
    """Of all but what a process leaves for itself."""
    made = hashlib.sha256()
    for path, content in sorted(left.items()):
        if not path.startswith(("store/.", "tmp/")):
            made.update(f"{path} {None if content is None else hashlib.sha256(content).hexdigest()}\n".encode())
    return made.hexdigest()[:32]


def judged(room: Room, fault: Fault, place: Path) -> tuple[str, list[str]]:
    """Which manifest a reader finds, and all that is wrong then and after the next run."""
    known = {
        commits(store(room.folder / each))[-1].id: told for each, told in (("before", "old"), ("after/disk", "new"))
    }
    whole = objects(room.folder / "after" / "disk")
    disk, traced = place / "disk", (place / "trace").exists()
    state, wrong = examined(disk, known, whole)
    (disk / "tmp").mkdir(exist_ok=True)
    status, said = room.run(place, fault, COUNT, 0, room.ended)
    if (status, known.get(said)) != (0, "new"):
        return state, [*wrong, f"the next run ended with {status}: {said[-500:]}"]
    afterwards, more = examined(disk, known, whole)
    wrong += more + [f"the next run did not make {key}" for key in whole.keys() - objects(disk).keys()]
    wrong += [] if afterwards == "new" else [f"the next run left the {afterwards} manifest"]
    published = commits(store(disk))
    if [commit.parent for commit in published] != [None, *(commit.id for commit in published[:-1])]:
        wrong.append(f"the log is no chain: {published}")
    if fault == FAULTS[0] and traced and not wrong:
        model = power_cuts.Disk(room.folder / "before", disk, place / "trace")
        for after, left in cuts(model, 0).items():
            power_cuts.laid(left, place / after)
            lasting, more = examined(place / after, known, whole)
            wrong += [f"after the next run, power cut, {after}: {each}" for each in more]
            wrong += [] if lasting == "new" else [f"after the next run, power cut, {after}: the {lasting} manifest"]
    return state, wrong


def examined(disk: Path, known: dict[str, str], whole: dict[str, str]) -> tuple[str, list[str]]:
    """Which manifest a reader finds; and what is wrong with it, and with any object beside what it is as a `whole`."""
    try:
        return known[read(store(disk))], [
            f"{key} is not whole" for key, content in objects(disk).items() if whole.get(key) != content
        ]
    except Exception as error:  # noqa: BLE001 - whatever a reader meets is a fault
        return "no", [f"a reader meets {type(error).__name__}: {error}"]


def read(storage: Storage) -> str:
    """The newest manifest's id. Every manifest of the log has as many rows as it says."""
    for commit in commits(storage):
        manifest = Manifest.open(storage, commit.id)
        with manifest.connection() as con:
            rows = con.execute("SELECT count(*), count(*) FILTER (kept) FROM rows").fetchone()
        assert rows == (manifest.counts.input - manifest.counts.repeated, manifest.counts.kept)
    return manifest.id


def objects(disk: Path) -> dict[str, str]:
    """By key a digest of each object. Where an object tells the time, only its words count; the catalogue is none."""
    found = {}
    for path in (disk / "store").rglob("*"):
        key = str(path.relative_to(disk / "store"))
        if path.is_file() and not key.startswith((".", "catalog.duckdb")):
            content = path.read_bytes()
            if key.startswith("log/") or key.endswith(".card.json"):
                content = " ".join(json.loads(content)).encode()
            found[key] = hashlib.sha256(content).hexdigest()
    return found


def store(disk: Path) -> Storage:
    return Storage(disk / "store")


@dataclass(frozen=True)
class Row:
    """What came of a fault in a step: how many cases there were, after how many the old manifest was read, and what
    was wrong, by the number of the call."""

    step: str
    fault: str
    cases: int
    old: int
    wrong: dict[int, list[str]]


def report(folder: Path, shim: Path, steps: Iterable[str], every: int) -> Iterable[Row]:
    """Strike the steps at each `every`th call and at the last; with clocks that go backwards, at a tenth of those."""
    fork = multiprocessing.get_context("fork")
    for step in steps:
        room = Room(step, folder / step, shim)
        with fork.Pool(1) as pool:  # a process that has used DuckDB forks no others
            calls = pool.apply(room.prepare)
        for name in ("struck", "states"):
            (room.folder / name).mkdir()
        points = [*range(1, calls, every), calls]
        strikes = [(room, each, at) for each in FAULTS for at in (points[::10] if each.back else points)]
        with fork.Pool(os.cpu_count(), maxtasksperchild=1) as pool:
            found = [each for some in pool.starmap(struck, strikes, chunksize=1) for each in some]
            differ = {each.place: (room, each.fault, each.place) for each in found}
            verdicts = dict(zip(differ, pool.starmap(judged, differ.values(), chunksize=1), strict=True))
        rows = defaultdict(list)
        for each in found:
            rows[f"{each.fault.name}, then a power cut: {each.after}" if each.after else each.fault.name].append(each)
        for name, group in rows.items():
            old = sum(verdicts[each.place][0] == "old" for each in group)
            said = {each.at: [each.wrong] * bool(each.wrong) + verdicts[each.place][1] for each in group}
            yield Row(step, name, len(group), old, {at: wrong for at, wrong in said.items() if wrong})


def table(rows: Iterable[Row]) -> str:
    """Markdown: a line for each fault, a column for each step."""
    by_fault: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by_fault[row.fault][row.step] = row
    steps = list(dict.fromkeys(step for found in by_fault.values() for step in found))
    lines = [f"| fault | {' | '.join(steps)} |", "|---" * (len(steps) + 1) + "|"]
    for fault, found in by_fault.items():
        cells = [f"{row.cases - len(row.wrong)} of {row.cases} ({row.old} old)" for row in found.values()]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--every", type=int, default=1, help="strike at each so manyth call")
    asked.add_argument("--step", action="append", choices=list(STEPS), help="all of them if unset")
    told = asked.parse_args()
    folder = Path(os.environ["WINNOW_FAULTS"])
    del os.environ["LD_PRELOAD"]
    rows = list(report(folder, folder / "faults.so", told.step or STEPS, told.every))
    print(table(rows))
    for row in rows:
        for at, wrong in row.wrong.items():
            print(f"{row.step}, {row.fault}, call {at}: {'; '.join(wrong)}", file=sys.stderr)
    return any(row.wrong for row in rows)


def shimmed() -> int:
    """The same program again, behind the shim."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk that takes no time
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        shim = Path(folder).resolve() / "faults.so"
        code = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(shim), str(code), "-ldl"], check=True)
        told = {"LD_PRELOAD": str(shim), "WINNOW_FAULTS": str(shim.parent), "OPENBLAS_NUM_THREADS": "1"}
        return subprocess.run([sys.executable, *sys.argv], env=os.environ | told, check=False).returncode


if __name__ == "__main__":
    sys.exit(main() if "WINNOW_FAULTS" in os.environ else shimmed())
