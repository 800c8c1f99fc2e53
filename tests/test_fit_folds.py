"""`winnow fit --folds`, from a published source to a manifest that its models have scored."""

import json
import shutil
import tomllib

import numpy as np
import pyarrow.parquet as pq
import pytest
import training_sources
from test_clip_training import table
from typer.testing import CliRunner

from flows.cli import app
from pipeline.errors import TrainingError
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.models.training_record import Learned
from pipeline.scorers.cross_fitted import CrossFittedSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from training.studies.fit import Request
from training.studies.fit_folds import fit_folds, folder_of

SHARED = training_sources.picture("disc", 3)
"""Picture 3, of shard 0, which pair 60, of shard 1, shows as well."""


def source(folder, count=90):
    return training_sources.task(
        folder, count=count, pictures={60: SHARED}, measured=training_sources.NAMED + table(steps=6)
    )


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return source(tmp_path_factory.mktemp("folds"))


def shard(described, storage, number):
    """The uids and sha256 of a shard's pairs."""
    rows = pq.read_table(storage.fetch(Plan.of(described).shards.item(number, ".parquet")))
    return rows["uid"].to_pylist(), rows["sha256"].to_pylist()


def test_no_model_is_trained_on_what_it_scores(published):
    described, storage = published
    fitted = fit_folds(described, storage, Request("small"), 2)
    assert [each.record["fold"]["number"] for each in fitted] == [0, 1]
    shared = shard(described, storage, 0)[1][3]
    for number, each in enumerate(fitted):
        learned = Learned.read(each.folder)
        uids, pictures = shard(described, storage, number)
        assert not learned.has_pairs(uids).any()
        assert not learned.has_pictures([*pictures, shared]).any()
        others, _ = shard(described, storage, 1 - number)
        assert learned.has_pairs(others).sum() == each.record["pairs"] + each.record["validation_pairs"] > 35
    assert not any(each.new for each in fit_folds(described, storage, Request("small"), 2))
    assert [each.folder.name for each in fitted] == ["fold-0", "fold-1"]


def test_the_models_score_the_source_and_the_next_manifest_names_the_one_they_learned(published):
    described, storage = published
    before = Manifest.open(storage)
    folder = folder_of(fit_folds(described, storage, Request("small"), 2))
    scorers = {"learned": CrossFittedSpec(kind="cross_fitted", folder=folder, precision="float32")}
    scored = described.model_copy(update={"scorers": scorers})
    plan, ledger = Plan.of(scored), ingest.update(scored, storage)
    scoring = Scoring(plan, storage)
    for each in ledger.shards:
        scoring(each)
    after = Manifest.open(storage, publish.publish(plan, storage, ledger, {}).id)
    with after.connection() as con:
        ((least, most, unscored),) = con.execute(
            "SELECT min(learned_similarity), max(learned_similarity), count(*) - count(learned_similarity) FROM rows"
        ).fetchall()
    assert -1 <= least < most <= 1
    assert unscored == 0
    facts = after.card["trainings"]["learned"]
    assert (facts["manifest"], facts["source"], facts["folds"]) == (before.id, "taught", 2)
    assert facts["test"] is not None
    assert after.id != before.id


def test_one_shard_cannot_be_cross_fitted(tmp_path):
    described, storage = source(tmp_path / "one", count=45)
    with pytest.raises(
        TrainingError, match=r"fold 0 of 2 has no pair to train on: the pairs are in 1 shard; use fewer"
    ):
        fit_folds(described, storage, Request("small"), 2)


@pytest.mark.slow
def test_the_command_prints_a_scorer_of_all_folds(published, tmp_path):
    described, storage = published
    shutil.copytree(storage.root, tmp_path / "taught", ignore=shutil.ignore_patterns("checkpoints"))
    command = ["fit", str(described.path), "small", "--root", str(tmp_path), "--folds", "2"]
    ran = CliRunner().invoke(app, [*command, "--to", str(tmp_path / "copy")])
    assert ran.exit_code == 0, ran.output
    assert "Fold 1 of 2:" in ran.output
    table = tomllib.loads(ran.output[ran.output.index("[scorers.learned]") :])["scorers"]["learned"]
    spec = CrossFittedSpec.model_validate(table)
    assert spec.folder == tmp_path / "copy"
    scores = spec.load()
    assert len(scores.certificate["folds"]) == 2
    assert np.isfinite(scores.certificate["golden"]).all()
    again = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert len(again["folds"]) == 2
    assert not again["new"]
