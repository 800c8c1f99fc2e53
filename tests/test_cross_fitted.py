"""Cross-fitting: every shard is scored by the model that was not trained on it, and by no other."""

import json
import shutil

import downloaded_sources
import fold_models
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import CompareError, ModelError, SourceError, TrainingError
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.models.training_record import Learned, TrainingRecord
from pipeline.pages import report
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.cross_fitted import CrossFittedSpec
from pipeline.scorers.norm_sim import NormSimSpec
from pipeline.scorers.semantic import SemanticSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from training.data import folds
from training.data.heldout import HeldOut
from training.studies import fairness


def pairs(count):
    return [(f"http://host/{n}.jpg", f"caption number {n}", downloaded_sources.picture(n)) for n in range(count)]


def cross_fitted(folder, **changed):
    return CrossFittedSpec(kind="cross_fitted", folder=folder, precision="float32", **changed)


def clip(folder):
    return ClipSpec(kind="clip", model=f"local-dir:{folder}", precision="float32")


def columns(storage, described, shard):
    table = pq.read_table(storage.fetch(Plan.of(described).shards.item(shard.number, ".parquet")))
    return table["uid"].to_pylist(), table["sha256"].to_pylist()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A source of five shards with two pairs each, and two models that were each trained on the other's shards."""
    folder = tmp_path_factory.mktemp("folds")
    described, storage, shards = downloaded_sources.downloaded(folder, pairs(10), {}, shard_size=2)
    of_shard = [columns(storage, described, shard) for shard in shards]
    learned = []
    for fold in range(2):
        trained = [of_shard[shard.number] for shard in shards if shard.number % 2 != fold]
        learned.append(tuple([value for each in trained for value in each[side]] for side in (0, 1)))
    models = fold_models.save(folder / "models", shards, learned)
    return described, storage, shards, models


def with_scorers(described, **scorers):
    return described.model_copy(update={"scorers": scorers})


def copied(models, folder):
    return shutil.copytree(models, folder / "models")


def changed_record(folder, **changed):
    path = folder / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


@pytest.mark.slow
def test_each_shard_has_the_scores_of_its_folds_model(prepared):
    described, storage, shards, models = prepared
    alone = {f"alone{fold}": clip(models / f"fold-{fold}") for fold in range(2)}
    described = with_scorers(described, learned=cross_fitted(models), **alone)
    scoring = Scoring(Plan.of(described), storage)
    for shard in shards:
        scoring(shard)
    for shard in shards:
        found = {
            name: downloaded_sources.scores(described, storage, shard, name)["similarity"]
            for name in ("learned", "alone0", "alone1")
        }
        own, other = f"alone{shard.number % 2}", f"alone{1 - shard.number % 2}"
        assert found["learned"] == found[own]
        assert np.abs(np.subtract(found["learned"], found[other])).min() > 1e-4


@pytest.mark.slow
def test_pairs_and_pictures_that_the_model_was_trained_on_have_no_score(prepared, tmp_path):
    described, storage, shards, models = prepared
    models = copied(models, tmp_path)
    uids, pictures = columns(storage, described, shards[0])
    Learned.of(uids[:1], []).write(models / "fold-0")
    described = with_scorers(described, learned=cross_fitted(models))
    Scoring(Plan.of(described), storage)(shards[0])
    found = downloaded_sources.scores(described, storage, shards[0], "learned")["similarity"]
    assert found[0] is None
    assert found[1] is not None

    Learned.of([], pictures[1:]).write(models / "fold-0")
    described = with_scorers(described, learned=cross_fitted(models))
    Scoring(Plan.of(described), storage)(shards[0])
    again = downloaded_sources.scores(described, storage, shards[0], "learned")["similarity"]
    assert again[0] is not None
    assert again[1] is None


def test_the_stage_changes_with_every_file_that_decides(prepared, tmp_path):
    described, _, _, models = prepared

    def key(folder):
        return Plan.of(with_scorers(described, learned=cross_fitted(folder))).scores["learned"].key

    before, copy = key(models), copied(models, tmp_path)
    changed_record(copy / "fold-1", cost={"seconds": 12.5})  # facts about the training change no score
    assert key(copy) == before
    Learned.of(["0" * 32], []).write(copy / "fold-1")
    with_other_pairs = key(copy)
    weights = copy / "fold-1" / "open_clip_model.safetensors"
    weights.write_bytes((copy / "fold-0" / "open_clip_model.safetensors").read_bytes())
    assert len({before, with_other_pairs, key(copy)}) == 3


def test_shards_with_other_numbers_are_not_scored(prepared, tmp_path):
    described, storage, shards, models = prepared
    models = copied(models, tmp_path)
    for fold in range(2):
        record = json.loads((models / f"fold-{fold}" / "training.json").read_text())
        numbers = {**record["fold"]["shards"], "0": shards[1].key}
        changed_record(models / f"fold-{fold}", fold={**record["fold"], "shards": numbers})
        Learned.of(["9" * 32], []).write(models / f"fold-{fold}")  # another key: no shard is scored yet
    scoring = Scoring(Plan.of(with_scorers(described, learned=cross_fitted(models))), storage)
    with pytest.raises(ModelError, match=r"shard 0 is pairs/00000.*run `winnow fit --folds` again"):
        scoring(shards[0])
    scoring(shards[1])


def test_a_shard_that_a_takedown_rewrote_keeps_its_number(prepared):
    _, _, shards, models = prepared
    scorer = cross_fitted(models).load()
    assert scorer.of_shard(0, None)
    assert scorer.of_shard(99, "pairs/00099-new.parquet")
    with pytest.raises(ModelError, match="other numbers"):
        scorer.of_shard(0, shards[1].key)


def test_a_missing_fold_and_mixed_folds_are_one_line(prepared, tmp_path):
    models = copied(prepared[3], tmp_path)
    changed_record(models / "fold-1", manifest="cd" * 16)
    with pytest.raises(ModelError, match=r"fold-1 is not fold 1 of the same training"):
        cross_fitted(models).identity()
    (models / "fold-1" / "learned.npz").unlink()
    with pytest.raises(ModelError, match=r"fold-1 is no fold's model"):
        cross_fitted(models).identity()
    shutil.rmtree(models / "fold-1")
    with pytest.raises(ModelError, match=r"fold-1 is no fold's model: name the folder that `winnow fit --folds` wrote"):
        cross_fitted(models).identity()
    (models / "fold-0" / "training.json").write_text("{")
    with pytest.raises(ModelError, match=r"training.json is no record of a training"):
        cross_fitted(models).identity()


def test_swapped_folds_are_refused(prepared, tmp_path):
    models = copied(prepared[3], tmp_path)
    (models / "fold-0").rename(models / "away")
    (models / "fold-1").rename(models / "fold-0")
    (models / "away").rename(models / "fold-1")
    with pytest.raises(ModelError, match=r"fold-0 is not fold 0"):
        cross_fitted(models).identity()


def test_models_of_another_source_are_refused_before_anything_runs(prepared):
    described, _, _, models = prepared
    other = with_scorers(described, learned=cross_fitted(models)).model_copy(update={"name": "other"})
    with pytest.raises(ModelError, match=r"trained on the source 'tiny', and its folds do not apply to 'other'"):
        Plan.of(other)


def test_nothing_reads_embeddings_of_different_folds_as_one_space(prepared, tmp_path):
    described, _, _, models = prepared
    np.save(tmp_path / "targets.npy", np.eye(24, dtype=np.float32))
    readers = {
        "semantic": SemanticSpec(kind="semantic", of="learned"),
        "norm_sim": NormSimSpec(kind="norm_sim", of="learned", targets=tmp_path / "targets.npy"),
    }
    for name, reader in readers.items():
        scorers = {"learned": cross_fitted(models), name: reader}
        with pytest.raises(SourceError, match="'learned' stores no embeddings, because those of its folds cannot be"):
            Plan.of(with_scorers(described, **scorers))


def test_what_was_learned_is_found_again(tmp_path):
    uids, pictures = [f"{n << 70:032x}" for n in (1, 2)], [f"{n << 200:064x}" for n in (5, 6)]
    Learned.of(uids, pictures).write(tmp_path)
    read = Learned.read(tmp_path)
    assert read.has_pairs([uids[1], "f" * 32, "0" * 32]).tolist() == [True, False, False]
    assert read.has_pictures(["f" * 64, pictures[0]]).tolist() == [False, True]
    assert not Learned.of([], []).has_pairs(uids).any()
    (tmp_path / "learned.npz").write_bytes(b"PK")
    with pytest.raises(ModelError, match="learned.npz cannot be read"):
        Learned.read(tmp_path)


def test_a_picture_of_both_sides_trains_neither_fold():
    shards = np.array([0, 0, 1, 1, 2, 3])
    sha256 = np.array(["a", "b", "c", "a", "d", "e"])
    phash = np.array([0xFF << 8, 0xFF << 16, 0xFF << 24, 0xFF << 8, 0xFF << 40, (0xFF << 40) ^ 0b111], np.uint64)
    assert folds.scores(0, 2, shards).tolist() == [True, True, False, False, True, False]
    # Pair 3 shows the picture of pair 0, and pair 5 nearly that of pair 4.
    assert folds.trains(0, 2, shards, sha256, phash).tolist() == [False, False, True, False, False, False]
    assert folds.trains(1, 2, shards, sha256, phash).tolist() == [False, True, False, False, False, False]


def test_a_fold_with_nothing_to_do_is_one_line():
    one, hashes = np.array([0, 0]), np.array([0, 0xFFFF], np.uint64)
    with pytest.raises(
        TrainingError, match=r"fold 0 of 2 has no pair to train on: the pairs are in 1 shard; use fewer"
    ):
        folds.trains(0, 2, one, np.array(["a", "b"]), hashes)
    with pytest.raises(TrainingError, match=r"fold 1 of 2 has no pair to score"):
        folds.trains(1, 2, one, np.array(["a", "b"]), hashes)


def test_a_model_that_knows_the_test_set_is_not_compared(prepared, tmp_path):
    models = copied(prepared[3], tmp_path)
    heldout = HeldOut(("5" * 64, "6" * 64), np.zeros(2, np.int16), 0, 0)
    fairness.check_scorers({"learned": cross_fitted(models)}, heldout)
    Learned.of([], ["6" * 64]).write(models / "fold-1")
    for scorer in (cross_fitted(models), clip(models / "fold-1")):
        with pytest.raises(CompareError, match=r"scorers.learned: .*fold-1 was trained on 1 picture of the test set"):
            fairness.check_scorers({"learned": scorer}, heldout)


@pytest.mark.slow
def test_card_and_report_name_the_manifest_that_the_model_was_trained_on(prepared, tmp_path):
    described, storage, _, models = prepared
    described = with_scorers(described, learned=cross_fitted(models), plain=clip(models / "fold-0"))
    plan, ledger = Plan.of(described), ingest.update(described, storage)
    for shard in ledger.shards:
        Scoring(plan, storage)(shard)
    manifest = Manifest.open(storage, publish.publish(plan, storage, ledger, {}).id)
    facts = {**fold_models.TRAINED, "folds": 2}
    assert manifest.card["trainings"] == {
        "learned": {**facts, "cross_fitted": True},
        "plain": {**facts, "cross_fitted": False},
    }
    assert len(manifest.card["certificates"]["learned"]["folds"]) == 2
    report.write(storage, manifest, None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    trained = "trained on manifest abababababab of tiny, recipe everything"
    assert f"learned: cross-fitted by 2 models, each {trained}, without the shards that it scored." in page
    assert f"plain: {trained}, and so on pairs that it scored" in page


def test_a_folder_without_a_record_says_nothing_of_its_training(prepared, tmp_path):
    assert TrainingRecord.read(tmp_path) is None
    assert TrainingRecord.read(prepared[3] / "fold-0").fold.of == 2
    (tmp_path / "training.json").write_text(json.dumps({**fold_models.TRAINED, "recipe": "\x1b[2J"}))
    with pytest.raises(ModelError, match=r"control characters"):
        TrainingRecord.read(tmp_path)
