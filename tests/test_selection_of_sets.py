"""Recipes that end in density-based pruning or in matching, over published pools."""

import shutil
from dataclasses import replace

import numpy as np
import published_sources
import pytest

from filters import catalog
from filters.core import Filter, Recipe
from filters.selections import DensityPruning, Matching
from pipeline.errors import RecipeError, SourceError
from pipeline.export.content import Content
from pipeline.export.export import write
from pipeline.ledger import checking
from pipeline.manifest import apart, publish
from pipeline.manifest.manifest import Manifest
from pipeline.pages import report
from pipeline.pages.explore.decisions import Decisions
from pipeline.pages.explore.recipe_text import toml
from pipeline.pages.explore.rows import Rows
from pipeline.review import diff
from pipeline.review.audit import audit
from pipeline.scoring import pool
from pipeline.scoring.plan import Plan
from pipeline.sources import loading
from pipeline.store.storage import Storage

COUNT = 320
KIND = np.repeat([0, 1, 2], [130, 130, 60])
"""By picture number: near-copies of one picture, varied pictures, and a kind that the target has."""

DENSITY = DensityPruning(of="recorded", budget=120, unit="samples", clusters=3)
MATCHING = Matching(of="target", budget=40, unit="samples")
FAILED, UNSCORED = {5}, {7, 200}


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def vectors():
    """[320, 2, 8], picture and caption, NaN where nothing was scored."""
    random = np.random.default_rng(0)
    spread = np.array([0.02, 0.6, 0.3])[KIND][:, None]
    pictures = unit(np.eye(8)[[0, 3, 6]][KIND] + spread * random.normal(size=(COUNT, 8)))
    made = np.stack([pictures, unit(random.normal(size=(COUNT, 8)))], axis=1).astype(np.float16)
    made[list(UNSCORED)] = np.nan
    return made


def listed(folder, numbers=range(COUNT), more="", shard_size=160):
    folder.mkdir(exist_ok=True)
    targets = np.random.default_rng(1).normal(0, 0.1, (12, 8)) + np.eye(8)[6]
    np.save(folder / "targets.npy", unit(targets).astype(np.float32))
    target = '[scorers.target]\nkind = "target_features"\nof = "recorded"\ntargets = "targets.npy"\ntemperature = 0.2\n'
    return published_sources.listed(
        folder, numbers, filters=(), shard_size=shard_size, more=published_sources.recorded(folder) + target + more
    )


def curated(described, storage):
    ledger = published_sources.embedded(described, storage, vectors(), failed=FAILED)
    pool.run(Plan.of(described), storage, ledger, {})
    publish.publish(Plan.of(described), storage, ledger, {})
    return Manifest.open(storage)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return curated(listed(folder), Storage(folder / "store"))


def numbers(manifest, recipe):
    """The picture numbers that a recipe keeps."""
    with manifest.connection() as con:
        con.from_arrow(manifest.select(recipe)).create("chosen")
        found = con.execute("SELECT url FROM rows WHERE uid IN (SELECT uid FROM chosen)").fetchall()
    return sorted(int(url.split("/")[-1].removesuffix(".jpg")) for (url,) in found)


def test_density_keeps_fewer_near_copies_than_a_random_choice(manifest):
    kept = numbers(manifest, Recipe("dense", selection=DENSITY))
    assert len(kept) == 120
    copies, varied, _ = np.bincount(KIND[kept], minlength=3)
    assert copies < 30  # of 129 of 317 pairs; at random 49
    assert varied > 60


def test_matching_keeps_more_of_the_target_than_a_random_choice(manifest):
    kept = numbers(manifest, Recipe("like", selection=MATCHING))
    assert len(kept) == 40
    assert np.bincount(KIND[kept], minlength=3)[2] > 35  # at random 8


@pytest.mark.slow
@pytest.mark.parametrize("selection", [DENSITY, MATCHING])
def test_a_choice_does_not_depend_on_order_and_shards(manifest, tmp_path, selection):
    order = np.random.default_rng(2).permutation(COUNT).tolist()
    moved = curated(listed(tmp_path, order, shard_size=33), Storage(tmp_path / "store"))
    recipe = Recipe("any", selection=selection)
    assert numbers(moved, recipe) == numbers(manifest, recipe)


@pytest.mark.parametrize("selection", [DENSITY, MATCHING])
def test_funnel_selection_explore_and_verdicts_agree(manifest, tmp_path, selection):
    recipe = Recipe("any", (Filter("even", "pixels_sharpness % 2 = 0"),), selection=selection)
    steps, kept = manifest.funnel(recipe), manifest.select(recipe)
    assert steps[-1].sequence == len(kept)
    assert (steps[-1].filter, steps[-1].unscored) == ("selection", len(UNSCORED))
    for step in steps:
        assert step.costs == len(manifest.select(recipe.without(step.filter))) - len(kept)
    verdicts = manifest.verdicts(recipe)
    assert verdicts.filter(verdicts["kept"])["uid"].to_pylist() == kept["uid"].to_pylist()
    assert verdicts.filter(verdicts["kept"])["copies"].to_pylist() == [1] * len(kept)
    rows = Rows(manifest, tmp_path)
    decisions = Decisions(rows)
    assert decisions.funnel(recipe) == steps
    assert np.count_nonzero(decisions.kept(recipe)) == len(kept)
    rows.close()


@pytest.mark.parametrize("selection", [DENSITY, MATCHING])
def test_a_small_pool_is_kept_whole_but_for_what_has_no_embedding(manifest, selection):
    whole = numbers(manifest, Recipe("all", selection=replace(selection, budget=5000)))
    assert whole == sorted(set(range(COUNT)) - FAILED - UNSCORED)
    assert numbers(manifest, Recipe("none", (Filter("none", "false"),), selection=selection)) == []
    alone = Recipe("one", (Filter("one", "caption = 'picture number 7'"),), selection=selection)
    assert numbers(manifest, alone) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("selection", "sql"),
    [(DENSITY, "true"), (MATCHING, "true"), (MATCHING, "len(caption) > 0")],  # the last in a process of its own
)
def test_comparing_publishing_and_exporting_say_how_far_a_selection_is(manifest, tmp_path, selection, sql):
    recipe = Recipe("any", (Filter("any", sql),), selection=selection)
    compared, published, audited, exported = [], [], [], []
    apart.compare(manifest.storage, manifest.id, [recipe], lambda *of: compared.append(of))
    store = shutil.copytree(manifest.storage.root, tmp_path / "store")
    apart.republish(Storage(store), recipe, lambda *of: published.append(of))
    audit(manifest, recipe, progress=lambda *of: audited.append(of))
    content = Content(manifest, "uids", recipe)
    write(content, tmp_path / "uids", lambda step, *of: exported.append(of) if step == "choose" else None)
    for told in (compared, published, audited):
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert told[-1][0] == told[-1][1] > 1
    assert exported == compared * 2  # the pairs, and the funnel of the card


@pytest.mark.parametrize("selection", [DENSITY, MATCHING])
def test_a_published_selection_is_not_evaluated_again(manifest, tmp_path, selection):
    recipe, told = Recipe("any", (Filter("even", "pixels_sharpness % 2 = 0"),), selection=selection), []
    storage = Storage(shutil.copytree(manifest.storage.root, tmp_path / "store"))
    published = Manifest.open(storage, apart.republish(storage, recipe).id)
    assert apart.compare(storage, published.id, [recipe], lambda *of: told.append(of)) == manifest.compare([recipe])
    assert published.select(recipe, lambda *of: told.append(of)) == manifest.select(recipe)
    diff.between(manifest, published, 1)
    assert told == []
    published.compare([replace(recipe, filters=())], lambda *of: told.append(of))
    assert told


@pytest.mark.slow
@pytest.mark.parametrize("selection", [DENSITY, MATCHING])
def test_a_manifest_keeps_its_selection(manifest, tmp_path, selection):
    folder = tmp_path / "again"
    table = toml(Recipe("x", selection=selection)).replace("filters = []", "")
    described = listed(folder, more=table)
    assert described.own_recipe.selection == selection
    made = curated(described, Storage(folder / "store"))
    assert made.recipe.selection == selection
    assert numbers(made, None) == numbers(manifest, Recipe("any", selection=selection))
    with made.connection() as con:
        (unknown,) = con.execute("SELECT count(*) FROM rows WHERE unknown = ['selection']").fetchall()
    assert unknown == (len(UNSCORED),)
    assert publish.republish(made.storage, described.own_recipe).new is False


@pytest.mark.slow
def test_recipes_by_name(tmp_path):
    """SemDeDup leaves what harder says, density-based pruning 0.4 of it; matching keeps 0.3 of the pool."""
    more = (
        '[scorers.semantic]\nkind = "semantic"\nof = "recorded"\n'
        '[scorers.target_features]\nkind = "target_features"\nof = "recorded"\ntargets = "targets.npy"\n'
    )
    made = curated(listed(tmp_path, more=more), Storage(tmp_path / "store"))
    recipe = catalog.recipes()["density-pruning-like"]
    of_recorded = replace(recipe, selection=replace(recipe.selection, of="recorded"))
    left = len(made.select(replace(recipe, selection=None)))
    assert left < 0.8 * COUNT
    assert len(made.select(of_recorded)) == round(0.4 * left)
    matching = catalog.recipes()["target-matching-top30"]
    kept = len(made.select(matching))
    assert kept == round(0.3 * (COUNT - len(FAILED)))
    command = "<code>winnow funnel tiny --recipe target-matching-top30</code>"
    report.write(made.storage, made, None, tmp_path / "report.html")
    assert command in (tmp_path / "report.html").read_text()
    published = apart.republish(made.storage, matching)
    report.write(made.storage, Manifest.open(made.storage), None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert command not in page
    assert f"tiny: {kept} of" in page
    assert published.counts.kept == kept


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('kind = "density"\nbudget = 0.5\n', "selection.of: no scorer 'clip' stores embeddings"),
        ('kind = "density"\nbudget = 0.5\nof = "captions"\n', "selection.of: no scorer 'captions' stores embeddings"),
        ('kind = "density"\nbudget = 0.5\nof = "recordd"\n', "stores embeddings; did you mean 'recorded'"),
        ('kind = "density"\nof = "recorded"\n', "selection.budget: Field required"),
        ('kind = "density"\nbudget = 0\nof = "recorded"\n', "selection.budget: .* greater than 0"),
        ('kind = "density"\nbudget = 1\nclusters = 0\n', "selection.clusters: .* greater than or equal to 1"),
        ('kind = "density"\nbudget = 1\ntemperature = 0\n', "selection.temperature: .* greater than 0"),
        ('kind = "density"\nbudget = 1\ncluster = 9\n', "unknown key selection.cluster; did you mean 'clusters'"),
        ('kind = "matching"\nbudget = 0.5\nof = "recorded"\n', "no scorer 'recorded' has the features of a target set"),
        ('kind = "matching"\nbudget = 0.5\nof = "targt"\n', "of a target set; did you mean 'target'"),
        (
            'kind = "density"\nbudget = 3\nof = "recorded"\n',
            "selection: the budget is 3 times the pairs, and kind density",
        ),
        ('kind = "dense"\nbudget = 0.5\n', "selection.kind: 'dense' is unknown"),
        ("budget = 0.5\n", "selection.kind: Field required"),
    ],
)
def test_a_bad_table_is_one_line_before_anything_runs(tmp_path, table, message):
    listed(tmp_path, range(3))
    path = tmp_path / "tiny.toml"
    path.write_text(f"{path.read_text()}[selection]\n{table}")
    with pytest.raises((RecipeError, SourceError), match=message) as caught:
        checking.check(str(path))
    assert "\n" not in str(caught.value)


def test_a_manifest_without_the_scorer_refuses_the_recipe(tmp_path):
    described = published_sources.listed(tmp_path, range(3), filters=())
    published_sources.published(described, Storage(tmp_path / "store"))
    made = Manifest.open(Storage(tmp_path / "store"))
    with pytest.raises(RecipeError, match="'recorded' stores embeddings"):
        made.select(Recipe("dense", selection=DENSITY))
    with pytest.raises(RecipeError, match=r"no scorer 'target' .*; one of kind target_features"):
        made.funnel(Recipe("like", selection=MATCHING))
    with pytest.raises(RecipeError, match="does not fit the published scores"):
        publish.republish(made.storage, Recipe("like", selection=MATCHING))


@pytest.mark.parametrize("settings", [{"clusters": 0}, {"temperature": 0}, {"budget": 0}])
def test_a_bad_value_is_refused(settings):
    with pytest.raises(ValueError, match="selection: "):
        DensityPruning(**{"budget": 1, **settings})


def test_loading_knows_both_tables(tmp_path):
    described = listed(tmp_path, range(3), more='[selection]\nkind = "matching"\nbudget = 0.5\nof = "target"\n')
    assert loading.load(described.path).own_recipe.selection == Matching(of="target", budget=0.5)
