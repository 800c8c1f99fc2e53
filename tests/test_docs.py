"""README does what it says: its commands run, its TOML loads, its tests are there; the template explains every key."""

import gzip
import re
import shlex
from pathlib import Path

import pytest
import typer

from flows.cli import app
from pipeline.query import named
from pipeline.settings import choice, download, encoder, pairs, task
from pipeline.sources import loading, source

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
    whole, filters, scorer = (block for language, block in BLOCKS if language == "toml")
    (tmp_path / "mine.toml").write_text(whole)
    assert loading.load(tmp_path / "mine.toml").chosen.name == "default"
    (tmp_path / "mine.toml").write_text(whole.replace('recipe = "default"\n', "") + filters)
    assert [each.name for each in loading.load(tmp_path / "mine.toml").chosen.filters] == ["aligned"]

    (code,) = (block for language, block in BLOCKS if language == "python")
    assert len(code.splitlines()) <= 15
    (tmp_path / "my_scorer.py").write_text(code)
    (tmp_path / "mine.toml").write_text(whole + scorer)
    assert loading.load(tmp_path / "mine.toml").scorers["mine"].columns().keys() == {"share", "named"}


def test_every_named_query_is_explained():
    listed = (HOME / "docs" / "sql.md").read_text()
    for name, query in named.QUERIES.items():
        assert f"`@{name}`" in README, name
        assert f"| `@{name}` | {query.what} |" in listed, name


def test_the_pictures_of_the_readme_are_there():
    for name in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (HOME / name).is_file(), name


@pytest.mark.parametrize(
    "table",
    [
        source.Source,
        pairs.Pairs,
        pairs.Demo,
        download.Download,
        choice.FilterRow,
        choice.Calibration,
        choice.DriftRow,
        choice.DistinctRow,
        task.Task,
        task.TestSet,
        task.Split,
        task.Learner,
        encoder.Network,
        encoder.Hog,
        task.Budget,
    ],
)
def test_the_template_explains_every_key(table):
    template = (HOME / "data_manifests" / "template.toml").read_text()
    for name in set(table.model_fields) - {"path"}:
        assert re.search(rf"^(# )?{name} = |^(# )?\[+([a-z_]+\.)*{name}[].]", template, re.MULTILINE), name
