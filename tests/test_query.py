import json
import os
import subprocess
import sys
import time
from pathlib import Path

import published_sources
import pytest

from pipeline.errors import QueryError, StorageError
from pipeline.query import named, sandbox, statement
from pipeline.store.storage import Storage

SECRET = "these words are nowhere in the manifest"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("query")


@pytest.fixture(scope="module")
def store(folder):
    """Two sources side by side; the first has been published twice."""
    store = Storage(folder / "tiny")
    published_sources.published(published_sources.listed(folder, range(40, 50)), store)
    both = ({**published_sources.SHARP, "why": "blur"}, published_sources.WORDED)
    quarantined = {2: "it took too long"}
    published_sources.published(
        published_sources.listed(folder, range(40, 65), both), store, quarantined, failed={57}, unscored={58}
    )
    (folder / "secret.txt").write_text(SECRET)
    return store


def ask(store, sql, **settings):
    return sandbox.run(sql, [store], **settings).to_pylist()


@pytest.mark.slow
def test_views(store):
    (row,) = ask(
        store, "SELECT count(*) AS rows, count(*) FILTER (kept) AS kept, any_value(source) AS source FROM rows"
    )
    assert row == {"rows": 25, "kept": 8, "source": "tiny"}
    for view, count in (("kept", 8), ("dropped", 11), ("failed", 1)):
        assert ask(store, f"SELECT count(*) AS n FROM {view}") == [{"n": count}]
    assert ask(store, "SELECT dropped_by, unknown FROM rows WHERE captions_words IS NULL AND status = 'ok'") == [
        {"dropped_by": ["sharp", "worded"], "unknown": ["sharp", "worded"]}
    ]
    assert ask(store, "SELECT DISTINCT error FROM rows WHERE status = 'quarantined'") == [{"error": "it took too long"}]


def test_manifests(store):
    first, second = ask(store, "FROM manifests")
    assert (first["parent"], second["parent"]) == (None, first["id"])
    assert {name: value for name, value in second.items() if name not in ("id", "parent", "time")} == {
        "source": "tiny", "recipe": "tiny", "rows": 25, "kept": 8, "dropped": 11, "failed": 1, "quarantined": 5,
        "complete": True,
    }  # fmt: skip
    assert second["time"] > "2026"


def test_trials(folder):
    store = Storage(folder / "trials" / "tiny")
    published_sources.published(published_sources.listed(folder / "trials", range(5)), store)
    assert ask(store, "SELECT arm, augmented, f1_macro FROM trials") == []
    trial = {"manifest": "m", "arm": "raw", "augmented": True, "seed": 3, "f1_macro": 0.5, "pairs": 7, "classes": [1]}
    store.put_if_absent("trials/abc.json", json.dumps(trial).encode())
    store.put_if_absent("trials/abc.claim-0", b"{}")
    assert ask(store, "SELECT key, arm, augmented, seed, f1_macro, pairs, recall_macro FROM trials") == [
        {"key": "abc", "arm": "raw", "augmented": True, "seed": 3, "f1_macro": 0.5, "pairs": 7, "recall_macro": None}
    ]


def test_two_sources(folder, store):
    other = Storage(folder / "other")
    published_sources.published(published_sources.listed(folder, range(3), name="other"), other)
    empty = Storage(folder / "empty")
    found = sandbox.run("SELECT source, count(*) AS n FROM rows GROUP BY ALL ORDER BY n", [store, other, empty])
    assert found.to_pylist() == [{"source": "other", "n": 3}, {"source": "tiny", "n": 25}]


@pytest.mark.slow
def test_the_answer_can_be_cut(store):
    assert len(ask(store, "FROM range(1000000)", limit=21)) == 21
    assert len(ask(store, "FROM range(100000)")) == 100_000
    assert len(ask(store, "SELECT url FROM rows", limit=100)) == 25
    assert sandbox.run("SELECT url, kept FROM rows WHERE false", [store]).column_names == ["url", "kept"]


def test_nothing_is_published(folder):
    with pytest.raises(StorageError, match="winnow curate"):
        sandbox.run("SELECT 1", [Storage(folder / "empty")])


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT widht FROM rows", 'Did you mean "width"'),
        ("SELECT * FROM row", "rows"),
        ("SELEC 1", "syntax error"),
        ("SELECT caption::INTEGER FROM rows", "Could not convert"),
        ("", "only one SELECT"),
        ("-- nothing", "only one SELECT"),
    ],
)
def test_a_mistake_is_told_in_one_line(store, sql, told):
    assert told in refused(store, sql)


HOSTILE = [
    "COPY rows TO '{folder}/out.csv'",
    "COPY rows TO '{part}' (FORMAT parquet, USE_TMP_FILE false)",
    "EXPORT DATABASE '{folder}/out'",
    "ATTACH '{folder}/out.db'",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs FROM 'http://127.0.0.1:9/'",
    "PRAGMA profiling_output = '{folder}/out.json'",
    "SET memory_limit = '100GB'",
    "CALL pragma_version()",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "DROP VIEW rows",
    "INSERT INTO trials SELECT * FROM trials",
    "VACUUM",
    "EXPLAIN ANALYZE COPY rows TO '{folder}/out.csv'",
    "USE memory",
    "SELECT 1; COPY rows TO '{folder}/out.csv'",
    "WITH a AS (SELECT 1) INSERT INTO trials SELECT * FROM trials",
    "SELECT * FROM (DELETE FROM manifests RETURNING *)",
    "FROM read_csv_auto('{folder}/secret.txt', header = false)",
    "FROM '{folder}/secret.csv'",
    "FROM read_text('file://{folder}/secret.txt')",
    "FROM read_blob('{folder}/secret.txt')",
    "FROM read_parquet('{folder}/tiny/pairs/*.parquet')",
    "FROM glob('{folder}/*')",
    "FROM read_parquet('http://127.0.0.1:9/a.parquet')",
    "WITH a AS MATERIALIZED (FROM read_text('{folder}/secret.txt')) FROM a",
    "FROM query('FROM read_text(''{folder}/secret.txt'')')",
    "FROM json_execute_serialized_sql(json_serialize_sql('FROM read_text(''{folder}/secret.txt'')'))",
    "FROM enable_logging('QueryLog', storage = 'file', storage_path = '{folder}/out')",
    "FROM sql",
    "SELECT $1",
]
MORE = [
    "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
    "COPY rows FROM '{folder}/secret.txt'",
    "IMPORT DATABASE '{folder}'",
    "ATTACH '{folder}/out.db' AS a; CREATE TABLE a.t AS FROM rows",
    "LOAD httpfs",
    "PRAGMA enable_profiling",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "CREATE TABLE t AS FROM rows",
    "CREATE VIEW rows AS SELECT 1",
    "DELETE FROM manifests",
    "UPDATE manifests SET kept = 0",
    "CHECKPOINT",
    "PREPARE p AS SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1 /* ; */ ; SET threads = 1 --",
    "WITH a AS (COPY rows TO '{folder}/out.csv') SELECT 1",
    "FROM read_csv('/etc/passwd')",
    "FROM '{folder}/secret.txt'",
    "FROM read_text('{folder}/secret.txt')",
    "FROM read_text('{part}/../../../secret.txt')",
    "FROM read_json('{folder}/secret.txt')",
    "FROM sniff_csv('{folder}/secret.txt')",
    "FROM read_text('/proc/self/environ')",
    "SELECT (SELECT content FROM read_text('{folder}/secret.txt')) FROM rows",
    "FROM query('COPY rows TO ''{folder}/out.csv''')",
    "FROM query_table('{folder}/secret.txt')",
    "SELECT getenv('HOME')",
    "FROM python_scan(1)",
    "FROM job",
    "DETACH memory",
    "BEGIN TRANSACTION",
    "SET VARIABLE path = '{folder}/secret.txt'",
    "COMMENT ON VIEW rows IS 'mine'",
    "COPY FROM DATABASE memory TO memory",
    "LOAD '{folder}/out.duckdb_extension'",
    "CREATE MACRO m() AS TABLE FROM read_text('{folder}/secret.txt')",
    "MERGE INTO trials USING manifests m ON false WHEN NOT MATCHED THEN INSERT (key) VALUES (m.id)",
    "SUMMARIZE FROM read_csv('{folder}/secret.txt')",
    "FROM read_text(['{part}', '{folder}/secret.txt'])",
    "FROM read_text('{folder}/sec' || 'ret.txt')",
    "FROM read_csv('/dev/stdin')",
    "FROM parquet_metadata('{folder}/tiny/pairs/*.parquet')",
    "FROM read_duckdb('{folder}/tiny/catalog.duckdb')",
    "FROM '{folder}/tiny/catalog.duckdb'",
    "SELECT " + "(" * 200_000 + "1" + ")" * 200_000,
]


@pytest.fixture(scope="module")
def world(folder, store):
    """What a hostile statement must leave as it is."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and ".tmp" not in path.parts}


@pytest.mark.parametrize("sql", [*HOSTILE, *(pytest.param(sql, marks=pytest.mark.slow) for sql in MORE)])
def test_hostile_sql_does_nothing(folder, store, world, sql):
    part = next((store.root / "rows").glob("*.parquet"))
    told = refused(store, sql.replace("{folder}", str(folder)).replace("{part}", str(part)))
    assert SECRET not in told
    assert "root:" not in told
    now = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and ".tmp" not in path.parts}
    assert now == world


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT string_agg(repeat('x', 1000000), '') FROM range(1000000)",
        pytest.param("SELECT list(range(100000000)) FROM range(100)", marks=pytest.mark.slow),
        pytest.param("SELECT repeat('x', 4000000000) || repeat('y', 200000000)", marks=pytest.mark.slow),
        pytest.param(
            "SELECT count(DISTINCT (i, j)) FROM range(100000000) a(i), range(1000) b(j)", marks=pytest.mark.slow
        ),
        pytest.param(
            "WITH RECURSIVE a AS (SELECT 'x' AS s UNION ALL SELECT s || s FROM a) SELECT max(length(s)) FROM a",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_memory_bombs_end_in_one_line(store, sql):
    assert refused(store, sql, deadline=20)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b",
        pytest.param(
            "WITH RECURSIVE a AS (SELECT 1 AS i UNION ALL SELECT i FROM a) SELECT count(*) FROM a",
            marks=pytest.mark.slow,
        ),
        pytest.param("SELECT sleep_ms(60000)", marks=pytest.mark.slow),
    ],
)
def test_what_burns_time_ends_at_the_deadline(store, sql):
    started = time.monotonic()
    assert "stopped after 2 s" in refused(store, sql, deadline=2)
    assert time.monotonic() - started < 4


@pytest.mark.slow
def test_no_process_and_no_folder_stays(store, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    refused(store, "SELECT sleep_ms(60000)", deadline=2)
    ask(store, "SELECT count(*) FROM rows")
    assert list(tmp_path.iterdir()) == []
    running = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    assert "pipeline.query.answering" not in running


def test_a_query_that_sorts_more_than_its_memory_spills(store):
    (row,) = ask(store, "SELECT max(a) AS a FROM (FROM range(3000000) t(a) ORDER BY hash(a))", deadline=60)
    assert row == {"a": 2_999_999}


def refused(store, sql, **settings):
    with pytest.raises(QueryError) as raised:
        ask(store, sql, **settings)
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)
    assert str(Path.cwd()) not in str(raised.value)
    return str(raised.value)


def test_no_column_is_lost_by_its_name(store):
    assert ask(store, "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a") == [{"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}]


def test_history_spans_manifests(store):
    told = ask(
        store,
        "SELECT m.number, h.status, h.kept, h.dropped_by FROM history h "
        "JOIN (SELECT id, row_number() OVER (ORDER BY time, rows) AS number FROM manifests) m ON m.id = h.manifest "
        "WHERE uid = (SELECT uid FROM rows WHERE url LIKE '%/49.jpg') ORDER BY number",
    )
    assert told == [{"number": n, "status": "ok", "kept": False, "dropped_by": ["sharp"]} for n in (1, 2)]
    counted = ask(store, "SELECT source, count(*) AS n, count(DISTINCT manifest) AS m FROM HISTORY GROUP BY ALL")
    assert counted == [{"source": "tiny", "n": 35, "m": 2}]


OPENED = {
    "FROM history": {"history"},
    "SELECT count(*) FROM HISTORY h": {"history"},
    'FROM main."history" SEMI JOIN trained_on USING (uid)': {"history", "trained_on"},
    "SELECT 1 FROM rows WHERE uid IN (SELECT uid FROM trained_on)": {"rows", "trained_on"},
    "SELECT 'history' AS history, r.caption AS trained_on FROM rows r -- history": {"rows"},
    "SELECT {'table_name': 'history'}": set(),
    "SELECT " + "1 + " * 900 + "1 FROM history": {"history"},
}


@pytest.mark.parametrize(("sql", "tables"), OPENED.items())
def test_tables_of_a_select(sql, tables):
    assert statement.check(sql) == tables


@pytest.mark.slow
def test_history_that_is_no_table_is_text(store):
    assert ask(store, "SELECT count(*) AS history FROM rows WHERE caption <> 'history'") == [{"history": 25}]
    assert ask(store, "WITH history AS (SELECT 1 AS one) FROM history") == [{"one": 1}]


@pytest.mark.parametrize("name", named.QUERIES)
def test_a_named_query_runs_where_its_columns_are(folder, name):
    store = Storage(folder / "named" / "named")
    if not store.keys("log"):
        described = published_sources.listed(folder / "named", range(40, 65), name="named")
        published_sources.published(described, store, failed={64})
    known = "SELECT *, 0.3 AS clip_similarity, 1 AS duplicates_count FROM rows"
    answer = sandbox.run(
        f"WITH rows AS ({known}), kept AS (FROM rows WHERE kept), "
        "dropped AS (FROM rows WHERE status = 'ok' AND NOT kept) "
        f"{named.resolve('@' + name)}",
        [store],
    )
    assert len(answer) == {"funnel": 1, "worst-domains": 1, "score-by-language": 1, "link-rot": 1, "duplicates": 1}.get(
        name, 24 if name == "near-threshold" else 0
    )


@pytest.mark.slow
def test_figures_of_named_queries(store):
    assert ask(store, named.resolve("@funnel")) == [
        {"filter": "sharp", "drops": 11, "alone_drops": 10, "unscored": 1},
        {"filter": "worded", "drops": 1, "alone_drops": 0, "unscored": 1},
    ]
    assert ask(store, named.resolve("@link-rot")) == [{"cause": "http_404", "pairs": 1, "of_all": 0.04}]
    assert ask(store, named.resolve("@worst-domains")) == [
        {"domain": "host", "pairs": 25, "failed": 6, "dropped": 11, "lost": 0.68}
    ]
    assert named.resolve("SELECT 1") == "SELECT 1"
    with pytest.raises(QueryError, match="no query is called 'funel'; did you mean 'funnel'"):
        named.resolve("@funel")


WRITES = [
    "WITH x AS (COPY (SELECT true AS kept) TO '{verdicts}' (FORMAT parquet, USE_TMP_FILE false)) SELECT * FROM x",
    "WITH x AS (COPY (SELECT 1) TO '{folder}/out.csv') SELECT 1 FROM rows, (FROM x)",
    "SELECT (WITH x AS (COPY rows TO '{folder}/out.csv') SELECT count(*) FROM x)",
    "WITH x AS (INSERT INTO trials (key) VALUES ('a') RETURNING *) FROM x",
    "WITH x AS (UPDATE manifests SET kept = 0 RETURNING *) FROM x",
    "WITH x AS (DELETE FROM manifests RETURNING *) FROM x",
    "SELECT current_setting('allowed_paths')",
    "SELECT system.main.current_setting('allowed_paths')",
    "FROM duckdb_settings()",
    "FROM duckdb_settings",
    "WITH duckdb_settings AS (FROM duckdb_settings) FROM duckdb_settings",
    "SELECT (WITH duckdb_settings AS (SELECT 1) SELECT 1) FROM duckdb_settings",
    "FROM duckdb_views()",
    "FROM pragma_database_size()",
    "FROM information_schema.tables",
    "FROM pg_catalog.pg_settings",
    "FROM sqlite_master",
    "FROM duckdb_temporary_files()",
    "SELECT list_transform(['allowed_paths'], lambda name: current_setting(name))",
    "FROM histogram('duckdb_settings', 'name')",
    "SHOW ALL TABLES",
]


@pytest.mark.parametrize("sql", WRITES)
def test_a_select_that_writes_or_asks_for_settings_is_refused_by_its_tree(folder, store, sql):
    verdicts = next((store.root / "verdicts").glob("*.parquet"))
    with pytest.raises(QueryError) as raised:
        statement.check(sql.replace("{folder}", str(folder)).replace("{verdicts}", str(verdicts)))
    assert "\n" not in str(raised.value)


ATTACK = """
import sys
from pathlib import Path
import duckdb
from pipeline.process import confinement
own, published, new = map(Path, sys.argv[1:])
if not confinement.forbid_writing([own]):
    sys.exit(77)
(own / "own").write_text("can be written")
changes = (
    lambda: duckdb.sql(f"COPY (SELECT 1) TO '{published}' (FORMAT parquet, USE_TMP_FILE false)"),
    lambda: duckdb.sql(f"COPY (SELECT 1) TO '{new}'"),
    lambda: published.unlink(),
    lambda: published.rename(own / "moved"),
    lambda: published.write_bytes(b""),
    lambda: open(published, "ab").close(),
)
for change in changes:
    try:
        change()
        print("changed")
    except (OSError, duckdb.Error) as error:
        print("refused", error)
"""


def test_a_process_that_forbids_itself_to_write_cannot_change_a_published_file(folder, store, tmp_path):
    """What holds if the check of the statement has a hole: the same COPY, straight into DuckDB."""
    verdicts, new = next((store.root / "verdicts").glob("*.parquet")), folder / "new.csv"
    before = verdicts.read_bytes()
    command = [sys.executable, "-c", ATTACK, str(tmp_path), str(verdicts), str(new)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this kernel has no Landlock")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["refused"] * 6
    assert verdicts.read_bytes() == before
    assert not new.exists()
    assert (tmp_path / "own").read_text() == "can be written"


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT width / 0 FROM rows LIMIT 1", {"(width / 0)": None}),
        ("SELECT sqrt(-width) AS root, 0.0 / 0.0 AS none, 3 / 2 AS some FROM rows LIMIT 1",
         {"root": None, "none": None, "some": 1.5}),
        ('SELECT "(width / 0)" AS a FROM (SELECT width / 0 FROM rows) LIMIT 1', {"a": None}),
        ("SELECT count(*) AS n FROM rows WHERE width / 0 > 1 OR NOT ((width - width) / 0 > 1)", {"n": 0}),
        ("SELECT avg(width / 0), count(*) FROM rows", {"avg((width / 0))": None, "count_star()": 25}),
    ],
)  # fmt: skip
def test_a_query_has_no_nan_and_its_columns_keep_their_names(store, sql, answer):
    assert ask(store, sql) == [answer]


ORDINARY = ["crawl [2024]", "größe 日本", "-dash", "back\\slash"]


@pytest.mark.parametrize(
    "name", ['it\'s "mine" 100% * a?b[', *(pytest.param(name, marks=pytest.mark.slow) for name in ORDINARY)]
)
def test_any_folder_name_is_a_root(tmp_path, name):
    described = published_sources.listed(tmp_path / "lists", range(40, 44))
    storage = Storage(tmp_path / name / described.name)
    published_sources.published(described, storage)
    for view in ("rows", "history"):
        assert sandbox.run(f"SELECT count(*) AS n FROM {view}", [storage])["n"].to_pylist() == [4]
