"""Source files: what is right, and the one line that is said of each fault."""

import pytest

from pipeline.errors import RecipeError, SourceError, did_you_mean
from pipeline.filtering.recipes import find_recipe
from pipeline.ledger import checking
from pipeline.sources import loading
from pipeline.store.storage import Storage
from pipeline.takedown.writing import writing

PAIRS = '[pairs]\nlocation = "list.tsv"\n'

CLIP = '[scorers.clip]\nkind = "clip"\nmodel = "ViT-B-32-quickgelu"\nweights = "openai"\n'
ONE = '[[filters]]\nname = "a"\nsql = "true"\n'
HEAD = '[scorers.a]\nkind = "aesthetic"\n'

FAULTS = {
    "no toml": ("[pairs\n", "this is no TOML"),
    "no pairs": ("", "[pairs], or [demo]"),
    "pairs and demo": (PAIRS + "[demo]\n", "[pairs], or [demo]"),
    "unknown table": (PAIRS + "[downlod]\nthreads = 3\n", "unknown key downlod; did you mean 'download'?"),
    "unknown key": (PAIRS + "[download]\nthread = 3\n", "unknown key download.thread; did you mean 'threads'?"),
    "unknown key of a scorer": (
        PAIRS + '[scorers.clip]\nkind = "clip"\nmodle = "ViT-B-32"\n',
        "unknown key scorers.clip.modle; did you mean 'model'?",
    ),
    "unknown kind": (
        PAIRS + '[scorers.a]\nkind = "pixel"\n',
        "scorers.a.kind: 'pixel' is unknown; did you mean 'pixels'?",
    ),
    "wrong type": (PAIRS + '[download]\nthreads = "many"\n', "download.threads: "),
    "out of range": (PAIRS + "[download]\nthreads = 0\n", "download.threads: "),
    "missing list": ('[pairs]\nlocation = "gone.tsv"\n', "pairs.location: there is no file "),
    "missing model": (
        PAIRS + CLIP.replace("ViT-B-32-quickgelu", "local-dir:gone"),
        "scorers.clip.model: there is no file",
    ),
    "recipe and filters": (
        'recipe = "default"\n' + PAIRS + ONE,
        "give recipe or filters, not both",
    ),
    "unknown recipe": ('recipe = "defualt"\n' + PAIRS, "no recipe is called 'defualt'; did you mean 'default'?"),
    "filter name": (PAIRS + '[[filters]]\nname = "A B"\nsql = "true"\n', "filter name 'A B'"),
    "two filters of one name": (PAIRS + ONE + ONE, "two filters called 'a'"),
    "reserved column": ('[pairs]\nlocation = "list.tsv"\nextra = ["kept"]\n', "winnow makes a column 'kept' itself"),
    "internal column": (
        '[pairs]\nlocation = "list.tsv"\nextra = ["__slot"]\n',
        "pairs.extra: '__slot' begins with __",
    ),
    "a column of DuckDB's": ('[pairs]\nlocation = "list.tsv"\nextra = ["File_Row_Number"]\n', "'file_row_number'"),
    "extra columns that differ in case": (
        '[pairs]\nlocation = "list.tsv"\nextra = ["Label", "label"]\n',
        "the extra column 'Label' and the extra column 'label' would both be 'label' in rows",
    ),
    "an extra column twice": ('[pairs]\nlocation = "list.tsv"\nextra = ["a", "a"]\n', "pairs.extra names 'a' twice"),
    "an extra column called as a score": (
        '[pairs]\nlocation = "list.tsv"\nextra = ["P_Sharpness"]\n[scorers.p]\nkind = "pixels"\n',
        "the extra column 'P_Sharpness' and the column 'sharpness' of scorers.p would both be 'p_sharpness' in rows",
    ),
    "a score called as a column of winnow's": (
        PAIRS + '[scorers.url]\nkind = "./number.py"\n',
        "scorers.url: its column 'number' would be 'url_number' in rows, which winnow makes itself",
    ),
    "two scores of one name": (
        PAIRS + '[scorers.a]\nkind = "./b_number.py"\n[scorers.a_b]\nkind = "./number.py"\n',
        "the column 'b_number' of scorers.a and the column 'number' of scorers.a_b would both be 'a_b_number'",
    ),
    "an extra column called as an export's": (
        '[pairs]\nlocation = "list.tsv"\nextra = ["image", "source_image"]\n',
        "the extra column 'image', which is 'source_image' in an export,",
    ),
    "head of nothing": (
        PAIRS + CLIP + HEAD + 'of = "clpi"\nweights = "list.tsv"\n',
        "there is no scorer 'clpi'; did you mean 'clip'?",
    ),
    "address without a digest": (
        PAIRS + CLIP + HEAD + 'of = "clip"\nweights = "https://h/w.safetensors"\n',
        "sha256",
    ),
    "one class": (
        PAIRS + '[task.classes]\ndog = ["dog"]\n[task.learners.l]\nhead = "linear"\nencoder = { kind = "hog" }\n',
        "task: name at least two classes",
    ),
    "bad source name": ('name = "Not A Name"\n' + PAIRS, "name: "),
}


@pytest.fixture
def file(tmp_path):
    (tmp_path / "list.tsv").write_text("url\tcaption\nhttp://h/1\tone\n")
    for column in ("number", "b_number"):
        scorer = (
            f"columns = {{'{column}': 'int32'}}\n\ndef score(batch):\n    return {{'{column}': [1] * len(batch)}}\n"
        )
        (tmp_path / f"{column}.py").write_text(scorer)

    def write(text, name="mine"):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize(("text", "told"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_one_line_that_names_file_and_key(file, text, told):
    with pytest.raises(SourceError) as fault:
        loading.load(file(text))
    message = str(fault.value)
    assert "\n" not in message
    assert message.startswith("mine.toml: ")
    assert told in message


@pytest.mark.parametrize("name", ["cc3m", "cc12m", "template"])
def test_shipped_sources_are_right(name):
    described = checking.check(name)
    assert described.name == name
    assert described.own_recipe.filters


def test_the_real_layouts():
    assert loading.load("cc3m").pairs.columns == ("caption", "url")
    assert loading.load("cc12m").pairs.columns == ("url", "caption")


def test_the_template_is_no_source_to_serve():
    assert "template" not in [path.stem for path in loading.source_files()]
    assert {"cc3m", "cc12m", "demo"} <= {path.stem for path in loading.source_files()}


def test_the_template_tells_the_defaults(file):
    plain = loading.load(file(PAIRS))
    told = loading.load("template")
    assert told.download == plain.download
    assert (told.pairs.url, told.pairs.caption, told.pairs.extra) == ("url", "caption", ())


def test_a_name_comes_from_the_file(file):
    assert loading.load(file(PAIRS, "other-1")).name == "other-1"


def test_a_name_that_resembles_none_gets_the_list():
    assert did_you_mean("pixel", ["pixels", "captions"]) == "; did you mean 'pixels'?"
    assert did_you_mean("nope", ["pixels", "captions"]) == "; known: captions, pixels"


@pytest.mark.parametrize(
    ("wanted", "told"), [("cc3", "did you mean 'cc3m'?"), ("gone.toml", "there is no source file")]
)
def test_an_unknown_source(wanted, told):
    with pytest.raises(SourceError, match=told.replace("?", r"\?")):
        loading.load(wanted)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("widht > 3", "filter 'mine': there is no column 'widht'; did you mean 'width'?"),
        ("clip_similarity > 0.3", "there is no column 'clip_similarity'"),
        ("width +", "filter 'mine': "),
        ("width", "not BOOLEAN"),
        ("label = 3 and", "filter 'mine': "),
        ("random() < 0.5", "random is not known to depend on the pair alone"),
        ("width > 3; drop table rows", "filter 'mine': "),
    ],
)
def test_filters_are_bound_before_anything_runs(file, sql, told):
    path = file(PAIRS + f"[[filters]]\nname = \"mine\"\nsql = '''{sql}'''\n")
    with pytest.raises(RecipeError) as fault:
        checking.check(str(path))
    assert "\n" not in str(fault.value)
    assert told in str(fault.value)


def test_extra_columns_and_scores_can_be_filtered_on(file):
    text = '[pairs]\nlocation = "list.tsv"\nextra = ["label"]\n[scorers.p]\nkind = "pixels"\n'
    path = file(text + '[[filters]]\nname = "a"\nsql = "label = \'x\' AND p_sharpness > 3"\n')
    assert [each.name for each in checking.check(str(path)).own_recipe.filters] == ["a"]


def test_an_unknown_recipe_is_told_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'clip-top30'"):
        find_recipe("clip-top3")
    assert find_recipe("default").filters


def test_no_source_of_the_project_runs_until_somebody_asks():
    assert {loading.load(path).schedule for path in loading.source_files()} == {None}


def test_two_files_of_one_name_do_not_share_their_results(file, tmp_path):
    store = Storage(tmp_path / "results" / "mine")
    mine = loading.load(file(PAIRS))
    for _ in range(2):
        with writing(store, mine):
            pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "list.tsv").write_text("url\tcaption\nhttp://h/2\ttwo\n")
    other = tmp_path / "other" / "mine.toml"
    other.write_text(PAIRS)
    with pytest.raises(SourceError) as fault, writing(store, loading.load(other)):
        pass
    assert f"{store.root} holds the results of {mine.path}: give {other} another name" in str(fault.value)
    mine.path.unlink()  # or it was moved
    with writing(store, loading.load(other)):
        pass
