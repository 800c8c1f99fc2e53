"""Published recipes on small tables, with the answer worked out by hand."""

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import catalog, pair
from filters.core import Filter, Recipe
from pipeline.filtering import predicates
from pipeline.store import duck

FINE = {
    "status": "ok",
    "caption": "A dog on the grass",
    "width": 400,
    "height": 300,
    "bytes": 40_000,
    "captions_language": "en",
    "captions_words": 5,
    "captions_length": 18,
    "captions_repetition": 0.0,
    "captions_digits": 0.0,
    **dict.fromkeys((f"captions_{mark}" for mark in ("file_name", "url", "price", "boilerplate", "markup")), False),
    "imagenet_words_count": 2,
    "clip_similarity": 0.31,
    "clusters_near_target": True,
    "entries_matched": 2,
    "entries_probability": 0.5,
    "entries_draw": 0.3,
    "entries_rank": 1,
    "semantic_harder": 0.3,
    "text_masked_similarity": 0.31,
}
"""A pair that every recipe keeps."""


@pytest.fixture
def keeps(tmp_path):
    """The uids that a recipe keeps of a table: by uid, what is different from `FINE`."""

    def keeps(recipe, rows):
        table = pa.Table.from_pylist([{"uid": uid, **FINE, **changes} for uid, changes in rows.items()])
        pq.write_table(table, tmp_path / "rows.parquet")
        passes = " AND ".join(["ok", *(f"f{number}" for number in range(len(recipe.filters)))])
        with duck.connect(tmp_path) as con:
            predicates.view_parts(con, [tmp_path / "rows.parquet"])
            evaluated = predicates.evaluation_query([tmp_path / "rows.parquet"], recipe.filters)
            return {uid for (uid,) in con.execute(f"SELECT uid FROM ({evaluated}) WHERE {passes}").fetchall()}

    return keeps


BY_HAND = {
    "everything": {"fine": {}, "blank": {"caption": "", "clip_similarity": None}, "failed": {"status": "failed"}},
    "datacomp-basic-like": {
        "fine": {},
        "at the edge": {"captions_words": 3, "captions_length": 6, "width": 600, "height": 200},
        "german": {"captions_language": "de"},
        "unknown language": {"captions_language": None},
        "two words": {"captions_words": 2},
        "five characters": {"captions_length": 5},
        "low": {"height": 199},
        "narrow": {"width": 199},
        "too wide": {"width": 601, "height": 200},
    },
    "datacomp-text-based-like": {
        "fine": {},
        "at the edge": {"imagenet_words_count": 1},
        "german": {"captions_language": "de"},
        "nothing named": {"imagenet_words_count": 0},
    },
    "datacomp-image-based-like": {
        "fine": {},
        "at the edge": {"captions_words": 2, "captions_length": 6},
        "german": {"captions_language": "de"},
        "one word": {"captions_words": 1},
        "five characters": {"captions_length": 5},
        "elsewhere": {"clusters_near_target": False},
        "without an embedding": {"clusters_near_target": None},
    },
    "metaclip-like": {
        "fine": {},
        "at the edge": {"entries_draw": 0.1999, "entries_probability": 0.2},
        "out by lot": {"entries_draw": 0.2, "entries_probability": 0.2},
        "nothing matched": {"entries_matched": 0, "entries_draw": 0.0, "entries_probability": 0.0},
    },
    "clip-queries-like": {
        "fine": {},
        "the second": {"entries_rank": 2},  # a pool of so few has one pair for an entry
        "nothing matched": {"entries_matched": 0, "entries_rank": None},
    },
    "laion-400m-like": {
        "fine": {},
        "at the edge": {"captions_length": 5, "bytes": 5000, "clip_similarity": 0.3},
        "four characters": {"captions_length": 4},
        "small file": {"bytes": 4999},
        "far": {"clip_similarity": 0.299},
        "unscored": {"clip_similarity": None},
    },
    "laion-2b-en-like": {
        "fine": {},
        "at the edge": {"captions_length": 5, "bytes": 5000, "clip_similarity": 0.28},
        "german": {"captions_language": "de"},
        "small file": {"bytes": 4999},
        "far": {"clip_similarity": 0.279},
    },
    "conceptual-captions-like": {
        "fine": {},
        "at the edge": {"caption": "\u00c9douard beside HIS house", "captions_repetition": 0.3, "captions_digits": 0.5},
        "no determiner": {"caption": "Dogs on grass"},
        "no preposition": {"caption": "The dog"},
        "part of a word": {"caption": "Theatre inn"},
        "small": {"caption": "a dog on the grass"},
        "loud": {"caption": "A DOG ON THE GRASS"},
        "repeated": {"captions_repetition": 0.31},
        "shop": {"captions_boilerplate": True},
        "numbers": {"captions_digits": 0.51},
    },
    "semdedup": {
        "fine": {},
        "at the edge": {"semantic_harder": 0.051},
        "near a less central one": {"semantic_harder": 0.049},
        "the same once more": {"semantic_harder": 0.0},
        "no embedding": {"semantic_harder": None},
    },
}
"""By recipe a table; it keeps "fine" and "at the edge", and nothing else."""


@pytest.mark.parametrize("name", BY_HAND)
def test_a_recipe_by_hand(keeps, name):
    wanted = {"fine", "blank"} if name == "everything" else {"fine", "at the edge"}
    assert keeps(catalog.recipes()[name], BY_HAND[name]) == wanted & set(BY_HAND[name])


def test_the_best_30_percent_of_the_pool(keeps):
    """Ten scores 0.00 to 0.90: the 0.7-quantile lies 0.3 of the way from 0.60 to 0.70. Failed pairs have no score."""
    rows = {str(tenth): {"clip_similarity": tenth / 10} for tenth in range(10)}
    rows["failed"] = {"status": "failed", "clip_similarity": None}
    assert keeps(catalog.recipes()["clip-top30"], rows) == {"7", "8", "9"}


def test_the_learned_filter_keeps_70_percent_of_what_is_scored(keeps):
    """Ten scores 0.00 to 0.90: the 0.3-quantile is 0.27. A pair that no fold may score is dropped."""
    rows = {str(tenth): {"learned_similarity": tenth / 10} for tenth in range(10)}
    rows["seen"] = {"learned_similarity": None}
    assert keeps(catalog.recipes()["learned-filter"], rows) == {str(tenth) for tenth in range(3, 10)}


def test_the_best_of_the_pool_and_of_the_rest(keeps):
    """Ten scores, the five lowest in English: the best 40 % of the pool are 6 to 9, of the English ones 3 and 4."""
    rows = {str(n): {"clip_similarity": n / 10, "captions_language": "en" if n < 5 else "de"} for n in range(10)}
    english = Filter("english", "captions_language = 'en'")
    assert keeps(Recipe("pool", (english, pair.most_aligned(0.4))), rows) == set()
    assert keeps(Recipe("rest", (english, pair.most_aligned_of_rest(0.4))), rows) == {"3", "4"}
    assert keeps(Recipe("turned", (pair.most_aligned_of_rest(0.4), english)), rows) == set()


def test_image_based_and_the_best_30_percent_of_the_pool(keeps):
    """Ten scores, every second near a target: of the pool's best three, 7 to 9, that is 8. The best 30 % of those near
    a target would be 6 and 8."""
    rows = {str(n): {"clip_similarity": n / 10, "clusters_near_target": n % 2 == 0} for n in range(10)}
    assert keeps(catalog.recipes()["datacomp-image-based-clip-top30-like"], rows) == {"8"}


def test_the_cap_of_a_query_grows_with_the_pool(tmp_path):
    """20,000 of 400 million are 1 of 20,000, and 3 of 60,000; failed pairs are not of the pool."""
    with duck.connect(tmp_path) as con:
        con.execute(
            "CREATE TABLE rows AS SELECT CASE WHEN n < 60000 THEN 'ok' ELSE 'failed' END AS status, "
            "1 AS entries_matched, n % 6 + 1 AS entries_rank FROM range(90000) t(n)"
        )
        (each,) = catalog.recipes()["clip-queries-like"].filters
        (most,) = con.execute(f"SELECT max(entries_rank) FROM rows WHERE {each.sql}").fetchone()
    assert most == 3


def test_negative_loss_and_then_norm_sim_leave_a_fifth_of_the_pool(keeps):
    """Thirty pairs: the best nine by negCLIPLoss are 21 to 29; of these the NormSim of 21, 22, 23 is the lowest."""
    rows = {
        str(n): {
            "clip_similarity": None,
            "neg_clip_loss_score": -0.01 * (29 - n),
            "norm_sim_inf": 0.9 - 0.02 * (29 - n),
        }
        for n in range(30)
    }
    rows["0"]["norm_sim_inf"] = 1.0  # near a target, and out by its loss
    best = {str(n) for n in range(21, 30)}
    assert keeps(catalog.recipes()["neg-clip-loss-top30"], rows) == best
    assert keeps(catalog.recipes()["neg-clip-loss-norm-sim"], rows) == best - {"21", "22", "23"}


def test_every_published_recipe_is_worked_out_by_hand():
    also = {"clip-top30", "datacomp-image-based-clip-top30-like", "neg-clip-loss-top30", "neg-clip-loss-norm-sim"}
    sets = {"density-pruning-like", "target-matching-top30", "soft-cap-like"}  # test_selection_of_sets, test_soft_cap
    assert set(BY_HAND) | also | sets | {"default", "learned-filter", "mixed-top30", "t-mars-like"} == set(
        catalog.recipes()
    )


def test_every_recipe_is_in_the_docs():
    told = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text().split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \|", told, re.MULTILINE)) == set(catalog.recipes())


def test_every_recipe_was_measured_or_the_page_says_why_not():
    """docs/recipe-zoo.md has a row or a reason for each of the two pools, docs/recipes.md a row of its table."""
    docs = Path(__file__).parent.parent / "docs"
    pools = (docs / "recipe-zoo.md").read_text().split("\n## ")[1:]
    table = (docs / "recipes.md").read_text().split("## What they are worth")[1].split("\n## ")[0]
    for name in catalog.recipes():
        assert all(f"\n| {name} |" in pool or f"\n- `{name}`: " in pool for pool in pools), name
        assert f"| `{name}` |" in table or all(f"\n- `{name}`: " in pool for pool in pools), name
