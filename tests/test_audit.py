"""Whom a recipe removes, on pairs that can be counted by hand."""

import published_sources
import pytest

from filters.core import Filter, Recipe
from pipeline.manifest.manifest import Manifest
from pipeline.review import audit
from pipeline.review.rates import Rate
from pipeline.store.storage import Storage


@pytest.fixture
def manifest(tmp_path):
    """60 pairs: "picture number N" of host for 20 to 69, ten of another host with a long caption; one failed."""
    store = Storage(tmp_path / "store")
    rows = [(f"Zebra {'in the grass ' * 4} {n}", f"https://Other.example:8443/a/{n}.jpg") for n in range(10, 20)]
    published_sources.published(
        published_sources.listed(tmp_path, range(20, 70), rows=rows), store, failed={69}, unscored={68}
    )
    return Manifest.open(store)


SHARP = Recipe("sharp", (Filter("sharp", "pixels_sharpness >= 50"),))


def test_shares_by_language_domain_length_and_word(manifest):
    """Of 59 pairs 20..49, 68 and the ten others go."""
    found = audit.audit(manifest, SHARP)
    assert found.removed == Rate.count(41, 59)
    told = {(each.by, each.value): (each.removed.hits, each.removed.of) for each in found.groups}
    assert told["language", "en"] == (40, 58)
    assert told["language", "(unknown)"] == (1, 1)
    assert told["domain", "host"] == (31, 49)
    assert told["domain", "other.example"] == (10, 10)
    assert told["length", "10 to 19"] == (31, 49)
    assert told["length", "40 to 79"] == (10, 10)
    assert told["word", "zebra"] == (10, 10)  # once a pair, whatever its case
    assert told["word", "grass"] == (10, 10)
    assert told["word", "picture"] == (31, 49)
    assert len(found.of("word")) == 6 + 59  # picture number zebra in the grass, and all numbers


def test_who_is_hit_is_who_is_surely_hit(manifest):
    """Ten of ten is at least 72 %, above the 69 % of all; one of one tells nothing."""
    found = audit.audit(manifest, SHARP)
    assert [each.value for each in found.above_average("domain")] == ["other.example"]
    assert found.above_average("language") == []
    assert {each.value for each in found.above_average("word")} == {"zebra", "in", "the", "grass"}
    assert audit.audit(manifest, Recipe("everything")).above_average("domain") == []


def test_small_groups_are_told_together(manifest):
    found = audit.audit(manifest, SHARP, most=1)
    assert [(each.value, each.removed.of) for each in found.of("domain")] == [("host", 49), ("(all others)", 10)]
    assert len(found.of("word")) == 1
