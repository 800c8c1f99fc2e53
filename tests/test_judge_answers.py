"""How typed answers are described, asked for, and read from replies that may be anything."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.judging.answers import Answer, AnswerError, instruction, read, schema

ANSWERS = {
    "fits": Answer.parse("bool"),
    "stars": Answer.parse("1..5"),
    "share": Answer.parse("0.0..1.0"),
    "sort": Answer.parse(["photo", "drawing"]),
    "words": Answer.parse("text"),
}
GOOD = {"fits": True, "stars": 4, "share": 0.5, "sort": "photo", "words": "a red ball"}


def test_a_reply_is_read_whatever_is_around_it():
    text = json.dumps(GOOD)
    for reply in (text, f"```json\n{text}\n```", f"Sure! {{}} Here it is: {text} Anything else?", f"{{broken {text}"):
        assert read(reply, ANSWERS) == GOOD


def test_what_a_model_thinks_before_its_reply_is_no_answer():
    draft, text = json.dumps(GOOD | {"stars": 1}), json.dumps(GOOD)
    for reply in (f"<think>Perhaps {draft}?</think>\n{text}", f"Perhaps {draft}?\n</think>\n\n{text}"):
        assert read(reply, ANSWERS) == GOOD
    with pytest.raises(AnswerError, match="^no_json$"):
        read(f"<think>{text}</think>", ANSWERS)


def test_half_a_surrogate_pair_is_a_question_mark():
    reply = json.dumps(GOOD | {"words": "\ud83d\ude00 and \ud83d"})
    assert read(reply, ANSWERS)["words"] == "\N{GRINNING FACE} and ?"


def test_numbers_and_booleans_may_be_text_and_words_of_another_case():
    changed = {"fits": "Yes", "stars": "4", "share": "0.5", "sort": " PHOTO "}
    assert read(json.dumps(GOOD | changed), ANSWERS) == GOOD
    assert read(json.dumps(GOOD | {"stars": 4.0}), ANSWERS)["stars"] == 4


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"fits": "perhaps"}, "wrong_type"),
        ({"fits": 1}, "wrong_type"),
        ({"stars": 6}, "out_of_range"),
        ({"stars": 3.5}, "wrong_type"),
        ({"stars": True}, "wrong_type"),
        ({"share": "NaN"}, "wrong_type"),
        ({"share": 1e400}, "wrong_type"),
        ({"stars": 10**400}, "wrong_type"),
        ({"share": 10**400}, "wrong_type"),
        ({"share": -0.1}, "out_of_range"),
        ({"sort": "statue"}, "unknown_word"),
        ({"sort": 3}, "wrong_type"),
        ({"words": "  "}, "empty"),
        ({"words": None}, "wrong_type"),
    ],
)
def test_a_wrong_answer_is_none(changed, cause):
    with pytest.raises(AnswerError, match=f"^{cause}$"):
        read(json.dumps(GOOD | changed), ANSWERS)


def test_without_an_answer_the_cause_says_what_is_missing():
    for reply, cause in (("I cannot help with that.", "no_json"), ('{"fits": true}', "no_answer"), ("[1]", "no_json")):
        with pytest.raises(AnswerError, match=f"^{cause}$"):
            read(reply, ANSWERS)


@settings(deadline=None)
@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_no_reply_is_an_error_of_another_kind(reply):
    with pytest.raises(AnswerError):
        read(reply, ANSWERS)
    with pytest.raises(AnswerError):
        read("{" * 1_000_000 + reply, ANSWERS)


def test_the_model_is_told_the_form_in_words_and_as_a_schema():
    assert '"stars": a whole number from 1 to 5' in instruction(ANSWERS)
    assert 'one of "photo", "drawing"' in instruction(ANSWERS)
    made = schema(ANSWERS)
    assert made["required"] == list(ANSWERS)
    assert made["properties"]["stars"] == {"type": "integer", "minimum": 1, "maximum": 5}
    assert made["properties"]["sort"]["enum"] == ["photo", "drawing"]


@pytest.mark.parametrize(
    "described",
    ["int", "5..1", "1..", "", ["one"], ["a", "A"], ["a", " "], "0..3000000000", 5, True, ["a", 3], {"a": "b"}],
)
def test_an_unknown_type_is_refused(described):
    with pytest.raises(ValueError, match=r"an answer is|at least two|within 2,147,483,647"):
        Answer.parse(described)
