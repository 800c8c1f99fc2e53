"""Results that were moved, or that nobody may write to, and labels with blanks around their captions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import published_sources
import pytest

from flows import sources
from pipeline.manifest import database
from pipeline.manifest.manifest import Manifest
from pipeline.review import caught
from pipeline.review.sample import Labelled
from pipeline.store.storage import Storage

ROOT = Path(__file__).parents[1]


def published(folder, numbers=range(40, 46)):
    described = published_sources.listed(folder / "lists", numbers)
    storage = Storage(folder / "results" / described.name)
    published_sources.published(described, storage)
    database.refresh(storage)
    return described, storage


def test_the_catalogue_follows_a_move(tmp_path):
    described, _ = published(tmp_path)
    (tmp_path / "results").rename(tmp_path / "crawl [2024] it's")
    _, storage = sources.load(str(described.path), tmp_path / "crawl [2024] it's")
    with duckdb.connect(str(storage.fetch(database.KEY)), read_only=True) as con:
        assert con.execute("SELECT count(*) FROM rows").fetchone() == (6,)


READ = """
import sys
from pathlib import Path
from pipeline.export import export
from pipeline.export.content import Content
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage
storage = Storage(Path(sys.argv[1]))
try:
    (storage.root / "mine").write_text("")
except PermissionError:
    manifest = Manifest.open(storage)
    print(len(manifest.funnel(manifest.recipe)), export.write(Content(manifest, "csv"), Path(sys.argv[2])).pairs)
"""


def test_a_root_that_nobody_may_write_to_can_be_read(tmp_path):
    _, storage = published(tmp_path, numbers=range(50, 56))
    command = [sys.executable, "-c", READ, str(storage.root), str(tmp_path / "kept")]
    if os.getuid() == 0:  # root may write everywhere, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("there is no setpriv")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    folders = [Path(folder) for folder, _, _ in os.walk(storage.root)]
    for folder in folders:
        folder.chmod(0o555)
    try:
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (done.stdout, done.stderr) == ("1 6\n", "")


def test_labels_fit_captions_with_other_blanks_around(tmp_path):
    _, storage = published(tmp_path)
    lines = [
        "url\tcaption\tlabel",
        "http://host/41.jpg\tpicture number 41\tgood",
        "http://host/42.jpg\t picture number 42 \tbad",
    ]
    lines += ["http://host/43.jpg\tpicture number 43\u00a0\tbad", "http://host/44.jpg\tpicture  number 44\tbad"]
    path = tmp_path / "labels.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    known = Labelled.read(path, ["good"])
    assert len(known.table) == 4
    found = caught.count(Manifest.open(storage), known)
    assert found["absent"] == 1  # blanks inside a caption count
    assert found["labels"]["pairs"] == 4
