"""What a recipe caught of labelled pairs, worked out by hand on a tiny manifest."""

import published_sources
import pytest
from rich.console import Console

from flows.console import labels
from pipeline.errors import SourceError
from pipeline.manifest.manifest import Manifest
from pipeline.review import caught
from pipeline.review.sample import Labelled
from pipeline.store.storage import Storage

FEW = {"name": "few", "sql": "captions_words < 4"}


@pytest.fixture
def manifest(tmp_path):
    """Sharpness 40 to 64, of which "sharp" drops the first ten. 41 failed, 60 has no score; all others pass "few"."""
    store = Storage(tmp_path / "store")
    published_sources.published(
        published_sources.listed(tmp_path, range(40, 65), (published_sources.SHARP, FEW)),
        store,
        failed={41},
        unscored={60},
    )
    return Manifest.open(store)


def known(folder, labels):
    rows = [f"http://host/{number}.jpg\tpicture number {number}\t{label}\n" for number, label in labels.items()]
    (folder / "labels.tsv").write_text("url\tcaption\tlabel\n" + "".join(rows))
    return Labelled.read(folder / "labels.tsv", ["clean", "fine"])


LABELS = {40: "blurred", 41: "blurred", 42: "swapped", 49: "clean", 50: "blurred", 60: "fine", 61: "clean", 99: "clean"}


def test_by_hand(manifest, tmp_path):
    found = caught.count(manifest, known(tmp_path, LABELS))
    told = [[each[name] for name in ("label", "pairs", "dropped_by", "dropped", "recall")] for each in found["kinds"]]
    assert told == [
        ["clean", 2, {"sharp": 1, "few": 0}, 1, 0.5],
        ["fine", 1, {"sharp": 1, "few": 1}, 1, 1.0],  # no filter has an answer
        ["blurred", 2, {"sharp": 1, "few": 0}, 1, 0.5],
        ["swapped", 1, {"sharp": 1, "few": 0}, 1, 1.0],
    ]
    assert found["filters"] == [
        {"filter": "sharp", "dropped": 4, "bad": 2, "precision": 0.5},
        {"filter": "few", "dropped": 1, "bad": 0, "precision": 0.0},
    ]
    assert found["failed"] == [{"label": "blurred", "pairs": 1, "causes": {"http_404": 1}}]
    assert found["absent"] == 1
    assert sum(each["pairs"] for each in [*found["kinds"], *found["failed"]]) + found["absent"] == len(LABELS)


def test_labels_of_another_source(manifest, tmp_path):
    with pytest.raises(SourceError, match="none of its pairs is in manifest"):
        caught.count(manifest, known(tmp_path, {1: "clean", 2: "blurred"}))


def test_a_filter_that_dropped_nothing_has_no_precision(manifest, tmp_path):
    found = caught.count(manifest, known(tmp_path, {61: "clean", 62: "swapped"}))
    assert [each["precision"] for each in found["filters"]] == [None, None]


def test_of_near_duplicates_the_one_that_goes_may_be_the_original(tmp_path, capsys):
    """50 and 51 differ in one bit; the sharper stays."""
    more = '[scorers.duplicates]\nkind = "duplicates"\nof = "pixels"\nradius = 1\n'
    more += '[distinct]\nradius = 1\nbest_by = "pixels_sharpness"\n'
    store = Storage(tmp_path / "store")
    published_sources.published(
        published_sources.listed(tmp_path / "lists", [3, 50, 51], (published_sources.SHARP,), more=more), store
    )
    sample = known(tmp_path, {3: "blurred", 50: "clean", 51: "copy"})
    found = caught.count(Manifest.open(store), sample)
    told = {each["label"]: each["dropped_by"] for each in found["kinds"]}
    assert told == {
        "clean": {"sharp": 0, "distinct": 1},
        "blurred": {"sharp": 1, "distinct": 0},
        "copy": {"sharp": 0, "distinct": 0},
    }
    Console(width=120).print(labels.caught(found))
    assert "the original goes: 1 clean or fine pairs." in capsys.readouterr().out


def test_ten_filters_can_be_read_in_100_columns(manifest, tmp_path, capsys):
    names = ["worded", "plain", "sharp", "contrast", "unblocky", "aesthetic", "aligned", "sized", "distinct", "clean"]
    filters = [{"name": name, "sql": published_sources.SHARP["sql"]} for name in names]
    store = Storage(tmp_path / "wide")
    published_sources.published(published_sources.listed(tmp_path / "lists", range(40, 65), filters), store)
    found = caught.count(Manifest.open(store), known(tmp_path, LABELS))
    for kind in found["kinds"]:
        kind["pairs"] = 1234
        kind["dropped_by"] = dict.fromkeys(kind["dropped_by"], 1000)
    Console(width=100).print(labels.caught(found))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    for name in names:
        assert any(
            line.split()[: len(found["kinds"]) + 1] == [name, *["1,000"] * len(found["kinds"])] for line in lines
        )
