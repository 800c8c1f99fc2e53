"""A list whose extra columns change: pairs keep their pictures and scores, and nothing is fetched."""

import downloaded_sources
import pyarrow as pa
import pyarrow.parquet as pq
import test_user_scorer

from pipeline.download import download
from pipeline.ledger import ingest
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources.source import Source
from pipeline.upkeep import reuse

COLOURS = ("red", "green", "blue", "lime", "navy")


def scored(folder, scorers):
    """Five pairs in shards of two, fetched and scored."""
    rows = test_user_scorer.rows(*COLOURS)
    described, storage, shards = downloaded_sources.downloaded(folder, rows, scorers, shard_size=2)
    scoring = Scoring(Plan.of(described), storage)
    for shard in shards:
        scoring(shard)
    return described, storage, rows


def again(folder, described, storage, rows, votes):
    """The source with a column of votes, its plan and its ledger, after what earlier shards have was copied."""
    columns = {"url": [row[0] for row in rows], "caption": [row[1] for row in rows], "votes": votes}
    pq.write_table(pa.table(columns), folder / "list.parquet")
    pairs = {"location": str(folder / "list.parquet"), "extra": ["votes"]}
    source = Source.model_validate({"name": "tiny", "pairs": pairs, "download": {"shard_size": 2}})
    source = source.model_copy(update={"scorers": described.scorers})
    plan, ledger = Plan.of(source), ingest.update(source, storage)
    reuse.reuse(plan, storage, ledger.shards)
    return source, plan, ledger


def fetched(source, storage, ledger):
    """The numbers of the shards that have no pictures yet."""
    stage = download.stage(source)
    return [each.number for each in ledger.shards if not storage.done(stage.item(each.number, ".tar"))]


def test_a_new_column_or_value_fetches_and_scores_nothing(tmp_path):
    scorers = test_user_scorer.written(tmp_path / "mine", test_user_scorer.GREEN)
    scorers |= Source.model_validate({"name": "x", "demo": {}, "scorers": {"words": {"kind": "captions"}}}).scorers
    described, storage, rows = scored(tmp_path, scorers)
    source, plan, ledger = again(tmp_path, described, storage, rows, [1, 2, 3, 4, 5])
    assert (ledger.new, ledger.amended) == (5, 5)
    assert fetched(source, storage, ledger) == []
    assert all(storage.done(plan.scores["words"].item(each.number, ".parquet")) for each in ledger.shards)
    assert not any(storage.done(plan.scores["mine"].item(each.number, ".parquet")) for each in ledger.shards)
    for shard in ledger.shards:  # a user's scorer may read the votes: it is computed again, from the copied pictures
        Scoring(plan, storage)(shard)
    found = [x for each in ledger.shards for x in downloaded_sources.scores(source, storage, each, "mine")["share"]]
    assert found == [colour in ("green", "lime") for colour in COLOURS]
    source, plan, ledger = again(tmp_path, described, storage, rows, [1, 2, 3, 4, 50])
    assert (ledger.new, ledger.amended) == (1, 1)
    assert fetched(source, storage, ledger) == []


def test_new_pairs_of_the_same_list_are_fetched_alone(tmp_path):
    scorers = test_user_scorer.written(tmp_path / "mine", test_user_scorer.GREEN)
    described, storage, rows = scored(tmp_path, scorers)
    more = [*rows, ("http://host/new.jpg", "all new", None)]
    source, _, ledger = again(tmp_path, described, storage, more, [0] * 6)
    (number,) = fetched(source, storage, ledger)
    (shard,) = [each for each in ledger.shards if each.number == number]
    assert pq.read_table(storage.fetch(shard.key))["url"].to_pylist() == ["http://host/new.jpg"]
