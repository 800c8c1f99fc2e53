"""Soft cap sampling, and a recipe that ends in a selection. Picture n has sharpness n (see published_sources.py)."""

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import published_sources
import pyarrow.parquet as pq
import pytest

from filters import recipes
from filters.core import Distinct, Filter, Recipe
from filters.selections import SoftCap
from pipeline.errors import RecipeError, SourceError
from pipeline.ledger import checking
from pipeline.manifest import publish, remarks
from pipeline.manifest.document import last_steps_json
from pipeline.manifest.manifest import Manifest
from pipeline.pages import report
from pipeline.pages.explore.decisions import Decisions
from pipeline.pages.explore.recipe_text import toml
from pipeline.pages.explore.rows import Rows
from pipeline.query import sandbox
from pipeline.query.named import QUERIES
from pipeline.review import audit, caught, diff, tasks
from pipeline.review.sample import Labelled
from pipeline.selection import soft_cap
from pipeline.selection.survivors import Survivors
from pipeline.sources import loading
from pipeline.store.storage import Storage

NUMBERS = list(range(40, 64))
SHARP = Filter("sharp", "pixels_sharpness >= 50")
CAP = SoftCap(by="pixels_sharpness", penalty=2, budget=30, unit="samples", temperature=2, batch=4)
TABLE = """[selection]
kind = "soft_cap"
by = "pixels_sharpness"
penalty = 2
budget = 30
unit = "samples"
temperature = 2.0
batch = 4
"""


def survivors(scores, uids=None, pool=None):
    scores = np.asarray(scores, float)
    uids = uids or [f"{number:032x}" for number in range(len(scores))]
    return Survivors(uids, pool or len(scores), {"by": scores}, lambda scorer: None, lambda scorer: None)


def copies(selection, *arguments, **keywords):
    return soft_cap.choose(selection, survivors(*arguments, **keywords)).copies.tolist()


def drawn_as_published(scores, penalty, samples, batch, generator):
    """The published procedure, word by word."""
    scores, found = np.array(scores, float), np.zeros(len(scores), int)
    while found.sum() < samples:
        chances = np.exp(scores - scores.max())
        size = min(batch, samples - found.sum(), len(scores))
        drawn = generator.choice(len(scores), size, replace=False, p=chances / chances.sum())
        found[drawn] += 1
        scores[drawn] -= penalty
    return found


def test_the_samples_have_the_published_distribution():
    scores, penalty, samples, batch, times = [1.5, 0.7, 0.0, -0.4, -1.0], 0.6, 7, 2, 800
    generator = np.random.default_rng(7)
    seeds = generator.integers(2**64, size=(times, len(scores)), dtype=np.uint64)
    ours = Counter(tuple(soft_cap.draw(np.array(scores), penalty, samples, batch, each).tolist()) for each in seeds)
    theirs = Counter(
        tuple(drawn_as_published(scores, penalty, samples, batch, generator).tolist()) for _ in range(times)
    )
    again = Counter(
        tuple(drawn_as_published(scores, penalty, samples, batch, generator).tolist()) for _ in range(times)
    )

    def distance(one, other):
        return sum(abs(one[each] - other[each]) for each in one | other) / (2 * times)

    assert distance(ours, theirs) < 1.5 * distance(theirs, again)
    without = Counter(tuple(soft_cap.draw(np.array(scores), 0.1, samples, batch, each).tolist()) for each in seeds)
    assert distance(without, theirs) > 2 * distance(theirs, again)  # another penalty is another distribution


def test_the_budget_is_met_and_does_not_depend_on_the_order():
    random = np.random.default_rng(3)
    scores, uids = random.normal(size=500), [f"{number:032x}" for number in range(500)]
    cap = SoftCap(by="x", penalty=0.5, budget=2)
    found = copies(cap, scores, uids)
    assert sum(found) == 1000
    order = random.permutation(500)
    moved = copies(cap, scores[order], [uids[place] for place in order])
    assert moved == [found[place] for place in order]
    best, worst = np.argsort(scores)[-50:], np.argsort(scores)[:50]
    assert np.mean(np.array(found)[best]) > 2 * np.mean(np.array(found)[worst])


def test_a_higher_penalty_and_a_higher_temperature_repeat_less():
    scores = np.random.default_rng(4).normal(size=300)
    most = [max(copies(SoftCap(by="x", penalty=each), scores)) for each in (0.05, 0.5, 5)]
    assert most[0] > most[1] > most[2]
    cold = SoftCap(by="x", penalty=0.5, temperature=0.1)
    assert max(copies(cold, scores)) > max(copies(replace(cold, temperature=2.0), scores))


def test_one_batch_never_has_a_pair_twice():
    assert copies(SoftCap(by="x", penalty=1, budget=3, batch=10_000), [50, 0, -50]) == [3, 3, 3]
    assert copies(SoftCap(by="x", penalty=1e-9, budget=4, unit="samples", batch=1), [900, 0, -900]) == [4, 0, 0]


def test_scores_of_any_size_can_be_drawn_by():
    found = copies(SoftCap(by="x", penalty=1, budget=1, temperature=1e-3), [1e5, 1e5, 0, -1e5])
    assert found == [2, 2, 0, 0]
    assert copies(SoftCap(by="x", penalty=1), [1e308, float("nan"), float("-inf"), 0.0]) == [4, 0, 0, 0]


@pytest.mark.parametrize(
    ("cap", "samples"),
    [
        (SoftCap(by="x", penalty=1), 10),
        (SoftCap(by="x", penalty=1, budget=0.5), 5),
        (SoftCap(by="x", penalty=1, budget=0.5, unit="survivors"), 2),
        (SoftCap(by="x", penalty=1, budget=0.0001), 1),
        (SoftCap(by="x", penalty=1, budget=7, unit="samples"), 7),
    ],
)
def test_a_budget_is_of_the_pool_or_of_the_survivors_or_a_number(cap, samples):
    assert sum(copies(cap, [1, 2, 3, 4], pool=10)) == samples
    assert copies(cap, [], pool=10) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "the budget must be above 0"),
        ({"budget": 0.5, "unit": "samples"}, 'a whole number of at least 1, not 0.5; for a share, set unit = "pool"'),
        ({"budget": 1, "unit": "pairs"}, 'unit is "pool", "survivors" or "samples"'),
        ({"penalty": 0}, "the penalty must be above 0"),
        ({"temperature": float("inf")}, "the temperature must be above 0"),
        ({"by": " "}, "by has no sql"),
    ],
)
def test_a_bad_setting_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SoftCap(**{"by": "x", "penalty": 1, **settings})


def test_the_named_recipe_by_hand():
    """0.3 is 20 logits and 10 penalties above 0.1. So 200 samples are the 100 good pairs, each about twice."""
    cap = recipes.soft_cap.selection
    found = np.array(copies(cap, [0.3] * 100 + [0.1] * 100))
    assert found.sum() == found[:100].sum() == 200
    assert found[:100].min() >= 1
    assert found.max() <= 3


def test_whole_numbers_are_one_recipe_however_they_are_written():
    one, other = (Recipe("any", selection=SoftCap(by="x", penalty=each, budget=each)) for each in (2, 2.0))
    assert json.dumps(last_steps_json(one)) == json.dumps(last_steps_json(other))
    assert '"budget": 2,' in json.dumps(last_steps_json(other))


def test_too_many_repetitions_are_refused():
    with pytest.raises(RecipeError, match="1,000,000 samples of 2 pairs would repeat one more than 65,535 times"):
        copies(SoftCap(by="x", penalty=1, budget=1e6, unit="samples"), [1, 2])


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    more = '[scorers.duplicates]\nkind = "duplicates"\nradius = 2\n' + TABLE
    return published_sources.listed(folder, NUMBERS, shard_size=7, more=more)


@pytest.fixture(scope="module")
def store(described, tmp_path_factory):
    storage = Storage(tmp_path_factory.mktemp("store"))
    published_sources.published(described, storage, failed={61}, unscored={62})
    return storage


def ask(manifest, sql):
    with manifest.connection() as con:
        return con.execute(sql).fetchall()


def test_rows_and_verdicts_know_copies(store, described):
    manifest = Manifest.open(store)
    assert manifest.recipe == described.own_recipe
    assert manifest.recipe.selection == CAP
    ((total, kept, most, lost),) = ask(
        manifest,
        "SELECT sum(copies), count(*) FILTER (kept), max(copies), sum(copies) FILTER (NOT kept) FROM rows",
    )
    assert (total, kept, lost) == (30, manifest.counts.kept, 0)
    assert most > 1
    assert ask(manifest, "SELECT DISTINCT dropped_by FROM rows WHERE pixels_sharpness < 50") == [(["sharp"],)]
    assert ask(manifest, "SELECT count(*) FROM rows WHERE dropped_by = ['selection']") == [(12 - kept,)]
    assert [pq.read_schema(store.fetch(part.verdicts)).names for part in manifest.parts] == [
        ["kept", "dropped_by", "unknown", "copies"]
    ]
    assert manifest.select().equals(manifest.select(manifest.recipe))
    assert sum(manifest.select()["copies"].to_pylist()) == 30
    assert publish.republish(store, described.own_recipe).new is False


@pytest.mark.parametrize("by", ["NULL", "'nan'::FLOAT", "captions_words / 0 -- never"])
def test_a_score_that_no_pair_has_is_refused(store, tmp_path, by):
    copied = Storage(shutil.copytree(store.root, tmp_path / "store"))
    before = Manifest.open(copied).id
    with pytest.raises(RecipeError, match="no pair has the scores that selection.by needs"):
        publish.republish(copied, Recipe("none", selection=replace(CAP, by=by)))
    assert Manifest.open(copied).id == before


def test_without_repetition_nothing_is_stored_and_rows_have_copies(store, described, tmp_path):
    described = published_sources.listed(tmp_path, NUMBERS, shard_size=7)
    plain = Storage(tmp_path / "plain")
    published_sources.published(described, plain, failed={61})
    manifest = Manifest.open(plain)
    assert ask(manifest, "SELECT DISTINCT kept, copies FROM rows ORDER BY 1") == [(False, 0), (True, 1)]
    assert pq.read_schema(plain.fetch(manifest.parts[0].verdicts)).names == ["kept", "dropped_by", "unknown"]
    assert b"selection" not in manifest.document.to_bytes()
    assert manifest.select().column_names == ["uid"]


@pytest.mark.parametrize("last", [None, Distinct(2, "pixels_sharpness")])
@pytest.mark.parametrize("filters", [(), (SHARP, Filter("even", "pixels_sharpness % 2 = 0"))])
def test_funnel_selection_explore_and_verdicts_agree(store, tmp_path, filters, last):
    manifest = Manifest.open(store)
    recipe = Recipe("any", filters, last, replace(CAP, budget=11))
    steps = manifest.funnel(recipe)
    kept = manifest.select(recipe)
    assert [step.filter for step in steps] == recipe.reasons
    assert steps[-1].sequence == len(kept) < 12
    assert sum(kept["copies"].to_pylist()) == 11
    assert (steps[-1].unscored, steps[-1].alone + steps[-1].fails) == (1, manifest.counts.pool - 1)
    for step in steps:
        assert step.costs == len(manifest.select(recipe.without(step.filter))) - len(kept)
    if recipe.reasons[:-1]:
        assert steps[-2].sequence == len(manifest.select(recipe.without("selection")))
    verdicts = manifest.verdicts(recipe)
    assert verdicts.filter(verdicts["kept"])["uid"].to_pylist() == kept["uid"].to_pylist()
    for each in verdicts.to_pylist():
        assert each["kept"] == (each["copies"] > 0) == (not each["dropped_by"])
    rows = Rows(manifest, tmp_path)
    decisions = Decisions(rows)
    assert decisions.funnel(recipe) == steps
    assert np.count_nonzero(decisions.kept(recipe)) == len(kept)
    rows.close()


def test_the_recipe_as_toml_is_the_table_of_a_source_file(store, tmp_path):
    recipe = Manifest.open(store).recipe
    (tmp_path / "list.tsv").write_text("caption\turl\n")
    (tmp_path / "again.toml").write_text(f'{toml(recipe)}\n[pairs]\nlocation = "list.tsv"\n')
    assert replace(loading.load(tmp_path / "again.toml").own_recipe, name=recipe.name) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('by = "pixels_sharpness"', 'by = "pixels_sharpnes"'), "selection.by: there is no column 'pixels_sharpnes'"),
        (('by = "pixels_sharpness"', 'by = "caption"'), "selection.by: this is not a number: caption"),
        (('by = "pixels_sharpness"', 'by = "random()"'), "selection.by: random is not known to depend on the pair"),
        (("budget = 30", "budget = 0.5"), "a budget of samples is a whole number of at least 1"),
        (("budget = 30", "budget = -1"), "selection.soft_cap.budget|selection.budget"),
        (('kind = "soft_cap"', 'kind = "soft"'), "selection"),
    ],
)
def test_a_bad_table_is_one_line_before_anything_runs(tmp_path, change, message):
    published_sources.listed(tmp_path, NUMBERS, more=TABLE)
    path = tmp_path / "tiny.toml"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises((RecipeError, SourceError), match=message) as caught:
        checking.check(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_everything_that_reads_a_manifest_knows_the_step(store, described, tmp_path):
    """A copy of the store gets the same rows without the selection, and with it again."""
    storage = Storage(shutil.copytree(store.root, tmp_path / "store"))
    repeated = Manifest.open(storage)
    publish.republish(storage, described.own_recipe.without("selection"))
    once = Manifest.open(storage)
    moved = diff.between(once, repeated, examples=1)
    assert [(each.before, each.after) for each in moved.moves] == [("kept", "dropped")]
    assert [example["dropped_after"] for example in moved.examples] == [["selection"]]
    publish.republish(storage, described.own_recipe)
    again = Manifest.open(storage)
    assert again.id == repeated.id
    assert remarks.of(again) == [f"the recipe keeps some pairs more than once: 30 samples of {again.counts.kept} pairs"]
    report.write(storage, again, None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "30 samples of" in page
    assert again.recipe.selection.described in page
    removed = audit.audit(again, again.recipe)
    assert removed.removed.share == pytest.approx(1 - again.counts.kept / again.counts.pool)
    kept = set(again.select()["uid"].to_pylist())
    drawn = tasks.draw(again, tasks.Sample(100, show="kept"))
    assert {each["uid"] for each in drawn} == kept
    labels = "".join(f"http://host/{n}.jpg\tpicture number {n}\t{'bad' if n < 57 else 'clean'}\n" for n in NUMBERS)
    (tmp_path / "labels.tsv").write_text("url\tcaption\tlabel\n" + labels)
    found = caught.count(again, Labelled.read(tmp_path / "labels.tsv", ["clean"]))
    assert {each["filter"]: each["dropped"] for each in found["filters"]}["selection"] == again.counts.pool - 1 - len(
        [n for n in NUMBERS if n < 50]
    ) - len(kept)
    told = sandbox.run("SELECT manifest, sum(copies)::INT AS samples FROM history GROUP BY ALL", [storage]).to_pylist()
    assert {each["manifest"]: each["samples"] for each in told} == {again.id: 30, once.id: once.counts.kept}
    by_copies = QUERIES["duplicates"].sql.replace("clip_similarity", "pixels_sharpness")
    assert sum(each["pairs"] for each in sandbox.run(by_copies, [storage]).to_pylist()) == again.counts.pool
