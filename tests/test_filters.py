import duckdb
import pyarrow as pa
import pytest

from filters import catalog, image, pair, pool, safety, text
from filters.core import MOST_FILTERS, REST, Filter, Recipe
from pipeline.errors import RecipeError
from pipeline.filtering import predicates
from pipeline.scorers.aesthetic import AestheticSpec
from pipeline.scorers.caption_counts import CaptionCountsSpec
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.clusters import ClustersSpec
from pipeline.scorers.duplicates import DuplicatesSpec
from pipeline.scorers.entries import EntriesSpec
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scorers.neg_clip_loss import NegClipLossSpec
from pipeline.scorers.norm_sim import NormSimSpec
from pipeline.scorers.picture_counts import PictureCountsSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.scorers.prompts import SETS, PromptsSpec
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scorers.semantic import SemanticSpec
from pipeline.scorers.words import WordsSpec
from pipeline.sources.columns import row_columns

SCORERS = {
    "pixels": PixelsSpec.model_construct(),
    "captions": CaptionsSpec.model_construct(),
    "clip": RecordedSpec.model_construct(),
    "aesthetic": AestheticSpec.model_construct(),
    "caption_counts": CaptionCountsSpec.model_construct(),
    "picture_counts": PictureCountsSpec.model_construct(),
    "leaks": LeaksSpec.model_construct(),
    "clusters": ClustersSpec.model_construct(),
    "duplicates": DuplicatesSpec.model_construct(),
    "entries": EntriesSpec.model_construct(),
    "imagenet_words": WordsSpec.model_construct(),
    "neg_clip_loss": NegClipLossSpec.model_construct(),
    "norm_sim": NormSimSpec.model_construct(),
    "semantic": SemanticSpec.model_construct(),
    **{name: PromptsSpec.model_construct() for name in SETS},
}
COLUMNS = row_columns(pa.schema({"label": pa.string(), "now": pa.string()}), SCORERS)


def refused(sql):
    with pytest.raises(RecipeError) as raised:
        predicates.bind([Filter("large", "width > 3"), Filter("mine", sql)], COLUMNS)
    assert str(raised.value).startswith("filter 'mine': ")
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix("filter 'mine': ")


@pytest.mark.parametrize("name", catalog.filters())
def test_every_filter_binds_and_says_why(name):
    each = catalog.filters()[name]
    predicates.bind([each], COLUMNS)
    assert each.why


@pytest.mark.parametrize("name", catalog.recipes())
def test_every_recipe_binds_and_says_why(name):
    recipe = catalog.recipes()[name]
    predicates.bind(recipe.filters, COLUMNS)
    assert all(each.why for each in recipe.filters)


def test_filters_with_a_threshold_bind_and_say_why():
    made = [
        image.aesthetic(4.5),
        image.brightness(40, 200),
        image.border(0.1),
        image.watermark(0.5),
        image.screenshot(0.5),
        image.logo(0.5),
        safety.safe(0.2),
        image.size(224),
        image.aspect(2.5),
        pair.aligned(0.28),
        pair.particular(-0.1),
        pair.near(0.7),
        pool.capped(100),
        pool.rare(1000),
        pool.uncrowded(50),
        text.length(5, 300),
        text.words(3, 60),
        pool.hardest(0.07),
        text.language("de", 0.8),
    ]
    predicates.bind(made, COLUMNS)
    assert all(each.why for each in made)
    assert made[-1].name == "surely-de"
    with pytest.raises(ValueError, match="by its code"):
        text.language("de' OR true", 0.8)


QUANTILES = [
    (image.most_aesthetic, image.most_aesthetic_of_rest),
    (pair.most_aligned, pair.most_aligned_of_rest),
    (pair.most_particular, pair.most_particular_of_rest),
    (pair.nearest, pair.nearest_of_rest),
]


@pytest.mark.parametrize(("of_pool", "of_rest"), QUANTILES)
def test_quantiles_of_the_pool_and_of_the_rest_are_named_apart(of_pool, of_rest):
    pool, rest = of_pool(0.3), of_rest(0.3)
    predicates.bind([pool, rest], COLUMNS)
    assert rest.name == f"{pool.name}-of-rest"
    assert (REST in pool.sql, REST in rest.sql) == (False, True)
    assert pool.why != rest.why
    with pytest.raises(ValueError, match="a share is more than 0 and at most 1, not 30"):
        of_pool(30)


GOOD = {
    "status": "ok",
    "imagenet_words_count": 2,
    "caption": "A dog on the grass",
    "bytes": 90_000,
    "width": 640,
    "height": 480,
    "pixels_brightness": 114.0,
    "pixels_contrast": 55.0,
    "pixels_entropy": 7.4,
    "pixels_colourfulness": 36.0,
    "pixels_sharpness": 1600.0,
    "pixels_blockiness": 1.14,
    "pixels_border": 0.0,
    "captions_length": 24,
    "captions_words": 6,
    "captions_type_token_ratio": 0.83,
    "captions_repetition": 0.0,
    "captions_separators": 0.0,
    "captions_digits": 0.0,
    "captions_language": "en",
    "captions_language_confidence": 0.9,
    "captions_file_name": False,
    "captions_url": False,
    "captions_price": False,
    "captions_boilerplate": False,
    "captions_markup": False,
    "leaks_leaked": False,
    "picture_counts_urls": 1,
    "clusters_near_target": True,
    "entries_matched": 2,
    "entries_probability": 0.5,
    "entries_draw": 0.3,
    "entries_rank": 1,
}
"""A row of median values, and for each filter what it is there to drop."""

DROPPED = {
    "large": {"height": 199},
    "shaped": {"width": 1441},
    "weighty": {"bytes": 4999},
    "lit": {"pixels_brightness": 4.0},
    "contrasted": {"pixels_contrast": 3.0},
    "detailed": {"pixels_entropy": 1.5},
    "coloured": {"pixels_colourfulness": 0.0},
    "sharp": {"pixels_sharpness": 12.0},
    "unblocky": {"pixels_blockiness": 2.4},
    "unframed": {"pixels_border": 0.6},
    "worded": {"captions_words": 2},
    "named": {"imagenet_words_count": 0},
    "lettered": {"captions_length": 4},
    "phrased": {"caption": "Dog grass"},
    "capitalised": {"caption": "a dog on the grass"},
    "english": {"captions_language": "de"},
    "surely-en": {"captions_language_confidence": 0.3},
    "unrepeated": {"captions_repetition": 0.6},
    "varied": {"captions_type_token_ratio": 0.2},
    "unlisted": {"captions_separators": 0.9},
    "spelled": {"captions_digits": 0.9},
    "no-file-name": {"captions_file_name": True},
    "no-url": {"captions_url": True},
    "no-price": {"captions_price": True},
    "no-boilerplate": {"captions_boilerplate": True},
    "no-markup": {"captions_markup": True},
    "plain": {"captions_markup": True},
    "two-words": {"captions_words": 1},
    "unleaked": {"leaks_leaked": True},
    "unshared": {"picture_counts_urls": 5},
    "targeted": {"clusters_near_target": False},
    "balanced": {"entries_probability": 0.2},
    "queried": {"entries_rank": 2},
}


@pytest.mark.parametrize("name", DROPPED)
def test_a_filter_keeps_the_ordinary_and_drops_what_it_is_for(name):
    unknown = dict.fromkeys(DROPPED[name])
    rows = pa.Table.from_pylist([GOOD, GOOD | DROPPED[name], GOOD | unknown])
    found = duckdb.sql(f"SELECT {catalog.filters()[name].sql} FROM rows").fetchall()
    assert found == [(True,), (False,), (None,)]
    assert rows.num_rows == 3


def test_every_filter_of_the_catalogue_is_tried():
    assert set(catalog.filters()) == set(DROPPED)


@pytest.mark.parametrize(
    "sql",
    [
        "width > 3 -- the end",
        "\n  width > 3\n",
        "rows.width > 3",
        "url IN (SELECT url FROM rows GROUP BY url HAVING count(*) = 1)",
        "clip_similarity >= (WITH best AS (FROM rows ORDER BY width) SELECT max(clip_similarity) FROM best)",
        "(SELECT avg(width) FROM rows AS r WHERE r.label = rows.label) > 3",
        "now = 'a column of the source'",
        "caption LIKE '%(%' OR caption LIKE '%--%' OR caption LIKE '%;%'",
    ],
)
def test_one_boolean_expression_binds(sql):
    predicates.bind([Filter("mine", sql)], COLUMNS)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("clip_similarty >= 0.3", "there is no column 'clip_similarty'; did you mean 'clip_similarity'?"),
        ("CLIP_SIMILARTY >= 0.3", "did you mean 'clip_similarity'?"),
        ("rows.widht > 3", "there is no column 'widht'; did you mean 'width'?"),
        ("(SELECT max(heigth) FROM rows) > 3", "did you mean 'height'?"),
        ("kept", "there is no column 'kept'"),
        ("width", "this gives INTEGER, not BOOLEAN; compare it with something"),
        ("'yes'", "this gives VARCHAR"),
        ("NULL", "not BOOLEAN"),
        ("width >", "this is no SQL expression: syntax error"),
        ("frobnicate(width)", "frobnicate does not exist"),
        ("count(*) > 1", "aggregates"),
        ("row_number() OVER () > 3", "window"),
        ("width > $1", "parameters"),
        ("COLUMNS('width|height') > 3", "more than one SQL expression"),
    ],
)
def test_a_wrong_filter_is_told_in_one_line(sql, told):
    assert told in refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "width > 3) OR (1 = 1",
        "width > 3; DROP TABLE rows",
        "width > 3; SELECT 1",
        "true FROM rows",
        "true) FROM rows WHERE (true",
        "width > 3 AS wide",
        "width > 3, height > 3",
        "(width > 3, height > 3)",
        "width > 3 /*",
        "DROP TABLE rows",
        "SELECT true",
    ],
)
def test_a_filter_cannot_break_out_of_its_brackets(sql):
    refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "(SELECT true FROM read_csv('/etc/passwd'))",
        "(SELECT count(*) FROM '/etc/passwd') > 1",
        "(SELECT count(*) FROM read_text('/etc/passwd')) > 1",
        "(SELECT count(*) FROM duckdb_settings()) > 1",
        "(SELECT count(*) FROM elsewhere) > 1",
    ],
)
def test_a_filter_reads_nothing_but_rows(sql):
    assert "rows" in refused(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "random() < 0.5",
        "now() > '2020-01-01'",
        "current_date > '2020-01-01'",
        "current_timestamp > '2020-01-01'",
        "(SELECT avg(width) FROM rows TABLESAMPLE 10%) > 3",
        "uuid()::VARCHAR > uid",
    ],
)
def test_a_filter_says_the_same_tomorrow(sql):
    assert "differs each time" in refused(sql)


def test_names_are_words():
    for name in ("", "Large", "2big", "a b", "x" * 65):
        with pytest.raises(ValueError, match="lower-case"):
            Filter(name, "true")
    with pytest.raises(ValueError, match="has no sql"):
        Filter("empty", "  ")


def test_recipes():
    one, two = Filter("one", "true"), Filter("two", "false")
    recipe = Recipe("both", (one, two))
    assert recipe.without("one") == Recipe("both-without-one", (two,))
    with pytest.raises(ValueError, match="no filter 'three'"):
        recipe.without("three")
    with pytest.raises(ValueError, match="two filters called 'one'"):
        Recipe("twice", (one, one))
    with pytest.raises(ValueError, match="at most 63"):
        Recipe("many", tuple(Filter(f"f{number}", "true") for number in range(MOST_FILTERS + 1)))
