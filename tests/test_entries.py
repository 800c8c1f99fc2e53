"""Captions against a list of entries: matching as MetaCLIP publishes it, and balancing with the answer by hand."""

import hashlib
import random

import numpy as np
import published_sources
import pytest

from pipeline.errors import ModelError
from pipeline.manifest.manifest import Manifest
from pipeline.scorers.entries import EntriesSpec, Matcher
from pipeline.store.storage import Storage
from pipeline.uids import fractions, random_bits

ENTRIES = "dog\n cat \n\nred dog\ndog\n"
CAPTIONS = ["a dog", "a red dog", "dog, cat", "a cat", "dog", "a hotdog", "A Dog"]
"""Of which four have the dog, two the cat, one the red dog, and two nothing."""


def spaced(text):
    """The published rule, in the published order of replacements."""
    for mark in ",.;:?!`":
        text = text.replace(mark, f" {mark} ")
    for space in "\t\n\r":
        text = text.replace(space, " ")
    return f" {text} "


def test_matching_is_that_of_substrings():
    chance = random.Random(0)
    words = ["a", "dog", "red", "dogs", ",", "no.", "", "U.S.", "dog's", "`", "Dog", "a b"]
    entries = list({" ".join(chance.choices(words, k=chance.randint(1, 4))).strip() for _ in range(300)} - {""})
    matcher = Matcher(entries)
    hits = 0
    for _ in range(500):
        caption = chance.choice([" ", "", "\t", ", "]).join(chance.choices(words, k=chance.randint(0, 9)))
        found = {number for number, entry in enumerate(entries) if f" {entry} " in spaced(caption)}
        assert matcher.find(caption) == found, caption
        hits += len(found)
    assert hits > 500


def balanced(folder, captions, limit="limit = 1"):
    (folder / "entries.txt").write_text(ENTRIES)
    rows = [(caption, f"http://host/{number}.jpg") for number, caption in enumerate(captions)]
    toml = f'[scorers.entries]\nkind = "entries"\nfile = "entries.txt"\n{limit}\n'
    published_sources.published(
        published_sources.listed(folder, [], filters=(), rows=rows, more=toml), Storage(folder / "store")
    )
    with Manifest.open(Storage(folder / "store")).connection() as con:
        return con.execute(
            "SELECT uid, entries_matched, entries_rarest, entries_probability, entries_draw, entries_rank FROM rows"
        ).fetchall()


def test_a_pool_by_hand(tmp_path):
    """t = 1: the dog lets a caption in with 1/4, the cat with 1/2, the red dog for sure; both animals with 5/8."""
    found = balanced(tmp_path, CAPTIONS)
    assert [row[1:4] for row in found] == [
        (1, 4, 0.25),
        (2, 1, 1.0),
        (2, 2, 0.625),
        (1, 2, 0.5),
        (1, 4, 0.25),
        (0, None, 0.0),
        (0, None, 0.0),
    ]
    lots = [int(hashlib.blake2b(f"entries\0{row[0]}".encode(), digest_size=8).hexdigest(), 16) for row in found]
    assert [row[4] for row in found] == [(lot >> 40) / 2**24 for lot in lots]
    dogs, cats = (sorted(rows, key=lots.__getitem__) for rows in ([0, 1, 2, 4], [2, 3]))
    assert [row[5] for row in found] == [
        dogs.index(0) + 1,
        1,  # there is one red dog
        1 + min(dogs.index(2), cats.index(2)),
        cats.index(3) + 1,
        dogs.index(4) + 1,
        None,
        None,
    ]


@pytest.mark.slow
def test_the_limit_fits_the_pool(tmp_path):
    """Of so few pairs it is 1, as above."""
    (tmp_path / "b").mkdir()
    found, more = balanced(tmp_path, CAPTIONS), balanced(tmp_path / "b", [*"xy", *CAPTIONS], limit="")
    assert [row[1:4] for row in more[2:]] == [row[1:4] for row in found]


def test_nothing_draws_alike_and_everything_evenly():
    uids = [f"{number:032x}" for number in range(20_000)]
    lots = fractions(random_bits("entries", uids), bits=24)
    assert lots.astype(np.float32).max() < 1
    assert (lots < 0.2).mean() == pytest.approx(0.2, abs=0.01)
    assert len(set(random_bits("entries", uids).tolist()) & set(random_bits("union", uids).tolist())) == 0


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("list.txt", b"\n \n", "has no entries"),
        ("list.txt", b"caf\xe9", "is no list of entries"),
        ("list.json", b'{"dog": 1', "is no list of entries"),
        ("list.json", b"[1, 2]", "is no list of entries"),
    ],
)
def test_a_list_that_is_none(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=told):
        EntriesSpec(kind="entries", file=tmp_path / name).load()


def test_a_list_as_metaclip_publishes_its_own(tmp_path):
    (tmp_path / "metadata.json").write_text('["caf\\u00e9", "dog"]')
    spec = EntriesSpec(kind="entries", file=tmp_path / "metadata.json")
    assert spec.load().matcher.find("a caf\u00e9.") == {0}
