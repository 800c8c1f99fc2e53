import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from filters import catalog, image, pair, pool, safety, text
from filters.core import MOST_FILTERS, REST, Filter, Recipe
from pipeline.errors import RecipeError
from pipeline.filtering import functions, predicates
from pipeline.filtering.sequence import in_sequence, with_rests
from pipeline.scorers.aesthetic import AestheticSpec
from pipeline.scorers.caption_counts import CaptionCountsSpec
from pipeline.scorers.captions import CaptionsSpec
from pipeline.scorers.clusters import ClustersSpec
from pipeline.scorers.cross_fitted import CrossFittedSpec
from pipeline.scorers.duplicates import DuplicatesSpec
from pipeline.scorers.entries import EntriesSpec
from pipeline.scorers.faces import FacesSpec
from pipeline.scorers.label_errors import LabelErrorsSpec
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scorers.mixed import MixedSpec
from pipeline.scorers.neg_clip_loss import NegClipLossSpec
from pipeline.scorers.norm_sim import NormSimSpec
from pipeline.scorers.picture_counts import PictureCountsSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.scorers.prompts import SETS, PromptsSpec
from pipeline.scorers.recorded import RecordedSpec
from pipeline.scorers.semantic import SemanticSpec
from pipeline.scorers.text import TextSpec
from pipeline.scorers.unsafe import UnsafeSpec
from pipeline.scorers.words import WordsSpec
from pipeline.sources.columns import row_columns

SCORERS = {
    "pixels": PixelsSpec.model_construct(),
    "captions": CaptionsSpec.model_construct(),
    "clip": RecordedSpec.model_construct(),
    "learned": CrossFittedSpec.model_construct(),
    "mixed": MixedSpec.model_construct(),
    "aesthetic": AestheticSpec.model_construct(),
    "faces": FacesSpec.model_construct(),
    "unsafe": UnsafeSpec.model_construct(),
    "text": TextSpec.model_construct(recognition=True, of="clip"),
    "caption_counts": CaptionCountsSpec.model_construct(),
    "picture_counts": PictureCountsSpec.model_construct(),
    "label_errors": LabelErrorsSpec.model_construct(),
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
        image.faces(3),
        image.text_area(0.2),
        image.text_lines(1),
        pair.unread(0.5),
        image.largest_face(0.2),
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
    with pytest.raises(ValueError, match="use its code"):
        text.language("de' OR true", 0.8)


QUANTILES = [
    (image.most_aesthetic, image.most_aesthetic_of_rest),
    (pair.most_aligned, pair.most_aligned_of_rest),
    (pair.learned, pair.learned_of_rest),
    (pair.best_mixed, pair.best_mixed_of_rest),
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
    with pytest.raises(ValueError, match="a share must be more than 0 and at most 1, not 30"):
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
    "label_errors_contradicted": False,
    "picture_counts_urls": 1,
    "faces_count": 0,
    "unsafe_nsfw": 0.01,
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
    "uncontradicted": {"label_errors_contradicted": True},
    "unshared": {"picture_counts_urls": 5},
    "faceless": {"faces_count": 1},
    "sfw": {"unsafe_nsfw": 0.9},
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


def test_a_column_that_resembles_none_has_no_suggestion():
    assert "did you mean" not in refused("frobnicated > 0")


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
        "(SELECT count(*) FROM (SHOW TABLES)) > 1",
        "(SELECT count(*) FROM (DESCRIBE rows)) > 1",
        "(SELECT count(*) FROM duckdb_settings) > 1",
        "(WITH duckdb_settings AS (FROM duckdb_settings) SELECT count(*) FROM duckdb_settings) > 1",
        "(SELECT count(*) FROM histogram('rows', 'width')) > 1",
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
        "ago(INTERVAL 1 DAY) > '2020-01-01'",
        "current_localtimestamp() > '2020-01-01'",
        "pg_postmaster_start_time() > '2020-01-01'",
        "current_user = 'duckdb'",
        "current_schema() = 'main'",
        "version() LIKE 'v2%'",
        "pg_sleep(3) IS NULL",
        "sleep_ms(3000) IS NULL",
        "age('2020-01-01'::DATE) > INTERVAL 1 DAY",
        "getvariable('x') IS NULL",
        "current_setting('threads')::INT > 1",
        "system.main.version() LIKE 'v2%'",
        "caption.version() LIKE 'v2%'",
        "list_aggregate([width], 'reservoir_quantile', 0.5) > 3",
        "(SELECT reservoir_quantile(width, 0.5) FROM rows) > 3",
        "(SELECT approx_quantile(width, 0.5) FROM rows) > 3",
        "list_filter([1], lambda x: random() > 0.5) = []",
        "in_search_path('memory', 'main')",
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


def test_the_list_of_functions_was_reviewed_for_the_version_that_is_installed():
    """A new DuckDB may have changed what a function of the list does, and has others that can be NaN."""
    assert duckdb.__version__.startswith(functions.REVIEWED)
    known = duckdb.execute(
        "SELECT lower(function_name), bool_or(return_type IN ('DOUBLE', 'FLOAT')), "
        "bool_or(stability <> 'CONSISTENT' AND function_type <> 'macro') FROM duckdb_functions() GROUP BY 1"
    ).fetchall()
    assert functions.STEADY - {name for name, *_ in known} == {"->", "<>"}
    assert [name for name, _, unsteady in known if unsteady and name in functions.STEADY] == []
    exact = functions.words(
        "@ abs arg_max arg_max_null arg_max_nulls_last arg_min arg_min_null arg_min_nulls_last argmax argmin ceil "
        "ceiling cume_dist date_part datepart epoch even floor jaccard jaro_similarity jaro_winkler_similarity julian "
        "mad max_by min_by percent_rank pi quantile_cont round round_even roundbankers trunc vertex_extract"
    )
    assert {name for name, floats, _ in known if floats} & functions.STEADY - functions.NONFINITE == exact


NOT_FINITE = [
    "x / 0 > 1",
    "x / 0 < 1",
    "NOT (x / 0 > 1)",
    "(x - x) / (x - x) > 1",
    "sqrt(x - 5) < 3",
    "sqrt(x - 5) > 3",
    "NOT (sqrt(x - 5) < 3)",
    "ln(x - 1) < 0",
    "ln(x - 2) IS NOT NULL AND ln(x - 2) > 0 OR NULL",
    "1 / (x / 0) < 5",
    "exp(-(x / 0)) < 5",
    "fmod(x, 0) >= 0",
    "x % 0.0::DOUBLE > 0",
    "acos(x + 5) > 1",
    "pow(-x, 0.5) > 0",
    "'nan'::DOUBLE > x",
    "word::DOUBLE > 1",
    "TRY_CAST(word AS DOUBLE) > 1",
    "(x / 0)::FLOAT > 1",
    "greatest(x, x / 0) IS NULL OR x / 0 > 1",
    "x BETWEEN -1 AND x / 0",
    "x / 0 BETWEEN 0 AND 1",
    "x / 0 IN (1, 2)",
    "CASE WHEN x / 0 > 1 THEN true ELSE NULL END",
    "coalesce(sqrt(-x), NULL) < 3",
    "list_avg([x / 0, sqrt(-x)]) > 1",
    "list_cosine_similarity([0.0, 0.0], [x, x]) < 2",
    "x > (SELECT quantile_cont(x / 0, 0.5) FROM rows)",
    "x < (SELECT avg(r.x / 0) FROM rows AS r)",
    "x < (SELECT corr(x, 1) FROM rows)",
    "sqrt((SELECT -max(x) FROM rows)) < 3",
    "geomean < 3 OR (SELECT geomean(-x) FROM rows) < 3",
    "list_filter([x], lambda v: v / 0 > 1)[1] > 0",
    "x * 1e308 * 10 > 1",
    "x * 1e308 * 10 - x * 1e308 * 10 < 1",
    "(x / 0)::BOOLEAN",
]


@pytest.mark.parametrize("sql", NOT_FINITE)
def test_what_is_not_finite_is_no_answer(sql):
    """x is 1 and word is "nan": every one of these would be yes or no by NaN or infinity, and is neither."""
    (each,) = in_sequence([Filter("mine", sql)])
    with duckdb.connect() as con:
        con.execute("CREATE TABLE rows AS SELECT 1.0::DOUBLE AS x, 'nan' AS word, NULL::DOUBLE AS geomean")
        assert con.execute(f"SELECT ({each.sql}) FROM rows").fetchall() == [(None,)]


FINITE = {
    "x / 2 > 0.4": True,
    "x / 2 > 0.6": False,
    "NOT (x / 2 > 0.6)": True,
    "sqrt(x + 8) = 3": True,
    "x / 0 IS NULL": True,
    "coalesce(x / 0, 5) = 5": True,
    "coalesce(x / 0 > 1, false)": False,
    "coalesce(x / 0 > 1, x = 1)": True,
    "x / 0 > 1 OR x = 1": True,
    "x / 0 > 1 AND x = 2": False,
    "CASE WHEN x / 0 > 1 THEN true ELSE false END": False,
    "x >= (SELECT quantile_cont(r.x / r.y, 0.5) FROM rows AS r)": True,
    "word = 'nan'": True,
    "lower(word) || 'x' = 'nanx'": True,
    "endless > 5": True,
    "day + INTERVAL 1 DAY > day": True,
    "day - day = 0": True,
    "list_filter([1, 2], lambda v: v / 2 >= 1) = [2]": True,
    "[v / 2 for v in [1, 2]] = [0.5, 1.0]": True,
    "regexp_matches(word, '^n.*\\w$') AND len(word) / 3 = 1": True,
    "(SELECT count(*) FROM rows WHERE x / 0 > 1) = 0": True,
}


@pytest.mark.parametrize(("sql", "answer"), FINITE.items())
def test_what_is_finite_stays_as_it_is(sql, answer):
    (each,) = in_sequence([Filter("mine", sql)])
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE rows AS SELECT 1.0::DOUBLE AS x, 2.0::DOUBLE AS y, 'nan' AS word, "
            "'inf'::DOUBLE AS endless, DATE '2020-01-01' AS day"
        )
        assert con.execute(f"SELECT ({each.sql}) FROM rows").fetchall() == [(answer,)]


def test_sql_that_computes_no_floats_stays_as_typed():
    for sql in ("clip_similarity >= 0.28", "captions_words > 3 AND NOT captions_url", "caption LIKE '%a/b%'"):
        assert in_sequence([Filter("mine", sql)])[0].sql == sql
    for each in catalog.filters().values():
        assert in_sequence([each])[0].name == each.name


def test_the_rest_of_many_filters_grows_with_their_number():
    """Written out, 24 of these were 872 MB of SQL."""
    least = "width >= (SELECT quantile_cont(width, 0.01) FROM rows WHERE {rest})"
    filters = [Filter(f"f{number}", least.replace("0.01", f"0.0{number:02}1")) for number in range(63)]
    sequence = in_sequence(filters)
    assert max(len(each.shared) for each in sequence) < 300
    assert sum(len(select) for _, select in sequence[-1].rests) < 20_000
    predicates.bind(filters[: predicates.MOST_RESTS], COLUMNS)
    with pytest.raises(RecipeError, match="filter 'f16': 63 filters use {rest}, and at most 16 can"):
        predicates.bind(filters, COLUMNS)


def test_the_rest_is_what_every_filter_before_leaves():
    """Filters of quantiles of the rest, against numpy."""
    values = np.random.default_rng(0).normal(size=5000)
    table = pa.table(
        {"uid": [f"{n:032x}" for n in range(5000)], "status": ["ok"] * 4000 + ["failed"] * 1000, "x": values}
    )
    sql = "x >= (SELECT quantile_cont(x, 0.1) FROM rows WHERE {rest})"
    sequence = in_sequence([Filter(f"f{number}", sql) for number in range(6)])
    left, answers = np.arange(5000) < 4000, []
    for _ in sequence:
        answers.append(values >= np.quantile(values[left], 0.1))
        left = left & answers[-1]
    with duckdb.connect() as con:
        con.from_arrow(table).create("rows")
        for each, expected in zip(sequence, answers, strict=True):
            alone = con.sql(f"SELECT ({each.sql}) AS yes FROM rows").to_arrow_table()["yes"].to_numpy()
            select = f"{with_rests(each.rests)}SELECT ({each.shared}) AS yes FROM rows"
            shared = con.sql(select).to_arrow_table()["yes"].to_numpy()
            assert (alone == expected).all()
            assert (shared == expected).all()


@pytest.mark.parametrize(
    "sql",
    [
        "len(repeat(repeat('x', 100000), 20000)) > 0",
        "width > 3 OR list_sum(range(300000000)) > width",
        "(SELECT max(len(repeat('x', 4000000000))) FROM rows) > 0",
        "CASE WHEN caption = 'x' THEN len(repeat(repeat('x', 100000), 20000)) > 0 ELSE true END",
        "len(repeat(caption, 1000000)) > 0",
        pytest.param("len(lpad(caption, 100000000, 'x')) > 0", marks=pytest.mark.slow),
        "list_sum(range(width * 1000000)) > 0",
        "list_reduce(['x', 'y', 'z'], lambda a, b: repeat(a || b, 30000)) > 'x'",
    ],
)
def test_constants_that_take_too_much_are_refused_while_binding(sql):
    """The first took 58 s and 5.9 GB, in the command itself, before any deadline."""
    assert "it takes more than 10 s or 2 GB" in refused(sql)


def test_constants_that_are_cheap_bind():
    predicates.bind(
        [
            Filter(
                "mine", "len(repeat(caption, 2)) < 10 AND len(repeat('x', 10)) < width AND regexp_matches('abc', 'b')"
            )
        ],
        COLUMNS,
    )


def test_filters_are_stopped_at_their_deadline(tmp_path):
    """A join of rows with themselves ran for ever, and held the lock of the source."""
    uids = [f"{n:032x}" for n in range(5000)]
    pq.write_table(pa.table({"uid": uids, "status": ["ok"] * 5000}), tmp_path / "rows.parquet")
    slow = Filter("slow", "(SELECT sum(hash(a.uid || b.uid || c.uid)) FROM rows a, rows b, rows c) > 0")
    with duckdb.connect() as con:
        predicates.view_parts(con, [tmp_path / "rows.parquet"])
        with (
            pytest.raises(RecipeError, match="stopped after 0.5 s"),
            predicates.attribute_errors(con, [tmp_path / "rows.parquet"], [slow], deadline=0.5),
        ):
            con.sql(predicates.evaluation_query([tmp_path / "rows.parquet"], [slow])).fetchall()
