"""VQAv2's and DAQUAR's own files as lists of pairs."""

import gzip
import json

import pytest

from pipeline.errors import SourceError
from pipeline.ledger import lists
from pipeline.sources import loading

QUESTIONS = [
    {"image_id": 42, "question": "What colour is it?", "question_id": 42000},
    {"image_id": 42, "question": "Is it old?", "question_id": 42001},
    {"image_id": 7, "question": "Unanswered?", "question_id": 7000},
]
PEOPLE = ["red"] * 6 + ["dark red"] * 4
ANNOTATIONS = [
    {"question_id": 42000, "image_id": 42, "answers": [{"answer": each, "answer_id": 1} for each in PEOPLE]},
    {"question_id": 42001, "image_id": 42, "answers": [{"answer": "no", "answer_id": 1}]},
]
VQAV2 = 'format = "vqav2"\nlocation = "q.json"\nannotations = "a.json"\npictures = "http://h/COCO_{image:012d}.jpg"\n'
DAQUAR = 'format = "daquar"\nlocation = "qa.txt"\npictures = "http://h/image{image}.png"\n'


def read(folder, pairs):
    (folder / "asked.toml").write_text(f"[pairs]\n{pairs}")
    source = loading.load(folder / "asked.toml")
    return [row for batch in lists.read(source.pairs, folder) for row in batch.to_pylist()]


def write_vqav2(folder):
    (folder / "q.json").write_text(json.dumps({"questions": QUESTIONS}))
    (folder / "a.json").write_text(json.dumps({"annotations": ANNOTATIONS}))


def test_vqav2_has_ten_answers_a_question(tmp_path):
    write_vqav2(tmp_path)
    rows = read(tmp_path, VQAV2)
    assert rows[0]["url"] == "http://h/COCO_000000000042.jpg"
    assert rows[0]["caption"] == "What colour is it? red"
    assert (rows[0]["question"], json.loads(rows[0]["answer"])) == ("What colour is it?", PEOPLE)
    assert [row["caption"] for row in rows[1:]] == ["Is it old? no", "Unanswered?"]
    assert json.loads(rows[2]["answer"]) == []


@pytest.mark.parametrize("zipped", [False, True])
def test_daquar_has_two_lines_a_question(tmp_path, zipped):
    text = (
        "what is on the left side of the oven in the image1 ?\ngarbage_bin\n"
        "how many chairs are in the image in the image12 ?\n3, 4\n\nwhat is it in image 7\nlamp\n"
    )
    content = text.encode()
    (tmp_path / "qa.txt").write_bytes(gzip.compress(content) if zipped else content)
    rows = read(tmp_path, DAQUAR)
    assert [row["url"] for row in rows] == [f"http://h/image{number}.png" for number in (1, 12, 7)]
    assert rows[0]["question"] == "what is on the left side of the oven"
    assert rows[1]["question"] == "how many chairs are in the image"
    assert [row["answer"] for row in rows] == ["garbage_bin", "3, 4", "lamp"]
    assert rows[2]["caption"] == "what is it lamp"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("what is it ?\nlamp\n", "question 1: 'what is it \\?' names no picture"),
        ("what is it in the image1 ?\n", "the last question has no answer"),
    ],
)
def test_a_text_that_is_not_daquar_s_is_one_line(tmp_path, text, says):
    (tmp_path / "qa.txt").write_text(text)
    with pytest.raises(SourceError, match=says):
        read(tmp_path, DAQUAR)


def test_files_that_are_not_vqav2_s_are_one_line(tmp_path):
    write_vqav2(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(SourceError, match=r"a.json has no list 'annotations': is it VQAv2's own file\?"):
        read(tmp_path, VQAV2)
    (tmp_path / "q.json").write_text('{"questions": 3}')
    with pytest.raises(SourceError, match="'questions' in q.json is no list"):
        read(tmp_path, VQAV2)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('annotations = "a.json"\n', "", "annotations is the second file"),
        ("{image:012d}", "x", "pictures is the address of a picture, with {image}"),
        ("{image:012d}", "{number}", "pictures is the address of a picture, with {image}"),
        ("location", 'extra = ["x"]\nlocation', "has columns of its own: remove extra"),
    ],
)
def test_keys_that_do_not_fit_are_one_line(tmp_path, old, new, says):
    write_vqav2(tmp_path)
    with pytest.raises(SourceError, match=says):
        read(tmp_path, VQAV2.replace(old, new))
