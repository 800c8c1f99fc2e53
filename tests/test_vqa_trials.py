"""Visual question answering as a task: rows with questions, the split by picture, `winnow train`, and its measure."""

import re
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import vqa_sources

from pipeline.errors import CompareError, SourceError
from pipeline.export import export
from pipeline.export.content import Content
from pipeline.ledger.asked import agreed, answers_of
from pipeline.manifest.manifest import Manifest
from pipeline.pages import predictions, report
from pipeline.sources import loading
from pipeline.trials.trials import Trial, finished
from training.data.answers import Vocabulary
from training.data.questions import Questions
from training.measures.vqa import Answering, soft
from training.studies import answer_examples, gain


def rows(storage, columns):
    with Manifest.open(storage).connection() as con:
        return con.sql(f"SELECT {columns} FROM rows ORDER BY url, question").fetchall()


def trials(storage):
    return [Trial.from_json(storage.fetch(key).read_bytes()) for key in finished(storage)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return vqa_sources.source(tmp_path_factory.mktemp("asked") / "source")


def test_the_caption_is_the_question_and_its_answer(asked):
    found = rows(asked[1], "url, question, answer, caption")
    assert len(found) == 180
    assert all(caption == f"{question} {answer}" for _, question, answer, caption in found)


def test_an_export_has_picture_question_and_answer(asked, tmp_path):
    export.write(Content(Manifest.open(asked[1]), "datasets"), tmp_path / "out")
    (file,) = (tmp_path / "out" / "data").glob("*.parquet")
    table = pq.read_table(file, columns=["image", "question", "answer"])
    assert len(table) == 150
    assert all(each["image"]["bytes"] and each["answer"] for each in table.to_pylist())


@pytest.mark.parametrize(
    ("value", "answers", "most"),
    [
        (None, (), None),
        ("", (), None),
        (" chair ", ("chair",), "chair"),
        ("chair, table", ("chair, table",), "chair, table"),
        (["no", "yes", "yes", None, " "], ("no", "yes", "yes"), "yes"),
        ('["no", "yes"]', ("no", "yes"), "no"),
        ("[no", ("[no",), "[no"),
        (2, ("2",), "2"),
    ],
)
def test_a_question_has_one_answer_or_several(value, answers, most):
    assert answers_of(value) == answers
    assert agreed(answers) == most


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('question = "question"', "question and answer belong together"),
        ('question = "question"\nanswer = "answer"\ncaption = "text"', "remove caption"),
    ],
)
def test_columns_that_do_not_fit_are_one_line(tmp_path, lines, says):
    (tmp_path / "list.tsv").write_text("url\tquestion\tanswer\n")
    (tmp_path / "asked.toml").write_text(f'[pairs]\nlocation = "list.tsv"\n{lines}\n')
    with pytest.raises(SourceError, match=says):
        loading.load(tmp_path / "asked.toml")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('vqa = "small"', 'vqa = "smal"', "there is no model 'smal'"),
        ('vqa = "small"', 'head = "linear"\nencoder = "hog"', "needs vqa = NAME"),
        ('kind = "vqa"', 'kind = "retrieval"', "needs head and encoder, or model"),
        ('vqa = "small"', 'vqa = "small"\nhead = "linear"', "vqa names a whole model"),
    ],
)
def test_learners_that_do_not_fit_are_one_line(asked, old, new, says):
    path = asked[0].path.with_name("changed.toml")
    path.write_text(asked[0].path.read_text().replace(old, new))
    with pytest.raises(SourceError, match=says):
        loading.load(path)


@pytest.mark.slow
def test_a_model_is_a_learner_of_questions(asked):
    described, storage = asked
    found = gain.measure(described, storage)
    (learner,) = found["learners"]
    assert learner["encoder"]["kind"] == "timm:test_resnet@random and transformers:bert, concatenation"
    assert {(row["arm"], row["augmented"]) for row in learner["rows"]} >= {("raw", False), ("filtered", True)}
    assert found["test"]["says"] == "24 held-out pictures with 72 questions"
    assert found["counts"]["answers"] == 7
    assert found["counts"]["unanswerable"] == found["counts"]["test_unanswerable"] == 0
    assert found["baseline"]["says"] == "always '1'"
    assert found["metrics"][0] == ["accuracy", "accuracy"]
    own = trials(storage)
    assert all(len(trial.predictions) == 72 for trial in own)
    assert len({trial.setting.seed for trial in own}) == 5
    again = gain.measure(described, storage)
    assert again == found
    (size,) = found["answering"]["sizes"]
    assert re.fullmatch(
        rf"small: {(96 + 32) * 7 + 7} of [\d,]+ parameters train \([\d.]+%\); [\d.]+ s an epoch, [\d,]+ MiB at most",
        size,
    )
    assert all(0 < trial.memory_mb < 100_000 for trial in own)
    assert len(found["answering"]["wups"]) == 1
    (confusion,) = found["answering"]["confusion"]
    assert len(confusion["rows"]) == len(confusion["answers"]) == 7
    assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in confusion["rows"])
    alarms = found["answering"]["alarms"]
    assert all(each["seeds"] <= 5 and each["sentence"].startswith("small collapsed in") for each in alarms)
    report.write(storage, Manifest.open(storage), found, storage.root / "report.html")
    page = (storage.root / "report.html").read_text()
    assert all(each["sentence"].split(":")[0] in page for each in alarms)
    assert "what was given instead" in page


@pytest.mark.slow
def test_no_picture_is_in_two_splits_and_the_vocabulary_is_of_the_pool(tmp_path):
    odd = {(number, 0): "unheard of" for number in range(0, 60, 13)}
    split = "[task.split]\nshare = 0.3\n"
    more = "[task.vqa]\nanswers = 4\n"
    described, storage = vqa_sources.source(tmp_path / "s", answers=odd, split=split, more=more)
    found = gain.measure(described, storage)
    assert found["counts"]["answers"] == 4
    assert found["counts"]["unanswerable"] > 0
    assert found["counts"]["test_unanswerable"] > 0
    trial = trials(storage)[0]
    assert set(trial.predictions) <= set(range(4))
    (wrong, right) = answer_examples.examples(described, storage, None, None)
    assert (wrong.heading, right.heading) == ("Wrong", "Right")
    assert wrong.predictions
    for group in (wrong, right):
        pictures = [each.picture.tobytes() for each in group.predictions]
        assert len(set(pictures)) == len(pictures) <= answer_examples.EACH
        for each in group.predictions:
            (people, true, _), (learner, given, fits) = each.lines
            assert (people, learner, fits) == ("answer", "small", group is right)
            assert (given == true) == fits
    predictions.write("<b>asked", "of tests", [wrong, right], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count('<img src="data:image/jpeg;base64,') == len(wrong.predictions) + len(right.predictions)
    assert "&lt;b&gt;asked" in page


@pytest.mark.slow
@pytest.mark.parametrize("model", ["picture = false\n", "image_blocks = 1\ntext_blocks = 1\n"])
def test_a_baseline_and_towers_that_train_are_learners(tmp_path, model):
    described, storage = vqa_sources.source(tmp_path / "s", model=model, steps=2)
    gain.measure(described, storage)
    points = {len(trial.curve) for trial in trials(storage)}
    assert points == ({2} if "picture" in model else {1})


def test_a_pool_without_answers_is_one_line(tmp_path):
    described, storage = vqa_sources.source(
        tmp_path / "s", count=4, answers={(number, kind): " " for number in range(4) for kind in range(3)}
    )
    with pytest.raises(CompareError, match="none of 12 downloaded pairs has a question and an answer; see task.vqa"):
        gain.measure(described, storage)


ANSWERS = [("yes",), ("no",), ("2",), ("red",), ("chair", "chair", "table"), ("yes",), ("lamp",), ("Yes",)]
VOCABULARY = Vocabulary(("yes", "no", "2", "red", "chair", "table"))


def measure():
    questions = Questions(np.array([0, 0, 1, 1, 2, 2, 3, 3]), ("x",) * 8, tuple(ANSWERS))
    return Answering(questions, VOCABULARY, 4)


def test_scores_are_those_of_scikit_learns_definitions():
    found, given = measure(), np.array([0, 0, 2, 4, 4, 1, 0, 0])
    scores = found.scores(given)
    true = [agreed(each) for each in ANSWERS]
    said = [VOCABULARY.answers[each] for each in given]
    assert scores["accuracy"] == 3 / 8
    labels, per = sorted({*true, *said}), {}
    for label in labels:
        right = sum(one == other == label for one, other in zip(true, said, strict=True))
        p = right / said.count(label) if label in said else 0
        r = right / true.count(label) if label in true else 0
        per[label] = p, r, 2 * p * r / (p + r) if p + r else 0
    support = Counter(true)
    for place, what in enumerate(("precision", "recall", "f1")):
        assert scores[f"{what}_macro"] == pytest.approx(np.mean([each[place] for each in per.values()]))
        weighted = sum(per[label][place] * support[label] for label in labels) / 8
        assert scores[f"{what}_weighted"] == pytest.approx(weighted)
    assert scores["recall_weighted"] == pytest.approx(scores["accuracy"])
    assert scores["yes_no"] == 1 / 4  # of yes, no, yes and Yes
    assert (scores["number"], scores["colour"], scores["other"]) == (1, 0, 1 / 2)
    assert list(scores) == list(found.metrics)
    assert scores["top2_share"] == 6 / 8


def test_soft_accuracy_is_that_of_the_vqa_challenge():
    people = ["yes"] * 2 + ["no"] * 8
    by_hand = (2 * min(1, 1 / 3) + 8 * min(1, 2 / 3)) / 10
    assert soft("yes", people) == pytest.approx(by_hand)
    assert soft("no", people) == 1
    assert soft("two", people) == 0
    assert (soft("a", ["a"]), soft("b", ["a"]), soft("a", [])) == (1, 0, 0)


def test_resamples_draw_pictures_with_all_their_questions():
    found, given = measure(), np.array([0, 0, 2, 4, 4, 1, 0, 0])
    times = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 4, 0, 0]], np.float32)
    assert found.resampled(given, times) == pytest.approx([3 / 8, 3 / 8, 1 / 2])


def test_the_baseline_is_the_most_frequent_answer_of_the_pool():
    says, scores = measure().baseline(np.array([3, 3, -1, 0, 3]))
    assert says == "always 'red'"
    assert scores["accuracy"] == 1 / 8


def test_alarm_and_confusion():
    found = measure()
    assert found.alarm(np.array([0, 1, 2, 3, 4, 0, 4, 5])) is None
    assert found.alarm(np.array([3] * 7 + [4])).startswith("100% of all predictions are 'red' or 'chair'")
    assert found.most_frequent(2) == ["yes", "no"]
    given = np.array([0, 0, 2, 4, 4, 1, 0, 0])
    assert found.confusion(given, 1) == [[1, 1]]
    assert found.confusion(given, 2) == [[1, 1, 0], [1, 0, 0]]
