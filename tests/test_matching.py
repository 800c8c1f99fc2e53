"""Tasks for learners of captions: retrieval, match or no match, zero-shot; by hand, and on pictures of the demo's."""

import io
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import training_sources
from rich.console import Console
from scipy.stats import hypergeom

from flows.console import gain as gains
from pipeline.demo import captions as words
from pipeline.demo import pool as demo
from pipeline.errors import CompareError, SourceError
from pipeline.query import sandbox
from pipeline.settings.task import Task
from pipeline.settings.task import TestSet as Held
from pipeline.sources import loading
from training.data import labels
from training.data.heldout import HeldOut
from training.data.pairs import Pairs
from training.data.pool import Pool
from training.measures import intervals, matching, metrics
from training.measures.matching import Match, Retrieval
from training.studies import comparison, fairness, gain, measuring

CLIP = f'{{ kind = "open_clip", model = "local-dir:{Path(demo.__file__).parent / "clip"}" }}'
DUAL = {"dual": {"head": "dual", "encoder": {"kind": "open_clip", "model": "ViT-B-32"}}}
READS = '"dual"\nencoder = "open_clip:RN50"'
BREEDS = {"dog": ("Pug", "boxer"), "cat": ("manx",)}


@pytest.fixture
def three():
    """Pictures with the captions a and b; c; c again, in other letters and blanks, and d."""
    return Retrieval(Pairs.of(["a", "b", "c", " C", "d"], np.array([0, 0, 1, 2, 2])), 3)


COSINES = np.array(
    [
        [0.1, 0.9, 0.5, 0.2],  # b is its own, and first
        [0.3, 0.6, 0.6, 0.1],  # so is c, but b is as near
        [0.8, 0.7, 0.2, 0.4],  # d is the better of its two, behind a and b
    ],
    np.float32,
)


def test_ranks_by_hand(three):
    """Of captions: picture 0 is the third for a and the first for b; c is said of 1 and 2, and 1 is first; d has 2."""
    assert three.pairs.texts == ("a", "b", "c", "d")
    said = three.predict(COSINES, np.eye(4, dtype=np.float32))
    assert said.tolist() == [1, 2, 3, 3, 1, 1, 1, 1]


def test_recall_by_hand(three):
    found = three.scores(np.array([1, 2, 3, 3, 1, 1, 1, 1]))
    assert list(found) == list(three.metrics)
    assert found["i2t_r1"] == pytest.approx(1 / 3)
    assert found["t2i_r1"] == pytest.approx(4 / 5)
    assert [found[name] for name in ("i2t_r5", "i2t_r10", "t2i_r5", "t2i_r10")] == [1, 1, 1, 1]
    assert found["mean_recall"] == pytest.approx((1 / 3 + 4 / 5 + 4) / 6)
    assert (found["i2t_median"], found["t2i_median"]) == (2, 1)


def test_captions_are_resampled_with_their_picture(three):
    """Picture 0 twice and 1 once, then 2 alone: 2 of 3 pictures and 3 of 5 captions at 1; none of 1, 2 of 2."""
    times = np.array([[2, 1, 0], [0, 0, 3]], np.float32)
    found = three.resampled(np.array([1, 2, 3, 3, 1, 1, 1, 1]), times)
    assert found.tolist() == pytest.approx([(2 / 3 + 3 / 5 + 4) / 6, (0 + 1 + 4) / 6])


def test_chance_by_hand(three):
    """Of 4 texts picture 0 has two, 1 one and 2 two; of 3 pictures c has two, and each other caption one."""
    says, found = three.baseline(np.array([]))
    assert says == "chance"
    assert found["i2t_r1"] == pytest.approx((2 / 4 + 1 / 4 + 2 / 4) / 3)
    assert found["t2i_r1"] == pytest.approx((3 * 1 / 3 + 2 * 2 / 3) / 5)
    assert found["i2t_r5"] == found["t2i_r10"] == 1
    assert (found["i2t_median"], found["t2i_median"]) == (2, 2)
    for right, candidates, k in itertools.product((1, 2, 5), (5, 40), (1, 5, 10)):
        expected = hypergeom.sf(0, candidates, right, min(k, candidates))
        assert matching.chance(np.array([right]), candidates, k) == pytest.approx(expected)


def test_who_says_the_same_of_everything_finds_nothing():
    """Of 20 pictures each right one stands behind the 19 wrong ones."""
    measure = Retrieval(Pairs.of([f"caption {n}" for n in range(20)], np.arange(20)), 20)
    said = measure.predict(np.ones((20, 3), np.float32), np.ones((20, 3), np.float32))
    assert measure.scores(said)["mean_recall"] == 0
    assert intervals.Bootstrap(measure, 20, 2, 9).mean(np.stack([said, said])).resampled.tolist() == [0] * 9


def test_match_by_hand():
    """Truth yes yes no no, said yes no yes no; three of the four mixed couples of pairs are in order."""
    measure = Match(Pairs.of("abcd", np.array([0, 0, 1, 1]), np.array([True, True, False, False])), 2)
    said = np.array([0.2, -0.1, 0.1, -0.3])
    assert measure.scores(said) == {"f1": 0.5, "precision": 0.5, "recall": 0.5, "accuracy": 0.5, "auc": 0.75}
    alone = np.array([[2, 0], [0, 2], [1, 1]], np.float32)
    assert measure.resampled(said, alone).tolist() == pytest.approx([2 / 3, 0, 0.5])
    assert measure.scores(np.array([0, 1, -1, -2]))["f1"] == 1  # on the threshold is a match
    says, found = measure.baseline(np.array([]))
    assert says == "always match"
    assert found == {"f1": pytest.approx(2 / 3), "precision": 0.5, "recall": 1, "accuracy": 0.5, "auc": 0.5}
    assert measure.scores(np.full(4, -1.0))["f1"] == 0


@pytest.mark.parametrize(
    ("cosines", "match", "expected"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
        ([0.4, 0.1, 0.3, 0.2], [1, 0, 1, 0], 0.25),
        ([0.1, 0.3, 0.3, 0.3], [0, 0, 1, 1], 0.2),  # what is equal stays together
        ([0.1, 0.2], [1, 0], -2),  # nothing is better than always match
        ([0.1, 0.2, 0.3], [0, 1, 0], 0.15),  # as is a threshold above all: the lower one
    ],
)
def test_a_threshold_by_hand(cosines, match, expected):
    assert matching.threshold(np.array(cosines), np.array(match, bool)) == pytest.approx(expected)


def test_wrong_captions_do_not_move_the_threshold():
    """Of the pairs that should match 40 % do not."""
    rng = np.random.default_rng(0)
    wrong, right = rng.normal(0.2, 0.1, 20_000), rng.normal(0.5, 0.1, 20_000)
    match = np.arange(40_000) >= 20_000
    spoiled = np.where(np.arange(20_000) % 5 < 2, rng.normal(0.2, 0.1, 20_000), right)
    clean, noisy = (matching.threshold(np.concatenate([wrong, each]), match) for each in (right, spoiled))
    assert clean == pytest.approx(0.35, abs=0.02)
    assert noisy == pytest.approx(clean, abs=0.03)


def test_wrong_captions_do_not_make_a_learner_that_always_says_match_the_best():
    """Of 50 pairs that should match 26 do not, and a learner that knows says so: by F1 it would be worse."""
    measure = Match(Pairs.of([f"{n}" for n in range(100)], np.arange(100), np.arange(100) < 50), 100)
    knows, always = np.where(np.arange(100) < 24, 0.5, -0.5), np.zeros(100)
    assert measure.scores(knows)["f1"] < measure.scores(always)["f1"]
    assert measuring.selection_score(measure, knows) == pytest.approx(0.52 * 0.5 + 0.48)
    assert measuring.selection_score(measure, always) == 0.5


def test_half_get_the_caption_of_another():
    captions = [f"caption {n // 2}" if n % 2 else f"Caption  {n // 2}" for n in range(40)] + [
        f"two {n}" for n in range(20)
    ]
    whole = Pairs.of(captions, np.array([*(n // 2 for n in range(40)), *range(20)]))
    assert len(whole.texts) == 40
    found = whole.half_mismatched(3)
    assert found.match.sum() == 30
    own = set(zip(whole.picture.tolist(), whole.text.tolist(), strict=True))
    asked = zip(found.picture.tolist(), found.text.tolist(), strict=True)
    assert [pair in own for pair in asked] == found.match.tolist()
    assert whole.half_mismatched(3).content == found.content != whole.half_mismatched(4).content


def test_captions_that_are_all_alike_cannot_be_mismatched():
    with pytest.raises(CompareError, match="too few different captions"):
        Pairs.of(["same", "Same ", "same"], np.arange(3)).half_mismatched(0)


def written(folder, **columns):
    """Pictures a, b, c, of which b has a caption that is blank."""
    for name in "abc":
        (folder / name).write_bytes(training_sources.picture("disc", ord(name)))
    rows = {"image": list("aabbcc"), "caption": ["one", "two", " ", "three", "four", "One"]} | columns
    pq.write_table(pa.table(rows), folder / "test.parquet")
    return Held(location=folder / "test.parquet", folder=folder, **({"column": "fits"} if columns else {}))


def test_held_out_captions_are_read(tmp_path):
    read = HeldOut.read(written(tmp_path), Task(kind="retrieval", learners=DUAL))
    assert read.pairs.texts == ("four", "one", "three", "two")
    assert read.pairs.picture.tolist() == [0, 0, 1, 2, 2]
    assert read.description == "3 held-out pictures with 5 captions"
    halved = HeldOut.read(written(tmp_path), Task(kind="match", learners=DUAL))
    assert halved.description == "3 held-out pictures with 5 captions, 3 of them their own"
    assert halved.digest != read.digest


def test_a_column_says_what_matches(tmp_path):
    """Of b one row has no caption, and the other does not say whether it matches."""
    told = written(tmp_path, fits=["yes", "False", "1", None, "0", "TRUE"])
    read = HeldOut.read(told, Task(kind="match", learners=DUAL))
    assert [path.name for path in read.paths] == ["a", "c"]
    assert (read.unlabelled, read.pairs.match.tolist()) == (1, [True, False, False, True])
    same = HeldOut.read(written(tmp_path, fits=["yes"] * 6), Task(kind="match", learners=DUAL))
    with pytest.raises(CompareError, match=r"all match, or none: task.test.column"):
        fairness.check_test(same, Task(kind="match", learners=DUAL))


def test_zero_shot_may_have_labels_of_its_own(tmp_path):
    told = written(tmp_path, fits=["pug", "Boxer", "manx", None, "manx", "pug"])
    read = HeldOut.read(told, Task(kind="zero-shot", classes=BREEDS, learners=DUAL))
    assert (read.labels.tolist(), read.ambiguous, read.pairs) == ([0, 1], 1, None)


@pytest.mark.parametrize(("kind", "classes", "found"), [("zero-shot", BREEDS, [0, -1, -2]), ("match", {}, [-1] * 3)])
def test_every_pair_with_a_caption_trains(kind, classes, found):
    batch = pa.record_batch({"uid": list("abcde"), "caption": ["a pug", "a cow", "boxer and manx", " ", None]})
    table, counts = labels.label_pairs([batch], Task(kind=kind, classes=classes, learners=DUAL))
    assert table["label"].to_pylist() == found
    assert counts == {"downloaded": 5, "no_caption": 2, "captioned": 3}
    assert metrics.Classification(np.zeros(4, np.int16), "ab").baseline(table["label"].to_numpy())[0] == "always a"


def test_a_threshold_is_found_on_pictures_that_nobody_saw():
    """Each picture is there twice; 2 and 5 are drawn, so that 3 and 4 are seen, too; u0 leaked."""
    table = pa.table({"uid": [f"u{n}" for n in range(60)], "sha256": [str(n // 2) for n in range(60)]})
    task = Task(kind="match", learners=DUAL)
    known = Pool(table, None, [], [], np.arange(60) == 0, {}, {})
    found = measuring.undrawn(task, known, np.array([2, 2, 5]), 1)
    assert found.tolist() == [1, *range(6, 60)]
    with pytest.raises(CompareError, match="only 19 pairs were not drawn in seed 1"):
        measuring.undrawn(task, known, np.arange(2, 41), 1)


@pytest.mark.parametrize(
    ("told", "learner", "says"),
    [
        ('kind = "retrieval"', '"mlp"\nencoder = "hog"', 'retrieval is for .* learners.x needs head = "dual"'),
        ('kind = "match"', '"cnn"\nencoder = "pixels"', "kind = match is for learners of captions"),
        ('kind = "zero-shot"', READS, "name at least two classes"),
        ('kind = "match"\nclasses.a = ["a"]', READS, "kind = match has no classes"),
        ('kind = "match"\ncolumn = "a"', READS, "remove column, or set kind"),
        ('kind = "retreival"', READS, "task.kind"),
        (
            'kind = "retrieval"\ntest = { location = "bad.toml", folder = ".", column = "a" }',
            READS,
            "remove test.column",
        ),
    ],
)
def test_a_task_that_makes_no_sense_is_told_when_it_is_read(tmp_path, told, learner, says):
    (tmp_path / "list.tsv").write_text("a\thttp://host/1.jpg\n")
    (tmp_path / "bad.toml").write_text(
        f'[pairs]\nlocation = "list.tsv"\ncolumns = ["caption", "url"]\n'
        f"[task]\n{told}\n[task.learners.x]\nhead = {learner}\n"
    )
    with pytest.raises(SourceError, match=says):
        loading.load(tmp_path / "bad.toml")


COUNT, TESTED, SAID = 240, 80, 3

HELD = '[task.test]\nlocation = "../held.parquet"\nfolder = "../held"\n'
NAMED = "".join(f"classes.{name} = {list(dict.fromkeys(each))}\n" for name, each in words.SHAPE_WORDS.items())


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A folder with a held-out set of the demo's scenes; pictures and captions of a pool, two of five of another's."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "held").mkdir()
    rows = []
    for number in range(TESTED):
        jpeg = demo.jpeg(demo.photograph(7, demo.TEST, number), 7, number)
        (folder / f"held/{number:03d}.jpg").write_bytes(jpeg)
        said = demo.captions(7, demo.TEST, number, SAID)
        rows += [{"image": f"{number:03d}.jpg", "caption": each} for each in said]
    pq.write_table(pa.Table.from_pylist(rows), folder / "held.parquet")
    pictures = {n: demo.jpeg(demo.photograph(7, demo.POOL, n), 7, n) for n in range(COUNT)}
    captions = {n: demo.captions(7, demo.POOL, n, 1)[0] for n in range(COUNT)}
    lies = {n: f"stock {captions[(n + 7) % COUNT]}" for n in range(COUNT) if n % 5 < 2}
    return folder, {"pictures": pictures, "captions": captions | lies}


def measured(toys, kind, more="", held=HELD):
    folder, told = toys
    spent = {"steps": 80, "batch": 64, "learning_rate": 0.004}
    asked = f'[task]\nkind = "{kind}"\n{more}{held}'
    learners = {"dual": ("dual", CLIP)}
    described, storage = training_sources.task(
        folder / "t", COUNT, measured=asked, learners=learners, test=0, **told, **spent
    )
    found = gain.measure(described, storage)
    assert gain.measure(described, storage) == found
    rows = {(row["arm"], row["augmented"]): row for row in found["learners"][0]["rows"]}
    differences = {each["name"]: each for each in found["learners"][0]["differences"]}
    console = Console(width=120, file=io.StringIO())
    console.print(gains.table(found))
    shown = console.file.getvalue()
    assert found["test"]["says"] in " ".join(shown.split())
    assert f"\n{found['baseline']['says']} " in shown
    main = found["metrics"][0][0]
    trials = sandbox.run(
        f"SELECT {main} = score AS same, baseline, len(curve) FROM trials WHERE test = '{found['test']['digest']}'",
        [storage],
    )
    assert {tuple(row.values()) for row in trials.to_pylist()} == {(True, found["baseline"][main], 7)}
    print(shown)
    return described, storage, found, rows, differences


@pytest.mark.slow
def test_retrieval_gains_from_filtering(toys):
    _, _, found, rows, differences = measured(toys, "retrieval")
    assert found["test"]["pictures"] == TESTED
    assert found["baseline"]["mean_recall"] < 0.1 < rows["raw", False]["mean_recall_mean"]
    assert differences["filtered - random"]["low"] > 0


@pytest.mark.slow
def test_match_gains_from_filtering(toys):
    _, _, found, rows, differences = measured(toys, "match")
    assert found["baseline"]["accuracy"] == 0.5
    assert rows["filtered", False]["auc_mean"] > 0.7
    assert rows["filtered", False]["f1_mean"] > found["baseline"]["f1"]
    assert differences["filtered - random"]["low"] > 0


@pytest.mark.slow
def test_zero_shot_gains_from_filtering_and_trains_on_every_pair(toys):
    described, storage, found, rows, differences = measured(toys, "zero-shot", NAMED)
    assert found["counts"]["captioned"] == found["counts"]["downloaded"] == COUNT
    assert set(rows["raw", False]["per_class_f1"]) == set(words.SHAPE_WORDS)
    assert found["baseline"]["f1_macro"] < rows["raw", False]["f1_macro_mean"]
    told = differences["filtered - random"]
    assert max(told["low"], 0) < told["difference"] < told["high"]
    with pytest.raises(CompareError, match="compared by probes, .* not zero-shot"):
        comparison.compare(described, storage, [])


@pytest.mark.slow
def test_captions_may_be_split_off(toys):
    _, _, found, rows, _ = measured(toys, "retrieval", held="[task.split]\nshare = 0.3\n")
    assert found["test"]["captions"] == found["counts"]["split_off"]
    assert rows["raw", False]["mean_recall_mean"] > found["baseline"]["mean_recall"]
