"""What is different between two manifests, against figures counted or computed directly."""

import io
import json

import numpy as np
import published_sources
import pyarrow as pa
import pytest
from rich.console import Console
from scipy import stats

from filters.core import Filter, Recipe
from flows.console import review
from pipeline.errors import StorageError
from pipeline.manifest import card, parts, publish
from pipeline.manifest.document import Inputs, LedgerState, StageKeys, without_why
from pipeline.manifest.manifest import Manifest
from pipeline.review import diff, drift
from pipeline.review.diff import Change, Move
from pipeline.settings.choice import DriftRow
from pipeline.store import parquet
from pipeline.store.storage import Storage
from pipeline.trials import trials


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


def newest(store, back=1):
    return Manifest.open(store, f"-{back}")


def test_rows_that_changed_sides_and_why(tmp_path, store):
    """40..69 with a threshold of 50, then 45..74 with one of 60, and 52 fails, 53 has no score."""
    published_sources.published(published_sources.listed(tmp_path, range(40, 70)), store)
    stricter = {"name": "sharp", "sql": "pixels_sharpness >= 60"}
    other = published_sources.listed(
        tmp_path / "b", range(45, 75), filters=(stricter, published_sources.WORDED), shard_size=10
    )
    published_sources.published(other, Storage(tmp_path / "other"), failed={72}, unscored={53})
    before, after = newest(store), newest(Storage(tmp_path / "other"))
    found = diff.between(before, after, examples=2)
    assert found.rows == (30, 30)
    assert found.changed == ["the list of pairs", "the recipe's SQL"]
    assert found.moves == [
        Move("absent", "failed", 1),
        Move("absent", "kept", 4),
        Move("dropped", "absent", 5),
        Move("kept", "dropped", 10),
    ]
    assert found.changes == [Change("sharp", 10, 0, 20, 14), Change("worded", 1, 0, None, 14)]
    assert len(found.examples) == 1 + 2 + 2 + 2
    assert {(row["before"], row["after"]) for row in found.examples} == {(m.before, m.after) for m in found.moves}
    back = diff.between(after, before, examples=100)
    assert Change("sharp", 0, 10, 14, 20) in back.changes
    lost = next(row for row in back.examples if row["caption"] == "picture number 53")
    assert (lost["before"], lost["after"], lost["dropped_before"]) == ("dropped", "kept", ["sharp", "worded"])


def test_only_the_recipe_changed(tmp_path, store):
    published_sources.published(published_sources.listed(tmp_path, range(40, 70)), store)
    published_sources.published(published_sources.listed(tmp_path, range(40, 70), filters=()), store)
    found = diff.between(newest(store, 2), newest(store), 0)
    assert found.moves == [Move("dropped", "kept", 10)]
    assert (found.changed, found.examples) == (["the recipe's SQL"], [])
    assert {each.psi for each in found.inputs} == {0.0}
    moved = {each.column for each in found.kept if each.psi}
    assert {"pixels_sharpness", "width"} <= moved
    assert "pixels_phash" not in {each.column for each in found.inputs}
    same = diff.between(newest(store), newest(store), 0)
    assert (same.moves, same.changed) == ([], [])


def decided(store, keys, least):
    """A manifest of the rows with these numbers, a part for each group of them; kept from the number `least` on."""
    recipe = Recipe("least", (Filter("large", f"number >= {least}"),))
    made = []
    for numbers in keys:
        columns = {"uid": [f"{n:032x}" for n in numbers], "status": ["ok"] * len(numbers), "number": numbers}
        texts = {name: [f"{name} {n}" for n in numbers] for name in ("url", "caption", "sha256")}
        rows = pa.table(columns | texts)
        made.append(parquet.put_parquet(store, "rows", rows.schema, [rows]))
    pairs, stages = LedgerState("", sum(map(len, keys)), 0), StageKeys("", {})
    inputs = Inputs(parts.FORMAT, "s", pairs, stages, (), tuple(made), without_why(recipe), {})
    return Manifest.open(store, publish.decide(store, inputs, card.why(recipe)).id)


def test_parts_that_both_have_are_joined_by_place_and_others_by_uid(store):
    before = decided(store, [[1, 2, 3, 4], [5, 6], [7, 8]], least=2)
    after = decided(store, [[5, 6], [4, 3, 2, 1], [8, 9], [7]], least=4)
    assert {part.rows for part in before.parts} & {part.rows for part in after.parts} == {before.parts[1].rows}
    found = diff.between(before, after, examples=1)
    assert found.moves == [Move("absent", "kept", 1), Move("kept", "dropped", 2)]
    assert [(row["before"], row["caption"], row["url"], row["dropped_after"]) for row in found.examples] == [
        ("absent", "caption 9", "url 9", []),
        ("kept", "caption 2", "url 2", ["large"]),
    ]
    again = diff.between(after, decided(store, [[5, 6], [4, 3, 2, 1], [8, 9], [7]], least=6), examples=0)
    assert again.moves == [Move("kept", "dropped", 2)]


def certified(manifest, **said):
    """Have the manifest's card say this of a scorer."""
    path = manifest.storage.fetch(f"manifests/{manifest.id}.card.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"certificates": {"clip": said}}))
    return Manifest.open(manifest.storage, manifest.id)


def test_between_unequal_certificates_the_flipped_decisions_are_listed(tmp_path, store):
    published_sources.published(published_sources.listed(tmp_path, range(40, 70)), store)
    published_sources.published(
        published_sources.listed(
            tmp_path, range(40, 70), filters=({**published_sources.SHARP, "sql": "width >= 600"},)
        ),
        store,
    )
    before = certified(newest(store, 2), precision="float32", golden=[0.25, 0.5], size=224)
    same = certified(newest(store), precision="float32", golden=[0.25, 0.5], size=224)
    assert diff.between(before, same, 0).certificates == []
    assert diff.between(before, same, 0).examples == []
    found = diff.between(before, certified(same, precision="bfloat16", golden=[0.2505, 0.499], size=224), 0)
    assert found.certificates == ["clip: golden, precision; the same golden pairs score up to 0.001 apart"]
    assert found.moves == [Move("kept", "dropped", 10)]
    assert {row["caption"] for row in found.examples} == {f"picture number {n}" for n in range(50, 60)}
    shown = io.StringIO()
    Console(file=shown, width=200).print(review.difference(found))
    assert "certificates are not equal, so that decisions flip: clip: golden, precision" in shown.getvalue()
    assert "kept → dropped (sharp): picture number 55" in shown.getvalue()


def test_manifests_are_named_from_the_end(tmp_path, store):
    first = published_sources.published(published_sources.listed(tmp_path, range(40, 70)), store)
    second = published_sources.published(published_sources.listed(tmp_path, range(40, 71)), store)
    assert [newest(store, back).id for back in (2, 1)] == [first.id, second.id]
    with pytest.raises(StorageError, match="there is no manifest -3: 2 are published"):
        newest(store, 3)


GENERATOR = np.random.default_rng(3)
SAMPLES = {
    "the same": (GENERATOR.normal(size=3000), GENERATOR.normal(size=2000)),
    "moved": (GENERATOR.normal(size=3000), GENERATOR.normal(0.5, 2, size=1000)),
    "beyond": (GENERATOR.uniform(size=500), GENERATOR.uniform(5, 6, size=500)),
    "small": (GENERATOR.normal(size=3), GENERATOR.normal(size=2)),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("missing", [(0, 0), (10, 300)])
def test_psi_and_ks_as_computed_directly(name, missing):
    before, after = map(np.sort, SAMPLES[name])
    edges = [-np.inf, *np.quantile(before, np.arange(1, 10) / 10), np.inf]
    shares = [
        np.maximum([*np.histogram(side, edges)[0], gone], 1e-4 * (len(side) + gone)) / (len(side) + gone)
        for side, gone in zip((before, after), missing, strict=True)
    ]
    by_bin = [(a - b) * np.log(a / b) for b, a in zip(*shares, strict=True)]
    assert drift.psi(before, after, missing) == pytest.approx(sum(by_bin), abs=1e-12)
    assert drift.ks(before, after) == pytest.approx(stats.ks_2samp(before, after).statistic, abs=1e-12)


def test_what_is_mostly_one_number_can_leave_it_to_both_sides():
    """One bin would hold all of both, and see nothing."""
    truths = np.array([0.0] * 95 + [1.0] * 5), np.array([0.0] * 60 + [1.0] * 40)
    assert drift.psi(*truths, (0, 0)) == pytest.approx(0.35 * np.log(40 / 5) - 0.35 * np.log(60 / 95))
    for other in (-1.0, 1.0):
        assert drift.psi(np.zeros(10), np.sort([0.0] * 5 + [other] * 5), (0, 0)) > 1
    assert drift.psi(np.zeros(10), np.zeros(7), (0, 0)) == 0


def test_nothing_to_compare():
    none, some = np.empty(0), np.arange(3.0)
    assert (drift.psi(none, some, (0, 0)), drift.ks(none, some)) == (None, None)
    assert drift.psi(none, some, (5, 0)) > 1  # all were NULL, and none is now


def test_words_have_bins_of_their_own():
    before = pa.chunked_array([["en"] * 80 + ["de"] * 10 + [None] * 10])
    after = pa.chunked_array([["en"] * 40 + ["fr"] * 50, ["de"] * 10], pa.string())
    shares = ((0.8, 0.4), (0.1, 0.1), (0.1, 1e-4), (1e-4, 0.5))
    assert drift.words(before, after) == pytest.approx(sum((a - b) * np.log(a / b) for b, a in shares))
    many = pa.chunked_array([[str(number) for number in range(20)]])
    assert drift.words(many, many) == 0


def test_drift_beyond_the_bound_holds_the_retraining(tmp_path, store):
    described = published_sources.listed(tmp_path, range(40, 70))
    bounded = described.model_copy(update={"drift": DriftRow(max_psi=0.25)})
    published_sources.published(described, store)
    assert drift.hold(bounded, store, newest(store)) is None  # nothing came before it
    published_sources.published(published_sources.listed(tmp_path, range(40, 71)), store)
    assert drift.hold(bounded, store, newest(store)) is None
    published_sources.published(published_sources.listed(tmp_path, range(200, 240)), store)
    told = drift.hold(bounded, store, newest(store))
    assert "beyond max_psi = 0.25" in told
    assert "pixels_sharpness (PSI " in told
    assert drift.hold(described, store, newest(store)) is None


def gain_of(manifest):
    return json.dumps({"manifest": manifest, "code": trials.GAIN, "published": True}).encode()


def test_what_was_trained_on_is_what_counts(tmp_path, store):
    """A small step from a manifest that was held is no reason to train: it is far from the last that was trained on."""
    bounded = published_sources.listed(tmp_path, range(40, 70)).model_copy(update={"drift": DriftRow(max_psi=0.25)})
    trained = published_sources.published(bounded, store)
    store.put_if_absent("gains/a.json", gain_of(trained.id))
    for end in (240, 241):
        published_sources.published(published_sources.listed(tmp_path, range(200, end)), store)
    assert trained.id[:12] in drift.hold(bounded, store, newest(store))
    store.put_if_absent("gains/b.json", gain_of(newest(store, 2).id))
    assert drift.hold(bounded, store, newest(store)) is None
