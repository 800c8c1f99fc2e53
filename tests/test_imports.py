"""The walls: who may import what, what a command costs before it does anything, and that all of it is explained."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import get_args

import published_sources
import pytest

from filters import catalog
from pipeline.scorers.kinds import AnySpec
from pipeline.store.storage import Storage

HEAVY = (
    "prefect",
    "torch",
    "duckdb",
    "pyarrow",
    "numpy",
    "pandas",
    "open_clip",
    "img2dataset",
    "matplotlib",
    "rich.live",
)


def loaded_by(statement, names=HEAVY):
    """Which of the modules a fresh interpreter has after the statement."""
    program = f"import sys\n{statement}\nprint(*[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_command_line_imports_nothing_heavy():
    assert loaded_by("import flows.cli") == []


def test_filters_are_values():
    assert loaded_by("from filters import catalog; catalog.filters(); catalog.recipes()") == []


def test_validating_a_source_imports_neither_prefect_nor_torch():
    heavy = ("prefect", "torch", "open_clip", "img2dataset", "matplotlib", "transformers")
    assert loaded_by("from pipeline.ledger import checking; checking.check('template')", heavy) == []


def test_a_query_imports_nothing_but_duckdb_and_arrow():
    heavy = ("prefect", "torch", "pandas", "PIL", "pydantic", "pyarrow.compute", "cv2")
    assert loaded_by("import pipeline.query.answering", heavy) == []


COUNTED = """
import sys
started = []
sys.addaudithook(lambda event, _: event in ("subprocess.Popen", "os.fork", "os.posix_spawn") and started.append(event))
sys.argv = {argv!r}
try:
    from {module} import {main} as main
    main()
except SystemExit:
    pass
print(len(started), *[name for name in {names!r} if name in sys.modules], file=sys.stderr)
"""
"""A program that calls a function, and prints how many processes it started and which modules it has then."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    published_sources.published(published_sources.listed(root, range(3)), Storage(root / "tiny"))
    return root


def counted(module, main, *words, names, text=""):
    """What the program printed on stdout, the number of processes, and the modules."""
    program = COUNTED.format(argv=[module, *map(str, words)], module=module, main=main, names=names)
    done = subprocess.run([sys.executable, "-c", program], input=text, capture_output=True, text=True, check=True)
    started, *modules = done.stderr.splitlines()[-1].split()
    return done.stdout, int(started), modules


def test_a_query_starts_one_process_and_leaves_duckdb_and_the_manifest_to_it(root):
    heavy = (*(set(HEAVY) - {"pyarrow", "numpy"}), "pyarrow.compute", "pipeline.manifest.manifest", "pipeline.sources")
    command = ("sql", "SELECT count(*) AS n FROM rows", "--root", root, "--json")
    answer, started, modules = counted("flows.cli", "main", *command, names=(*sorted(heavy), "rich.console"))
    assert (json.loads(answer)["rows"], started, modules) == ([{"n": 3}], 1, [])


@pytest.mark.parametrize("words", [["--help"], ["--list"], []])
def test_no_process_is_started_without_a_query(words):
    assert counted("flows.cli", "main", "sql", *words, names=("duckdb", "pyarrow"))[1:] == (0, [])


@pytest.mark.parametrize("view", ["rows", "trials"])
def test_the_process_of_a_query_starts_no_other_and_imports_no_pandas(root, tmp_path, view):
    job = {"sql": f"FROM {view}", "roots": [str(root / "tiny")], "folder": str(tmp_path), "limit": None}
    heavy = ("prefect", "torch", "pandas", "PIL", "pydantic", "pyarrow.compute", "cv2", "rich", "typer")
    found = counted("pipeline.query.answering", "_main", names=heavy, text=json.dumps(job))
    assert found == ("", 0, [])
    assert (tmp_path / "result").stat().st_size > 0


@pytest.mark.parametrize("package", ["filters", "pipeline", "training", "flows", "winnow"])
def test_nobody_else_owns_our_package_names(package):
    assert set(packages_distributions().get(package, ["winnow"])) == {"winnow"}


@pytest.mark.parametrize("each", catalog.filters().values(), ids=lambda each: each.name)
def test_every_filter_says_why(each):
    assert len(each.why.split()) >= 4


SPECS = get_args(get_args(AnySpec)[0])


def test_there_are_scorers():
    assert {"ClipSpec", "PixelsSpec", "CaptionsSpec", "RecordedSpec", "AestheticSpec"} <= {
        spec.__name__ for spec in SPECS
    }


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.__name__)
def test_every_scorer_explains_itself_and_its_settings(spec):
    assert spec.__doc__
    assert spec.columns.__doc__
    settings = {name: field for name, field in spec.model_fields.items() if name != "kind"}
    template = (Path(__file__).parent.parent / "data_manifests" / "template.toml").read_text()
    for name in settings:
        assert re.search(rf"\b{name}(\.\w+)? = |\.{name}\]", template), f"template.toml does not explain {name}"
