"""kill -9 at random moments of download, score and publish; a reader looks on all the while."""

import json
import random
import shutil
import signal
import threading

import killed_runs
import main_job
import pytest

from pipeline.manifest.manifest import Manifest

KILLS, ENDS = 15, 3
FIRST, ALL = 60, 240


@pytest.fixture
def pictures():
    with killed_runs.served() as port:
        yield port


class Reader(threading.Thread):
    """Opens the newest manifest again and again, and remembers what it saw."""

    def __init__(self, storage):
        super().__init__(daemon=True)
        self.storage, self.seen, self.faults, self.over = storage, set(), [], threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            try:
                manifest = Manifest.open(self.storage)
                counts = manifest.counts
                told = counts.repeated + counts.kept + counts.dropped + counts.failed + counts.quarantined
                with manifest.connection() as con:
                    rows = con.execute("SELECT count(*), count(*) FILTER (kept) FROM rows").fetchone()
                assert told == counts.input
                assert rows == (counts.input - counts.repeated, counts.kept)
                self.seen.add((manifest.id, counts.input))
            except Exception as fault:  # noqa: BLE001 - whatever a reader meets is a fault of the writer
                self.faults.append(repr(fault))


@pytest.mark.slow
def test_killed_anywhere_ends_with_the_same_manifest(tmp_path, pictures):
    small = killed_runs.described(tmp_path, pictures, FIRST)
    main_job.run(small, tmp_path / "whole")
    begun = tmp_path / "begun"
    shutil.copytree(tmp_path / "whole", begun)  # what every killed run starts from, and what its reader sees first
    toml = killed_runs.described(tmp_path, pictures, ALL)
    expected = main_job.run(toml, tmp_path / "whole")
    assert expected.new
    assert expected.counts.input == ALL + 5

    chance = random.Random(20261121)
    shards = range(FIRST // killed_runs.SHARD, ALL // killed_runs.SHARD)
    steps = [f"{step} {n + 1}." for step in ("download", "score") for n in shards] + ["list", "score", "publish"] * 3
    root = tmp_path / "killed"
    kills = ends = 0
    reader = None
    while kills < KILLS or root.exists():
        due = kills >= (ends + 1) * KILLS // ENDS  # several kills wear on one run, and then it may end
        if not root.exists():
            shutil.copytree(begun, root)
            reader = Reader(main_job.storage_of(toml, root))
            reader.start()
        process = killed_runs.started(toml, root)
        if not due:
            last = killed_runs.killed_after(process, chance.choice(steps), chance.uniform(0, 0.4))
        else:
            last = process.communicate()[0].strip().splitlines()[-1]
        kills += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL)
        if process.returncode == 0:
            ends += 1
            assert json.loads(last)["id"] == expected.id
            reader.over.set()
            reader.join()
            assert not reader.faults
            assert {size for _, size in reader.seen} <= {FIRST + 5, ALL + 5}
            assert len(reader.seen) <= 2
            shutil.rmtree(root)
    assert ends >= ENDS


@pytest.mark.slow
def test_a_second_run_fetches_nothing_computes_nothing_and_publishes_nothing(tmp_path, pictures):
    toml = killed_runs.described(tmp_path, pictures, FIRST)
    first = main_job.run(toml, tmp_path / "root")
    assert first.new
    fetched = killed_runs.Pictures.fetches
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*.*") if path.is_file()}
    again = main_job.run(toml, tmp_path / "root")
    assert (again.id, again.new) == (first.id, False)
    assert killed_runs.Pictures.fetches == fetched
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*.*") if path.is_file()} == before


@pytest.mark.slow
def test_a_changed_setting_redoes_what_it_touches_and_no_more(tmp_path, pictures):
    toml = killed_runs.described(tmp_path, pictures, FIRST)
    root = tmp_path / "root"
    first = main_job.run(toml, root)
    fetched = killed_runs.Pictures.fetches
    folders = lambda: {path.name for path in main_job.storage_of(toml, root).root.glob("**/*-????????")}  # noqa: E731
    before = folders()
    text = toml.read_text()
    toml.write_text(text.replace("0.5)", "0.25)"))
    chosen = main_job.run(toml, root)
    assert (chosen.new, killed_runs.Pictures.fetches, folders()) == (True, fetched, before)
    assert chosen.counts.kept > first.counts.kept

    toml.write_text(text.replace('kind = "clip"', 'kind = "clip"\nprecision = "float32"'))
    main_job.run(toml, root)
    added = folders() - before
    assert killed_runs.Pictures.fetches == fetched
    assert {name.rpartition("-")[0] for name in added} <= {"clip"}

    toml.write_text(text.replace("[download]", "[download]\nimage_size = 64"))
    main_job.run(toml, root)
    assert killed_runs.Pictures.fetches > fetched
