"""Faults at calls that change a disk, power cuts, broken pictures: some of those that docs/faults.md has all of."""

import re
import shutil
import subprocess
import sys

import broken_pictures
import disk_faults
import power_cuts
import pytest

needs_shim = pytest.mark.skipif(
    not sys.platform.startswith("linux") or shutil.which("cc") is None, reason="needs Linux and a C compiler"
)


def struck(*words):
    """The cells of the table that tests/disk_faults.py prints: (fine, all, of them old)."""
    done = subprocess.run([sys.executable, disk_faults.__file__, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    cells = re.findall(r"(\d+) of (\d+) \((\d+) old\)", done.stdout)
    return [tuple(map(int, cell)) for cell in cells]


@needs_shim
@pytest.mark.slow
def test_a_publish_that_is_struck_ends_old_or_new():
    cells = struck("--step", "publish", "--every", "60")
    assert len(cells) == len(disk_faults.FAULTS) + len(disk_faults.CUTS)
    assert all(fine == cases > 0 for fine, cases, _ in cells)
    assert cells[0][1] > cells[0][2] > 0  # some read the old manifest, and some the new one


def test_a_power_cut_takes_what_was_not_synced(tmp_path):
    before, now = tmp_path / "before", tmp_path / "now"
    (before / "a").mkdir(parents=True)
    (before / "a" / "kept").write_bytes(b"kept")
    shutil.copytree(before, now)
    (now / "b").mkdir()
    for path, content in (("a/named", b"whole"), ("b/lost", b"lost"), ("a/short", b"longer")):
        (now / path).write_bytes(content)
    calls = [
        ("folder", "b", "", 0), ("create", "a/new", "", 0), ("sync", "a/new", "", 5), ("rename", "a/new", "a/named", 0),
        ("create", "b/lost", "", 0), ("sync", "b", "", 0), ("create", "a/short", "", 0), ("sync", "a/short", "", 4),
        ("sync", "a", "", 0),
    ]  # fmt: skip
    trace = tmp_path / "trace"
    trace.write_text("".join("\t".join(map(str, call)) + "\n" for call in calls))
    model = power_cuts.Disk(before, now, trace)
    synced = model.left(lambda: False, lambda: False)
    assert synced == {"a": None, "a/kept": b"kept", "a/named": b"whole", "a/short": b"long"}
    assert model.left(lambda: True, lambda: False) == {**synced, "b": None, "b/lost": b""}
    assert model.left(lambda: True, lambda: True) == {**synced, "a/short": b"longer", "b": None, "b/lost": b"lost"}


def test_a_broken_picture_has_a_number():
    assert broken_pictures.picture(7) == broken_pictures.picture(7)
    assert len({broken_pictures.picture(number) for number in range(100)}) > 95


@pytest.mark.parametrize("count", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_a_broken_picture_is_decoded_or_has_a_cause(count):
    found = broken_pictures.tally(broken_pictures.numbered(count))
    assert found.wrong == []
    assert found.counts.total() == count
    assert set(found.counts) <= {None, *broken_pictures.CAUSES}
    assert found.counts[None] > count / 10
    assert found.counts["undecodable"] > count / 10
    assert found.largest < broken_pictures.LIMITS.memory
