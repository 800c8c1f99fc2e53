"""WUPS, on similarities by hand; with WordNet itself where its data is here."""

import pytest

from pipeline.errors import ModelError
from training.measures import wups

NEAR = {("chair", "table"): 0.84, ("chair", "stool"): 0.95, ("lamp", "table"): 0.5}


def near(*things):
    return 1.0 if len(set(things)) == 1 else NEAR.get(things, 0.0)


@pytest.mark.parametrize(
    ("answer", "right", "at_09", "at_0"),
    [
        ("chair", "chair", 1, 1),
        ("Chair", " chair ", 1, 1),
        ("table", "chair", 0.084, 0.84),
        ("stool", "chair", 0.95, 0.95),
        ("chair, table", "table, chair", 1, 1),
        ("chair", "chair, lamp", 0, 0),  # the lamp is covered by nothing
        ("chair, lamp", "chair, table", 0.05, 0.5),
        ("", "chair", 0, 0),
    ],
)
def test_the_product_of_what_covers_each_thing(answer, right, at_09, at_0):
    assert wups.wups(answer, right, 0.9, near) == pytest.approx(at_09)
    assert wups.wups(answer, right, 0.0, near) == pytest.approx(at_0)


def test_wordnet_or_one_line():
    if wups.version() is None:
        with pytest.raises(ModelError, match="WUPS is not computed: it needs NLTK and its WordNet data"):
            wups.wups("chair", "table", 0.9)
        return
    assert wups.similarity("chair", "chair") == 1
    assert 0.5 < wups.similarity("chair", "table") < 1
    assert wups.similarity("chair", "no such thing") == 0
