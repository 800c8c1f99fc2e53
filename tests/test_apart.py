"""Filters that take much time or memory: refused or stopped within limits, in every command, in one line."""

import os
import signal
import subprocess
import sys
import time

import published_sources
import pytest

from filters.core import Distinct, Filter, Recipe
from pipeline.errors import RecipeError
from pipeline.filtering import constants
from pipeline.manifest import apart
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage

BOMB = "len(repeat(repeat('x', 100000), 20000)) > 0"
UNCOUNTED = "(SELECT len(string_agg(a.caption || b.caption || c.caption, '')) FROM rows a, rows b, rows c) > 0"
"""DuckDB's limit does not count what this builds."""


@pytest.fixture
def source(tmp_path):
    """A function that gives the source's file another filter; and the store of its 300 published pairs."""
    described = published_sources.listed(tmp_path, range(40, 340), shard_size=400)
    store = Storage(tmp_path / "root" / "tiny")
    published_sources.published(described, store)

    def rewritten(sql):
        return published_sources.listed(
            tmp_path, range(40, 340), filters=({"name": "mine", "sql": sql},), shard_size=400
        )

    return rewritten, store


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("pixels_sharpness >= 50", True),
        ("NOT captions_url AND caption || 'x' <> 'x' AND width / height < 3", True),
        ("len(caption) > 3", False),
        ("repeat(caption, 1000) > 'x'", False),
        ("width > (SELECT avg(width) FROM rows)", False),
        ("{rest}", False),
        ("this is no SQL", True),
    ],
)
def test_plain_filters_need_no_process(sql, plain):
    assert constants.is_plain(sql) is plain


def test_a_process_gives_what_the_manifest_gives(source):
    _, store = source
    plain = Recipe("plain", (Filter("a", "pixels_sharpness >= 100"),), Distinct(1, "width"))
    mean = Recipe("mean", (Filter("a", "pixels_sharpness >= (SELECT avg(pixels_sharpness) FROM rows)"),))
    found = Manifest.open(store)
    plain = Recipe("plain", plain.filters)
    assert apart.compare(store, found.id, [plain, mean]) == found.compare([plain, mean])
    assert apart.republish(store, mean).counts.kept == 150
    assert Manifest.open(store).recipe.name == "mean"
    with pytest.raises(RecipeError, match="fails on a row"):
        apart.compare(store, found.id, [Recipe("cast", (Filter("c", "upper(caption)::INTEGER > 3 AND len('') = 0"),))])


MEASURED = """
import resource, signal, subprocess, sys
memory, *command = sys.argv[1:]
def limited():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if int(memory):
        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
process = subprocess.Popen(command, stderr=subprocess.STDOUT, preexec_fn=limited)
signal.signal(signal.SIGINT, signal.SIG_IGN)
process.wait()
print(process.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10, file=sys.stderr)
"""
"""Runs a command and says how it ended and the largest memory in bytes of it and of what it waited for. A small process
does so: Linux counts for a new process what its parent had when it was made."""


def started(source, *words, memory=0):
    folder = source[1].root.parent
    words = [words[0], str(folder.parent / "tiny.toml"), *words[1:], "--root", str(folder)]
    return subprocess.Popen(
        [sys.executable, "-c", MEASURED, str(memory), sys.executable, "-m", "flows", *words],
        env=os.environ | {"PREFECT_HOME": str(folder.parent / "prefect"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def winnow(source, *words, memory=0):
    """Exit status, output, and the largest memory in bytes of a command and the processes that it waited for."""
    output, measured = started(source, *words, memory=memory).communicate()
    status, largest = map(int, measured.split())
    return status, output, largest


COMMANDS = [("curate",), ("funnel", "--recipe", "tiny"), ("publish",)]


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_constants_that_take_too_much_are_refused_in_every_command(source, words):
    source[0](BOMB)
    begun, before = time.monotonic(), Manifest.open(source[1]).id
    status, output, memory = winnow(source, *words)
    assert (status, len(output.splitlines())) == (1, 1)
    assert "filter 'mine': it takes more than 10 s or 2 GB to compute for a few rows" in output
    assert memory < 1 << 30  # it took 5.9 GB
    assert time.monotonic() - begun < 100
    assert Manifest.open(source[1]).id == before


@pytest.mark.slow
def test_explore_opens_without_the_recipe_that_takes_too_much(source):
    source[0](BOMB)
    process = started(source, "explore")
    try:
        assert any(line.startswith("http://127.0.0.1:") for line in process.stdout)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        _, measured = process.communicate()
    status, memory = map(int, measured.split())
    assert (status, memory < 1 << 30) == (0, True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "darwin", reason="macOS does not limit a process's memory")
@pytest.mark.parametrize("words", COMMANDS[1:], ids=lambda words: words[0])
def test_memory_that_duckdb_does_not_count_ends_in_one_line(source, words):
    source[0](UNCOUNTED)
    before = Manifest.open(source[1]).id
    status, output, _ = winnow(source, *words, memory=5 << 30)
    assert (status, len(output.splitlines())) == (1, 1)
    assert "need more memory than there is" in output
    assert Manifest.open(source[1]).id == before
