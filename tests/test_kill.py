"""kill -9 at random moments of download, score and publish; a reader looks on all the while."""

import io
import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import main_job
import numpy as np
import pytest
import random_clip
from PIL import Image

from pipeline.manifest.manifest import Manifest

KILLS, ENDS = 25, 5
FIRST, ALL, SHARD = 60, 240, 20


class Pictures(BaseHTTPRequestHandler):
    """A picture by number; every seventh is missing, every eleventh is cut short."""

    fetches = 0

    def do_GET(self):
        Pictures.fetches += 1
        number = int(self.path.strip("/").removesuffix(".jpg"))
        if number % 7 == 3:
            self.send_error(404)
            return
        body = picture(number)
        body = body[: len(body) // 2] if number % 11 == 5 else body
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def picture(number):
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize((96, 80)).save(data, "JPEG")
    return data.getvalue()


@pytest.fixture
def pictures():
    with ThreadingHTTPServer(("127.0.0.1", 0), Pictures) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def described(folder, port, count):
    clip = folder / "clip"
    if not clip.exists():
        random_clip.save(random_clip.reference("quick_gelu"), clip, quick_gelu=True)
    rows = [f"a thing of number {number}\thttp://127.0.0.1:{port}/{number}.jpg" for number in range(count)]
    (folder / "list.tsv").write_text("\n".join([*rows, *rows[:5]]) + "\n")
    toml = folder / "killed.toml"
    toml.write_text(
        f"""
        [pairs]
        location = "list.tsv"
        columns = ["caption", "url"]
        [download]
        shard_size = {SHARD}
        allow_hosts = ["127.0.0.1:{port}"]
        [scorers.clip]
        kind = "clip"
        model = "local-dir:{clip}"
        [scorers.pixels]
        kind = "pixels"
        [scorers.captions]
        kind = "captions"
        [[filters]]
        name = "aligned"
        sql = "clip_similarity >= (SELECT quantile_cont(clip_similarity, 0.5) FROM rows)"
        """
    )
    return toml


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


def started(toml, root):
    return subprocess.Popen(
        [sys.executable, main_job.__file__, str(toml), str(root)], stdout=subprocess.PIPE, text=True
    )


def killed_after(process, line, pause):
    """Kill -9 a moment after `line`. The last line is returned if the run was over before."""
    last = ""
    for told in process.stdout:
        last = told.strip()
        if last.startswith(line):
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read()
    process.wait()
    return rest.strip().splitlines()[-1] if rest.strip() else last


@pytest.mark.slow
def test_killed_anywhere_ends_with_the_same_manifest(tmp_path, pictures):
    small = described(tmp_path, pictures, FIRST)
    main_job.run(small, tmp_path / "whole")
    begun = tmp_path / "begun"
    shutil.copytree(tmp_path / "whole", begun)  # what every killed run starts from, and what its reader sees first
    toml = described(tmp_path, pictures, ALL)
    expected = main_job.run(toml, tmp_path / "whole")
    assert expected.new
    assert expected.counts.input == ALL + 5

    chance = random.Random(20261121)
    shards = range(FIRST // SHARD, ALL // SHARD)
    steps = [f"downloaded {n}" for n in shards] + [f"scored {n}" for n in shards] + ["download", "score", "publish"] * 3
    root = tmp_path / "killed"
    kills = ends = 0
    reader = None
    while kills < KILLS or root.exists():
        due = kills >= (ends + 1) * KILLS // ENDS  # several kills wear on one run, and then it may end
        if not root.exists():
            shutil.copytree(begun, root)
            reader = Reader(main_job.storage_of(toml, root))
            reader.start()
        process = started(toml, root)
        if not due:
            last = killed_after(process, chance.choice(steps), chance.uniform(0, 0.4))
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
    toml = described(tmp_path, pictures, FIRST)
    first = main_job.run(toml, tmp_path / "root")
    assert first.new
    fetched = Pictures.fetches
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*.*") if path.is_file()}
    again = main_job.run(toml, tmp_path / "root")
    assert (again.id, again.new) == (first.id, False)
    assert Pictures.fetches == fetched
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*.*") if path.is_file()} == before


@pytest.mark.slow
def test_a_changed_setting_redoes_what_it_touches_and_no_more(tmp_path, pictures):
    toml = described(tmp_path, pictures, FIRST)
    root = tmp_path / "root"
    first = main_job.run(toml, root)
    fetched = Pictures.fetches
    folders = lambda: {path.name for path in main_job.storage_of(toml, root).root.glob("**/*-????????")}  # noqa: E731
    before = folders()
    text = toml.read_text()
    toml.write_text(text.replace("0.5)", "0.25)"))
    chosen = main_job.run(toml, root)
    assert (chosen.new, Pictures.fetches, folders()) == (True, fetched, before)
    assert chosen.counts.kept > first.counts.kept

    toml.write_text(text.replace('kind = "clip"', 'kind = "clip"\nprecision = "float32"'))
    main_job.run(toml, root)
    added = folders() - before
    assert Pictures.fetches == fetched
    assert {name.rpartition("-")[0] for name in added} <= {"clip"}

    toml.write_text(text.replace("[download]", "[download]\nimage_size = 64"))
    main_job.run(toml, root)
    assert Pictures.fetches > fetched
