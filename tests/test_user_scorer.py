"""Scorers that users write: fifteen lines in a file beside the source file, and what is said of wrong ones."""

import os
import pickle

import downloaded_sources
import pytest
from PIL import Image

from pipeline.download import download
from pipeline.errors import ShardError, SourceError
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources import loading

GREEN = '''\
"""How much of a picture is green, and whether its caption says so."""

import numpy as np

columns = {"share": "float32", "named": "bool"}


def prepare(image):  # an RGB picture of Pillow's; runs in the decode pool, so return little
    red, green, blue = np.moveaxis(np.asarray(image.resize((32, 32)), np.int16), 2, 0)
    return float(np.mean((green > red + 20) & (green > blue + 20)))


def score(batch, word="green"):  # batch.images: what prepare returned; None for a pair without a score
    return {"share": list(batch.images), "named": [word in caption for caption in batch.captions]}
'''
COUNT = """\
columns = {"letters": "int32"}
def score(batch):
    return {"letters": [len(each) for each in batch.captions]}
"""


def written(folder, code, more=""):
    """The source file's scorers, of which one is the code."""
    folder.mkdir(exist_ok=True)
    (folder / "list.tsv").write_text("url\tcaption\n")
    (folder / "my_scorer.py").write_text(code)
    (folder / "mine.toml").write_text(
        f'[pairs]\nlocation = "list.tsv"\n[scorers.mine]\nkind = "./my_scorer.py"\n{more}\n'
    )
    return loading.load(folder / "mine.toml").scorers


def rows(*colours):
    return [(f"http://host/{colour}.jpg", f"all {colour}", Image.new("RGB", (60, 40), colour)) for colour in colours]


def test_a_file_of_fifteen_lines_is_a_scorer(tmp_path):
    assert len(GREEN.splitlines()) <= 15
    found = downloaded_sources.scored(tmp_path, rows("green", "red", "lime"), written(tmp_path / "mine", GREEN))["mine"]
    assert found["share"] == [1, 0, 1]
    assert found["named"] == [True, False, False]


def test_other_keys_are_arguments_of_score(tmp_path):
    found = downloaded_sources.scored(
        tmp_path, rows("green", "red"), written(tmp_path / "mine", GREEN, 'word = "red"')
    )["mine"]
    assert found["named"] == [False, True]


def test_without_prepare_no_picture_is_decoded(tmp_path):
    scorers = written(tmp_path / "mine", COUNT)
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, rows("green", "red"), scorers)
    storage.fetch(download.stage(described).item(0, ".tar")).unlink()
    Scoring(Plan.of(described), storage)(shard)
    assert downloaded_sources.scores(described, storage, shard, "mine")["letters"] == [9, 7]


def test_another_file_or_option_is_another_stage(tmp_path):
    first = written(tmp_path / "mine", COUNT)["mine"].identity()
    stat = (tmp_path / "mine/my_scorer.py").stat()
    other = written(tmp_path / "mine", COUNT.replace("letters", "charact"))["mine"]
    os.utime(tmp_path / "mine/my_scorer.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert other.identity() != first
    assert set(other.columns()) == {"charact"}  # as long and as old as the first: Python's own cache would not tell
    assert written(tmp_path / "elsewhere", COUNT)["mine"].identity() == first
    one, two = (written(tmp_path / "mine", GREEN, f'word = "{word}"')["mine"] for word in ("red", "blue"))
    assert one.identity() != two.identity()


def test_a_run_uses_the_file_as_it_was_when_the_source_was_read(tmp_path):
    scorers = pickle.loads(pickle.dumps(written(tmp_path / "mine", COUNT)))  # as a worker elsewhere gets them
    (tmp_path / "mine/my_scorer.py").write_text("changed while the run goes on")
    assert downloaded_sources.scored(tmp_path, rows("green"), scorers)["mine"]["letters"] == [9]


BODY = "def score(batch):\n    return {}\n"


@pytest.mark.parametrize(
    ("code", "more", "told"),
    [
        ("def score(batch)\n", "", "my_scorer.py does not run: SyntaxError: expected ':'"),
        ("import nothing_like_this\n", "", "does not run: ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("raise SystemExit(3)\n", "", "does not run: ExitError: it ends the process, with exit status 3"),
        (BODY, "", 'my_scorer.py needs columns, a dict like {"green": "float32"}'),
        ("columns = {}\n" + BODY, "", "needs columns"),
        ('columns = ["green"]\n' + BODY, "", "needs columns"),
        ('columns = {"Green": "float32"}\n' + BODY, "", "column 'Green' must be lower-case"),
        ('columns = {"green": "float"}\n' + BODY, "", "column 'green' is 'float'; take one of float32, int32"),
        ('columns = {"green": "bool"}\n', "", "needs a function score(batch)"),
        ('columns = {"green": "bool"}\nscore = 3\n', "", "needs a function score(batch)"),
        ('columns = {"green": "bool"}\nprepare = 3\n' + BODY, "", "needs a function prepare(image)"),
        (COUNT, "least = 3", "score(batch) does not fit its options: got an unexpected keyword argument 'least'"),
        (GREEN, "word = inf", "Out of range float values"),
    ],
)
def test_a_wrong_file_is_told_in_one_line_when_the_source_is_read(tmp_path, code, more, told):
    with pytest.raises(SourceError) as fault:
        written(tmp_path, code, more)
    assert str(fault.value).startswith("mine.toml: scorers.mine: ")
    assert told in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_missing_file_is_told(tmp_path):
    written(tmp_path, COUNT)
    (tmp_path / "my_scorer.py").unlink()
    with pytest.raises(SourceError, match=r"mine.toml: scorers.mine: there is no file .*my_scorer.py"):
        loading.load(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        ('{"green": [1.0, float("nan")]}', "column 'green' is nan at row 2"),
        ('{"green": [float("-inf"), 1.0]}', "column 'green' is -inf at row 1"),
        ('{"green": [1.0]}', "column 'green' has 1 values for 2 pairs"),
        ('{"green": ["much", "little"]}', "much"),
        ('{"green": np.array([1.0, 2.0])}', "column 'green' is double, and float was promised"),
        ('{"grene": [1.0, 2.0]}', "promised the columns ['green'] and returned ['grene']"),
        ("None", "score(batch) returned NoneType, not a dict of columns"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_what_a_file_returns_wrongly_names_scorer_shard_and_row(tmp_path, returned, told):
    code = f'import numpy as np\ncolumns = {{"green": "float32"}}\ndef score(batch):\n    return {returned}\n'
    failed = [("http://host/gone.jpg", "gone", None)]
    scorers = written(tmp_path / "mine", code)
    described, storage, (shard,) = downloaded_sources.downloaded(tmp_path, failed + rows("red", "green"), scorers)
    with pytest.raises(ShardError) as error:
        Scoring(Plan.of(described), storage)(shard)
    assert str(error.value).startswith("score, shard 00000: scorer 'mine', rows 1 to 2: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert not storage.done(Plan.of(described).scores["mine"].item(0, ".parquet"))


def test_none_is_no_score(tmp_path):
    code = 'columns = {"green": "float32"}\ndef score(batch):\n    return {"green": [None, 0.5]}\n'
    assert downloaded_sources.scored(tmp_path, rows("red", "green"), written(tmp_path / "mine", code))["mine"][
        "green"
    ] == [
        None,
        0.5,
    ]


def test_its_columns_can_be_filtered_on(tmp_path):
    from pipeline.ledger import checking

    written(tmp_path, GREEN, '[[filters]]\nname = "green"\nsql = "mine_share > 0.3 AND mine_named"')
    assert checking.check(str(tmp_path / "mine.toml")).own_recipe.filters
