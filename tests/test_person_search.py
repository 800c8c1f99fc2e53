"""Recall on captions that name a person."""

import numpy as np
import pytest

from training.measures.person_search import Recalls, by_person, names_person


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A MAN on a horse", True),
        ("Two girls' hats", True),
        ("snowboarders in the air.", True),
        ("A black dog runs over a mandolin", False),
        ("a boyish manikin", False),
        ("women", True),
        ("its owner's ball", False),
        ("", False),
    ],
)
def test_a_person_is_named_by_a_whole_word(caption, expected):
    assert names_person(caption) is expected


def test_recall_of_people_and_of_others_apart():
    captions = ["a man", "a dog", "two women", "a child", "a red ball", "a surfer"]
    found = by_person(captions, np.array([1, 2, 5, 11, 1, 6]))
    assert found["people"] == Recalls(4, {1: 0.25, 5: 0.5, 10: 0.75}, 5)
    assert found["others"] == Recalls(2, {1: 0.5, 5: 1.0, 10: 1.0}, 1)


def test_without_queries_there_is_no_recall():
    found = by_person(["a dog"], np.array([3]))
    assert found["people"] == Recalls(0, {1: None, 5: None, 10: None}, None)
    with pytest.raises(ValueError, match="1 captions have 2 ranks"):
        by_person(["a dog"], np.array([3, 4]))
