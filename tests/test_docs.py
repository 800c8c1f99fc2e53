"""README does what it says: its commands run, its TOML loads, its tests are there; the template explains every key."""

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from flows.cli import app
from pipeline import source, task

HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
TYPED = [
    line.partition("  #")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.splitlines()
    if line.startswith(("winnow ", "make ", "prefect ", ". "))
]


def test_the_first_command_stands_early():
    assert "make demo" in README.splitlines()[:20]


@pytest.mark.parametrize("line", [line for line in TYPED if line.startswith("winnow ")])
def test_a_command_of_the_readme_is_one(line):
    _, name, *arguments = shlex.split(line)
    group = typer.main.get_command(app)
    assert name in group.commands, name
    group.commands[name].make_context(name, list(arguments))  # parses; raises for an option that does not exist


def test_what_make_is_asked_for_is_in_the_makefile():
    makefile = (HOME / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README + (HOME / "CONTRIBUTING.md").read_text()):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_tests_that_are_named_are_there():
    for name in re.findall(r"`(?:tests/)?(test_\w+\.py)`", README):
        assert (HOME / "tests" / name).is_file(), name


def test_the_toml_of_the_readme_loads(tmp_path):
    (tmp_path / "pairs.tsv.gz").write_bytes(gzip.compress(b"a dog\thttp://host/1.jpg\n"))
    whole, filters = (block for language, block in BLOCKS if language == "toml")
    (tmp_path / "mine.toml").write_text(whole)
    assert source.load(tmp_path / "mine.toml").chosen.name == "default"
    (tmp_path / "mine.toml").write_text(whole.replace('recipe = "default"\n', "") + filters)
    assert [each.name for each in source.load(tmp_path / "mine.toml").chosen.filters] == ["aligned"]


@pytest.mark.parametrize(
    "table",
    [
        source.Source,
        source.Pairs,
        source.Demo,
        source.Download,
        source.FilterRow,
        source.Calibration,
        source.DriftRow,
        source.DistinctRow,
        task.Task,
        task.TestSet,
        task.Learner,
        task.Network,
        task.Hog,
        task.Budget,
    ],
)
def test_the_template_explains_every_key(table):
    template = (HOME / "data_manifests" / "template.toml").read_text()
    for name in set(table.model_fields) - {"path"}:
        assert re.search(rf"^(# )?{name} = |^(# )?\[+([a-z_]+\.)*{name}[].]", template, re.MULTILINE), name


@pytest.mark.slow
def test_a_new_user_types_what_the_readme_says(tmp_path):
    """The demo, and then the commands about it, as they stand there."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"}
    environment["PREFECT_HOME"] = str(tmp_path / "prefect")

    def typed(line):
        done = subprocess.run(shlex.split(line), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = typed("winnow demo")
    assert "The report: data/demo/report.html" in told
    assert "filtering by demo:" in told
    assert re.search(r"^ swapped .*%$", told, re.MULTILINE)
    about = [line for line in TYPED if line.startswith("winnow ") and ("demo" in line or "failed" in line)]
    assert len(about) == 3
    answers = {line.split()[1]: typed(line) for line in about}
    assert "http_404" in answers["sql"]
    assert "most-aligned" in answers["funnel"]
    assert (tmp_path / "data/demo/report.html").stat().st_size > 100_000
    assert "nothing changed" in typed("winnow demo")
    for line in re.findall(r"^  (winnow (?!serve).+)$", told.partition("\nNext:\n")[2], re.MULTILINE):
        assert typed(line), line
