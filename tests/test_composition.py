"""What a model cannot see: drawn relations that no shortcut answers, lists of others, the measure, and the command."""

import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_towers
import training_sources
from PIL import Image
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import SourceError
from pipeline.store.storage import Storage
from training.data import contrast_lists, relations
from training.data.contrasts import Contrast
from training.measures import contrast
from training.studies import composition, pair_encoders


def test_no_word_order_colour_or_shape_answers():
    drawn = relations.drawn(3)
    assert len(drawn.items) == 3 * 5 * 4
    assert drawn.count == 3 * 5 * 2
    right = Counter(each.right for each in drawn.items)
    wrong = Counter(text for each in drawn.items for text in each.wrong)
    assert right == wrong  # every caption is right as often as it is wrong
    for kind, words in relations.RELATIONS.items():
        own = [each for each in drawn.items if each.kind == kind]
        assert Counter(next(word for word in words if word in each.right) for each in own) == dict.fromkeys(words, 6)


def test_a_text_alone_has_half_of_the_pictures_and_no_pair():
    drawn = relations.drawn(5)
    random = np.random.default_rng(0)
    texts = {
        text: random.normal(size=4).astype(np.float32) for each in drawn.items for text in (each.right, *each.wrong)
    }
    same = np.tile(random.normal(size=4).astype(np.float32), (drawn.count, 1))
    right = contrast.hits(drawn.items, same, texts)
    for each in contrast.kinds(drawn.items, right, right, drawn.spatial):
        assert (each.accuracy.value, each.group.value) == (0.5, 0)


def test_things_have_changed_places_under_the_same_light():
    drawn = relations.drawn(2)
    pictures = list(drawn.pictures())
    assert all((one == other).all() for one, other in zip(pictures, drawn.pictures(), strict=True))
    for one, other in zip(pictures[::2], pictures[1::2], strict=True):
        changed = (np.abs(one.astype(int) - other).max(axis=2) > 25).mean()
        assert 0.005 < changed < 0.4  # the things, not floor, wall and light


def test_a_tie_is_wrong_and_a_group_needs_all():
    texts = {name: np.array(each, np.float32) for name, each in (("a", [1, 0]), ("b", [0, 1]), ("c", [1, 0]))}
    pictures = np.array([[1, 0], [0, 1]], np.float32)
    items = [
        Contrast("k", 0, "a", ("b",), 0, 0),
        Contrast("k", 1, "b", ("a",), 0, 0),
        Contrast("k", 0, "a", ("c",), 1, 1),  # a tie
        Contrast("k", 1, "b", ("a", "c"), 1, 1),
    ]
    right = contrast.hits(items, pictures, texts)
    assert right.tolist() == [True, True, False, True]
    (found,) = contrast.kinds(items, right, contrast.blind(items, pictures, texts), frozenset())
    assert (found.accuracy.value, found.group.value) == (0.75, 0.5)
    assert found.chance == pytest.approx((3 / 2 + 1 / 3) / 4)
    assert found.group_chance == pytest.approx((1 / 4 + 1 / 6) / 2)
    assert found.accuracy.low == 0.5
    assert found.accuracy.high == 1


ROWS = {
    "What'sUp": [{"image_path": "0.jpg", "caption_options": ["a on b", "a under b", "a left of b"]}],
    "SugarCrepe": {"0": {"filename": "0.jpg", "caption": "a red cup", "negative_caption": "a blue cup"}},
    "ARO": [
        {
            "image_path": "0.jpg",
            "true_caption": "the dog is behind the cat",
            "false_caption": "the cat is behind the dog",
            "relation_name": "behind",
            **{"bbox_x": 2, "bbox_y": 3, "bbox_w": 10, "bbox_h": 8},
        }
    ],
    "own": [{"image": "0.jpg", "right": "a", "wrong": ["b", "c"], "kind": "things"}],
}


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.arange(40 * 30 * 3, dtype=np.uint8).reshape(30, 40, 3)).save(tmp_path / "0.jpg")
    return tmp_path


@pytest.mark.parametrize(
    ("form", "kind", "wrong", "size"),
    [
        ("What'sUp", "list", 2, (30, 40, 3)),
        ("SugarCrepe", "list", 1, (30, 40, 3)),
        ("ARO", "behind", 1, (8, 10, 3)),
        ("own", "things", 2, (30, 40, 3)),
    ],
)
@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_lists_of_others_are_read(folder, form, kind, wrong, size, ending):
    path, rows = folder / f"list.{ending}", ROWS[form]
    if ending == "json":
        path.write_text(json.dumps(rows))
    else:
        pq.write_table(pa.Table.from_pylist(list(rows.values()) if isinstance(rows, dict) else rows), path)
    found = contrast_lists.read(path, folder)
    (item,) = found.items
    assert (item.kind, len(item.wrong)) == (kind, wrong)
    assert [each.shape for each in found.pictures()] == [size]
    assert bool(found.protocol) == (form != "own")


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"image": "0.jpg", "right": "a", "wrong": []}], "row 1: a right and a wrong caption are needed"),
        ([{"image": "0.jpg", "right": " ", "wrong": "b"}], "row 1: a right and a wrong caption are needed"),
        ([{"image": "1.jpg", "right": "a", "wrong": "b"}], "there is no picture '1.jpg' in .*: name the folder with"),
        ([{"picture": "0.jpg"}], "has the fields picture, and the forms have What'sUp: caption_options, image_path; "),
        ([], "holds no rows"),
        ("text", "holds no rows"),
    ],
)
def test_a_faulty_list_is_one_line(folder, rows, says):
    (folder / "list.json").write_text(json.dumps(rows))
    with pytest.raises(SourceError, match=says):
        contrast_lists.read(folder / "list.json", folder)


def test_the_command_measures_a_model_once(folder, tmp_path):
    described, storage = training_sources.task(tmp_path / "source", 20, test=6)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "taught").symlink_to(storage.root)
    model = tiny_towers.write_clip(tmp_path / "clip")
    (folder / "list.json").write_text(json.dumps(ROWS["ARO"]))
    asked = ["composition", str(described.path), "--root", str(tmp_path / "root"), "--model", model]
    done = CliRunner().invoke(app, [*asked, "--list", str(folder / "list.json"), "--page", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert "behind" in done.output
    assert "cropped to bbox_x" in done.output
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 1
    encoder, drawn = pair_encoders.find(described, storage, model), relations.drawn(2)
    first = composition.measure(storage, encoder, drawn)
    again = pair_encoders.find(described, storage, model)
    assert composition.measure(storage, again, drawn) == first
    assert "_clip" not in vars(again)  # nothing was loaded
    assert [each["name"] for each in first["kinds"]] == [*relations.RELATIONS, *relations.CONTROLS]
    assert sum(each["contrasts"] for each in first["kinds"]) == len(drawn.items)
    assert composition.part(described, Storage(tmp_path / "none")) is None  # no scorer of kind clip


@pytest.mark.slow
def test_the_demos_clip_sees_colours_and_not_sides(tmp_path):
    described, storage = training_sources.task(tmp_path / "source", 20, test=6)
    encoder = pair_encoders.find(described, storage, "local-dir:pipeline/demo/clip")
    found = composition.measure(storage, encoder, relations.drawn())
    kinds = {each["name"]: each for each in found["kinds"]}
    assert kinds["control: colour"]["group"]["low"] > 0.5
    assert kinds["left and right"]["group"]["high"] < 0.25
    assert "was not shown to tell apart" in composition.sentence(found)
    assert all(each["blind"] <= 0.5 for each in found["kinds"])
