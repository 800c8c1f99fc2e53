"""One more score for published pairs: only its own results are new, and nothing else may have changed."""

import published_sources
import pytest

from pipeline.errors import RecipeError, SourceError
from pipeline.manifest import publish
from pipeline.manifest.manifest import Manifest
from pipeline.scoring.run import Scoring
from pipeline.sources import loading
from pipeline.store.storage import Storage
from pipeline.upkeep.backfill import add_scorer

MINE = '[scorers.{}]\nkind = "./{}.py"\n'
LETTERS = """\
columns = {"letters": "int32"}
def score(batch):
    return {"letters": [len(each) for each in batch.captions]}
"""


@pytest.fixture
def store(tmp_path):
    return Storage(tmp_path / "store")


@pytest.fixture
def folder(tmp_path, store):
    """Of the source file. Its shard 1 is quarantined, and number 63 could not be fetched."""
    published_sources.published(
        published_sources.listed(tmp_path / "lists", range(40, 70)), store, quarantined={1: "torn"}, failed={63}
    )
    return tmp_path / "lists"


def more(folder, *names, code=LETTERS, edit=lambda text: text):
    """The source with these scorers as well."""
    for name in names:
        (folder / f"{name}.py").write_text(code)
    toml = folder / "tiny.toml"
    toml.write_text(edit("".join([toml.read_text(), *(MINE.format(name, name) for name in names)])))
    return loading.load(toml)


def add(described, store, scorer):
    added = add_scorer(described, Manifest.open(store), scorer)
    work = Scoring(added.plan, store)
    for shard in added.shards:
        work(shard)
    return publish.publish(added.plan, store, added.ledger, added.quarantined)


def select(store, sql):
    with Manifest.open(store).connection() as con:
        return con.execute(sql).fetchall()


def test_rows_and_verdicts_stay_and_the_columns_come(folder, store):
    before, verdicts = Manifest.open(store), select(store, "SELECT uid, kept, dropped_by, error FROM rows")
    done = add(more(folder, "mine"), store, "mine")
    after = Manifest.open(store)
    assert (done.new, after.counts) == (True, before.counts)
    assert after.document.inputs.ledger == before.document.inputs.ledger
    assert set(after.columns.names) - set(before.columns.names) == {"mine_letters"}
    assert select(store, "SELECT uid, kept, dropped_by, error FROM rows") == verdicts
    told = select(
        store, "SELECT status, count(*), count(mine_letters), min(mine_letters) FROM rows GROUP BY 1 ORDER BY 1"
    )
    assert told == [("failed", 1, 0, None), ("ok", 19, 19, len("picture number 40")), ("quarantined", 10, 0, None)]
    assert not add(more(folder), store, "mine").new


def test_a_scorer_that_was_edited_takes_its_own_place(folder, store):
    add(more(folder, "mine"), store, "mine")
    (folder / "mine.py").write_text(LETTERS.replace("len(each)", "-1"))
    assert add(more(folder), store, "mine").new
    assert select(store, "SELECT DISTINCT mine_letters FROM rows WHERE status = 'ok'") == [(-1,)]


def test_pairs_that_were_listed_since_are_left_to_curate(folder, store):
    with (folder / "tiny.tsv").open("a") as file:
        file.write("picture number 90\thttp://host/90.jpg\n")
    add(more(folder, "mine"), store, "mine")
    assert select(store, "SELECT count(*) FROM rows") == [(30,)]


def test_pairs_that_have_left_the_list_do_not_come_back(folder, store, tmp_path):
    shorter = published_sources.listed(tmp_path / "lists", range(40, 65))
    published_sources.published(shorter, store, quarantined={1: "torn"})
    add(more(folder, "mine"), store, "mine")
    assert select(store, "SELECT count(*) FROM rows") == [(25,)]


def test_a_scorer_that_was_not_asked_for_is_left_out(folder, store):
    described = more(folder, "mine", "other")
    assert set(add_scorer(described, Manifest.open(store), "mine").plan.source.scorers) == {
        "pixels",
        "captions",
        "mine",
    }


def test_what_cannot_be_added_is_told(folder, store):
    add(more(folder, "mine"), store, "mine")
    newest = Manifest.open(store)
    with pytest.raises(SourceError, match="there is no scorer 'mien'; did you mean 'mine'?"):
        add_scorer(more(folder), newest, "mien")
    changed = more(folder, "other")
    (folder / "mine.py").write_text(LETTERS + "# changed\n")
    with pytest.raises(SourceError, match="scorers.mine has changed since it was published: `winnow curate`"):
        add_scorer(loading.load(changed.path), newest, "other")
    needs = more(folder, edit=lambda text: text.replace("pixels_sharpness >= 50", "other_letters > 3"))
    (folder / "mine.py").write_text(LETTERS)
    with pytest.raises(RecipeError, match="there is no column 'other_letters'"):
        add_scorer(loading.load(needs.path), newest, "mine")
    smaller = more(folder, edit=lambda text: text.replace("[download]", "[download]\nquality = 80"))
    with pytest.raises(SourceError, match=r"\[download\] has changed since"):
        add_scorer(smaller, newest, "mine")
