"""README and docs: commands parse, TOML loads, links, files and tests exist; the template explains every key."""

import gzip
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import typer

from flows.cli import app
from pipeline.query import named
from pipeline.settings import choice, download, encoder, engine, model, pairs, sweep, task, vqa
from pipeline.sources import loading, source

HOME = Path(__file__).parent.parent
README = (HOME / "README.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = FENCE.findall(README)
DOCS = [path for path in sorted((HOME / "docs").glob("*.md")) if path.name != "README.md"]
PAGES = [
    HOME / "README.md",
    HOME / "CONTRIBUTING.md",
    HOME / "CHANGELOG.md",
    HOME / "docs" / "README.md",
    *DOCS,
    HOME / "tests" / "benchmarks" / "README.md",
]
TEXT = {path.relative_to(HOME).as_posix(): path.read_text() for path in PAGES}
COMMANDS = sorted(
    {
        line.partition("  #")[0].strip()
        for text in TEXT.values()
        for language, block in FENCE.findall(text)
        if language in ("", "sh")
        for line in block.splitlines()
        if line.startswith("winnow ")
    }
)
TOML = [
    pytest.param(block, id=f"{name}:{number}")
    for name, text in TEXT.items()
    if name != "README.md"
    for number, (language, block) in enumerate(FENCE.findall(text))
    if language == "toml"
]
PLANNED = {"pipeline/models/face_detector.py", "pipeline/scorers/faces.py"}
"""Files that CONTRIBUTING names as the place of something that does not exist yet."""

GROUP = typer.main.get_command(app)


def outside_blocks(text):
    """A page's prose and tables."""
    return FENCE.sub("", text)


def anchors(path):
    """The fragments that the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.*)$", outside_blocks(path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def test_the_readme_is_short_and_begins_with_a_command():
    assert len(README.splitlines()) <= 200
    assert "make demo" in README.splitlines()[:20]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_a_page_is_one(line):
    _, name, *arguments = shlex.split(line)
    assert name in GROUP.commands, name
    GROUP.commands[name].make_context(name, list(arguments))  # parses; raises for an option that does not exist


@pytest.mark.parametrize("page", TEXT)
def test_commands_that_prose_names_exist(page):
    for name in re.findall(r"`winnow ([a-z][a-z-]*)", outside_blocks(TEXT[page])):
        assert name in GROUP.commands, name


@pytest.mark.parametrize("page", [page for page in TEXT if page != "README.md"])
def test_a_block_that_no_test_types_has_a_language(page):
    assert "" not in [language for language, _ in FENCE.findall(TEXT[page])], "README's unlabelled blocks are typed"


def test_what_make_is_asked_for_is_in_the_makefile():
    makefile = (HOME / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README) + re.findall(r"`make ([a-z-]+)", "".join(TEXT.values())):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", TEXT)
def test_the_tests_that_are_named_are_there(page):
    tests = {path.name: path.read_text() for path in (HOME / "tests").glob("test_*.py")}
    for name in re.findall(r"`(?:tests/)?(test_\w+\.py)`", TEXT[page]):
        assert name in tests, name
    for name in re.findall(r"`(test_\w+)`", TEXT[page]):
        assert any(f"def {name}(" in text for text in tests.values()), name


@pytest.mark.parametrize("page", TEXT)
def test_the_files_that_are_named_are_there(page):
    named_files = re.findall(r"`((?:pipeline|training|flows|filters|tests|docs)/[\w./]+)`", TEXT[page])
    for name in set(named_files) - PLANNED:
        assert (HOME / name).exists(), name


@pytest.mark.parametrize("page", TEXT)
def test_links_and_pictures_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", outside_blocks(TEXT[page])):
        path, _, fragment = link.partition("#")
        target = ((HOME / page).parent / path).resolve() if path else HOME / page
        assert target.exists(), link
        assert not fragment or fragment in anchors(target), link


def test_the_index_lists_every_page():
    listed = re.findall(r"^- \[([\w-]+\.md)\]\(\1\): .+\.$", TEXT["docs/README.md"], re.MULTILINE)
    assert sorted(listed) == [path.name for path in DOCS]


def test_contributing_lists_every_package():
    text = TEXT["CONTRIBUTING.md"]
    for folder in (each for top in ("pipeline", "training", "flows") for each in (HOME / top).iterdir()):
        if folder.is_dir() and any(folder.glob("*.py")):
            assert f"| `{folder.name}/` |" in text, folder


def test_the_toml_of_the_readme_loads(tmp_path):
    (tmp_path / "pairs.tsv.gz").write_bytes(gzip.compress(b"a dog\thttp://host/1.jpg\n"))
    whole, filters, scorer = (block for language, block in BLOCKS if language == "toml")
    (tmp_path / "mine.toml").write_text(whole)
    assert loading.load(tmp_path / "mine.toml").own_recipe.name == "default"
    (tmp_path / "mine.toml").write_text(whole.replace('recipe = "default"\n', "") + filters)
    assert [each.name for each in loading.load(tmp_path / "mine.toml").own_recipe.filters] == ["aligned"]

    (code,) = (block for language, block in BLOCKS if language == "python" and "def score" in block)
    assert len(code.splitlines()) <= 15
    (tmp_path / "my_scorer.py").write_text(code)
    (tmp_path / "mine.toml").write_text(whole + scorer)
    assert loading.load(tmp_path / "mine.toml").scorers["mine"].columns().keys() == {"share", "named"}


@pytest.mark.parametrize("block", TOML)
def test_the_toml_of_a_page_loads_as_part_of_the_readme_s_source(block, tmp_path):
    """A page shows some tables; those that it does not show are README's."""
    (tmp_path / "pairs.tsv.gz").write_bytes(gzip.compress(b"a dog\thttp://host/1.jpg\t3\n"))
    (tmp_path / "test.parquet").touch()
    (tmp_path / "flickr30k.tar").touch()
    folders = ("test", "imagenet/val", "imagenet/train", "small", "small-folds", "metadata/small", "embeddings")
    for folder in (*folders, "photos", "classes", "data", "photos-dataset", "shards"):
        (tmp_path / folder).mkdir(parents=True)
    shards = [f"shards/{number:05d}.tar" for number in range(13)]
    for file in ("captions.csv", "good.parquet", "near_fog.npy", "data/train-0.parquet", *shards):
        (tmp_path / file).touch()
    for name in ("cc3m", "cc12m"):
        shutil.copy(HOME / "data_manifests" / f"{name}.toml", tmp_path)
    shown = tomllib.loads(block)
    kept = next(text for language, text in BLOCKS if language == "toml")
    if "pairs" in shown or "union" in shown:
        kept = re.sub(r"^\[pairs\]\n(?:[^\[].*\n)*", "", kept, flags=re.MULTILINE)
    if "filters" in shown or "distinct" in shown:
        kept = kept.replace('recipe = "default"\n', "")
    (tmp_path / "mine.toml").write_text(kept + block if "[" in block else block + kept)  # keys stand before tables
    loaded = loading.load(tmp_path / "mine.toml")
    assert shown.keys() <= loaded.model_fields_set
    assert shown.get("scorers", {}).keys() <= loaded.scorers.keys()


@pytest.mark.parametrize("page", TEXT)
def test_python_compiles(page):
    for language, block in FENCE.findall(TEXT[page]):
        if language == "python":
            compile(block, page, "exec")


def test_every_named_query_is_explained():
    listed = (HOME / "docs" / "sql.md").read_text()
    for name, query in named.QUERIES.items():
        assert f"`@{name}`" in README, name
        assert f"| `@{name}` | {query.description} |" in listed, name


@pytest.mark.parametrize(
    "table",
    [
        source.Source,
        pairs.Pairs,
        pairs.Demo,
        download.Download,
        engine.Ray,
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
        model.Model,
        model.TransformersText,
        model.OpenClipText,
        model.SmallText,
        sweep.Sweep,
        task.Questions,
        vqa.VqaModel,
        vqa.Lora,
        sweep.Treatment,
    ],
)
def test_the_template_explains_every_key(table):
    template = (HOME / "data_manifests" / "template.toml").read_text()
    for name in set(table.model_fields) - {"path"}:
        assert re.search(rf"^(# )?{name} = |^(# )?\[+([a-z_]+\.)*{name}[].]", template, re.MULTILINE), name
