"""The command line: what is said where, and with which exit status. Tiny sources; nothing here starts Prefect."""

import csv
import io
import json
import re

import published_sources
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from flows import cli
from flows.console import answers
from pipeline.query import named
from pipeline.store.storage import Storage

COMMANDS = (
    "demo",
    "curate",
    "retry",
    "forget",
    "score",
    "calibrate",
    "caught",
    "labels",
    "annotate",
    "train",
    "encoders",
    "fit",
    "sweep",
    "export",
    "search",
    "sql",
    "funnel",
    "audit",
    "publish",
    "diff",
    "report",
    "explore",
    "serve",
    "deploy",
    "bench",
    "doctor",
    "status",
    "zero-shot",
    "composition",
    "gc",
    "plan",
)


def run(*words):
    """Exit status, stdout, stderr."""
    done = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="winnow")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_a_page_of_answers_needs_questions(tmp_path):
    status, _, says = run("train", "demo", "--root", tmp_path / "none", "--page", tmp_path / "page.html")
    assert (status, says) == (1, "winnow: demo: --page shows answers to questions; the task is classes\n")
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def root(tmp_path):
    """A root with the published source `tiny`; its file is root/tiny.toml."""
    described = published_sources.listed(
        tmp_path / "lists", range(40, 70), filters=(published_sources.SHARP, published_sources.WORDED)
    )
    published_sources.published(described, Storage(tmp_path / "root" / "tiny"), failed=(41,), unscored=(42,))
    return tmp_path / "root"


@pytest.fixture
def toml(root):
    return root.parent / "lists" / "tiny.toml"


def fails(*words):
    """The one line on stderr."""
    status, out, err = run(*words)
    assert (status, out) == (1, "")
    assert err.startswith("winnow: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_teaches_by_example(command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert re.search(rf"Example:.*winnow {command}", out)


def test_the_commands_are_these():
    assert set(typer.main.get_command(cli.app).commands) == set(COMMANDS)


@pytest.mark.parametrize("words", [["curat"], ["curate"], ["funnel", "a", "b"], ["sql", "select 1", "--format", "xml"]])
def test_wrong_usage_is_2(words):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert "Usage: winnow" in err


@pytest.mark.parametrize(
    "command", ["curate", "calibrate", "caught", "train", "encoders", "funnel", "audit", "publish", "diff", "report"]
)
def test_a_missing_source_file_is_one_line(command, tmp_path):
    assert "there is no source file" in fails(command, tmp_path / "gone.toml")
    assert "no source is called 'cc3'; did you mean 'cc3m'?" in fails(command, "cc3")


def test_a_bad_source_file_is_one_line_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("[pairs\n")
    assert "a.toml: this is no TOML" in fails("curate", "a.toml")
    (tmp_path / "b.toml").write_text('[pairs]\nlocatoin = "x"\n')
    assert "b.toml: unknown key pairs.locatoin; did you mean 'location'?" in fails("curate", "b.toml")
    (tmp_path / "c.toml").write_text(
        '[pairs]\nlocation = "http://h/l.tsv"\n[[filters]]\nname = "a"\nsql = "widht > 3"\n'
    )
    assert "did you mean 'width'?" in fails("curate", "c.toml")
    assert not (tmp_path / "data").exists()


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="there is no source file"):
        run("curate", tmp_path / "gone.toml", "--debug")


def test_the_funnel_of_the_sources_own_recipe(root, toml):
    status, out, err = run("funnel", toml, "--root", root)
    assert (status, err) == (0, "")
    assert "recipe tiny: 29 downloaded pairs" in out
    assert re.search(r"sharp +20 +20 +8 +1 +8\b", out)
    assert re.search(r"worded +28 +20 +0 +1 +0\b", out)


def test_the_funnel_of_an_edited_recipe_needs_no_run(root, toml):
    toml.write_text(toml.read_text().replace(">= 50", ">= 60"))
    status, out, _ = run("funnel", toml, "--root", root, "--json")
    told = json.loads(out.splitlines()[-1])
    assert status == 0
    (step, _) = told["funnels"][0]["steps"]
    assert (step["sql"], step["alone"]) == ("pixels_sharpness >= 60", 10)


def test_recipes_side_by_side_fit_a_terminal(root, toml, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    several = ("--recipe", "everything", "--recipe", "datacomp-basic-like")
    status, out, _ = run("funnel", toml, "--root", root, *several)
    assert status == 0
    assert re.search(r"everything +0 +29 +100\.0%", out)
    assert re.search(r"datacomp-basic-like +4 +28 +96\.6%", out)
    assert re.search(r"everything, datacomp-basic-like +28 +0\.97", out)
    assert max(map(len, out.splitlines())) <= 100
    told = json.loads(run("funnel", toml, "--root", root, *several, "--json")[1])
    assert told["shared"] == [{"one": "everything", "other": "datacomp-basic-like", "both": 28, "jaccard": 0.9655}]
    assert [len(each["overlaps"]) for each in told["funnels"]] == [0, 6]


def test_funnel_of_a_recipe_that_needs_what_was_not_scored(root, toml):
    assert "there is no column 'clip_similarity'" in fails("funnel", toml, "--root", root, "--recipe", "clip-top30")
    assert "did you mean 'clip-top30'" in fails("funnel", toml, "--root", root, "--recipe", "clip-top3")


@pytest.fixture
def no_server(monkeypatch):
    """No Prefect server runs."""
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")


def test_publish_a_named_recipe_and_then_the_sources_own(root, toml, no_server):
    status, out, _ = run("publish", toml, "--recipe", "everything", "--root", root)
    assert status == 0
    assert re.search(r"kept +29\b", out)
    assert "the next `winnow curate` publishes recipe tiny again" in " ".join(out.split())
    assert "no Prefect server answers" in out
    told = json.loads(run("publish", toml, "--root", root, "--json")[1])
    assert (told["new"], told["recipe"], told["counts"]["kept"], told["announced"]) == (True, "tiny", 20, False)
    assert json.loads(run("publish", toml, "--root", root, "--json")[1]) == {**told, "new": False}
    assert "there is no column 'clip_similarity'" in fails("publish", toml, "--root", root, "--recipe", "clip-top30")


def test_diff_of_the_newest_and_its_parent(root, toml, no_server, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert "there is no manifest -2" in fails("diff", toml, "--root", root)
    run("publish", toml, "--recipe", "everything", "--root", root)
    status, out, err = run("diff", toml, "--root", root, "--rows", 1)
    assert (status, err) == (0, "")
    assert "what differs in their making: the recipe: tiny, then everything" in out
    assert re.search(r"dropped → kept +9\b", out)
    assert re.search(r"sharp +0 +9 +20 +–", out)
    assert re.search(r"pixels_sharpness +0\.000 +0\.000 +\d\.\d+", out)
    assert re.search(r"dropped → kept \(sharp.*\): picture number \d+ +http://host/", out)
    assert max(map(len, out.splitlines())) <= 100
    told = json.loads(run("diff", toml, "-1", "-2", "--root", root, "--json")[1])
    assert told["moves"] == [{"before": "kept", "after": "dropped", "rows": 9}]


def test_audit_of_several_recipes(root, toml, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    status, out, _ = run("audit", toml, "--root", root)
    assert status == 0
    assert "recipe tiny removes 9 of 29 downloaded pairs: 31.0%" in out
    assert re.search(r"10 to 19 +29 +9 +31\.0%", out)
    assert "no domain is removed more often than the whole" in out
    assert max(map(len, out.splitlines())) <= 100
    several = ("--recipe", "everything", "--recipe", "datacomp-basic-like", "--json")
    told = json.loads(run("audit", toml, "--root", root, *several)[1])["audits"]
    assert [(each["recipe"], each["removed"]["hits"]) for each in told] == [
        ("everything", 0),
        ("datacomp-basic-like", 1),
    ]


def test_nothing_is_published_yet(tmp_path, toml):
    assert "nothing is published" in fails("funnel", toml, "--root", tmp_path / "empty")
    assert "nothing is published" in fails("sql", "select 1", "--root", tmp_path / "empty")


def test_sql_as_a_table(root):
    status, out, err = run("sql", "select status, count(*) as n from rows group by status order by n", "--root", root)
    assert (status, err) == (0, "")
    assert re.search(r"failed +1\b", out)
    assert re.search(r"ok +29\b", out)


def test_sql_as_csv_and_json(root):
    query = "select caption, dropped_by, 0.0 / 0.0 as x, NULL as y from rows order by caption limit 2"
    rows = list(csv.DictReader(io.StringIO(run("sql", query, "--root", root, "--format", "csv")[1])))
    assert rows[0]["caption"] == "picture number 40"
    assert json.loads(rows[0]["dropped_by"]) == ["sharp"]
    told = json.loads(run("sql", query, "--root", root, "--json")[1])
    assert told["columns"] == ["caption", "dropped_by", "x", "y"]
    assert told["rows"][0] == {"caption": "picture number 40", "dropped_by": ["sharp"], "x": None, "y": None}
    assert json.loads(run("sql", query, "--root", root, "--format", "json")[1]) == told


@pytest.mark.slow
def test_sql_into_a_file(root, tmp_path):
    query = "select uid, caption, dropped_by, pixels_sharpness from rows order by uid"
    for form in ("parquet", "csv", "json"):
        path = tmp_path / f"answer.{form}"
        status, out, err = run("sql", query, "--root", root, "--format", form, "--out", path)
        assert (status, out) == (0, "")
        assert "30 rows" in err
    table = pq.read_table(tmp_path / "answer.parquet")
    assert table.column_names == ["uid", "caption", "dropped_by", "pixels_sharpness"]
    assert json.loads((tmp_path / "answer.json").read_text())["rows"] == table.to_pylist()
    assert len((tmp_path / "answer.csv").read_text().splitlines()) == 31
    assert {path.name for path in tmp_path.iterdir() if "answer" in path.name} == {
        "answer.parquet", "answer.csv", "answer.json",
    }  # fmt: skip


def test_sql_that_cannot_be_written_leaves_what_was_there(root, tmp_path):
    there = tmp_path / "answer.parquet"
    there.write_text("mine")
    into = ("--root", root, "--format", "parquet", "--out")
    assert "only one SELECT" in fails("sql", f"copy rows to '{there}'", *into, there)
    assert there.read_text() == "mine"
    assert "cannot write" in fails("sql", "select 1", *into, tmp_path / "gone" / "answer.parquet")
    for words in (["--format", "parquet"], ["--out", "a.parquet"], []):
        assert run("sql", *(["select 1"] if words else []), "--root", root, *words)[0] == 2


def test_sql_from_standard_input_and_by_name(root):
    done = CliRunner().invoke(cli.app, ["sql", "-", "--root", str(root), "--json"], input="select 7 as n")
    assert json.loads(done.stdout)["rows"] == [{"n": 7}]
    told = json.loads(run("sql", "@link-rot", "--root", root, "--json")[1])["rows"]
    assert told == [{"cause": "http_404", "pairs": 1, "of_all": 0.0333}]
    assert "did you mean 'link-rot'" in fails("sql", "@linkrot", "--root", root)
    status, out, _ = run("sql", "--list")
    assert status == 0
    assert set(re.findall(r"^@([a-z-]+): .+$", out, re.MULTILINE)) == set(named.QUERIES)


def test_bad_sql_is_one_line(root):
    assert "captoin" in fails("sql", "select captoin from rows", "--root", root)
    assert "only one SELECT" in fails("sql", "drop view rows", "--root", root)
    assert "'other'" in fails("sql", "select 1", "--root", root, "--source", "other")


@pytest.mark.slow
def test_sql_asks_which_source(root, tmp_path):
    other = published_sources.listed(tmp_path / "lists", range(10), name="other")
    published_sources.published(other, Storage(root / "other"))
    assert "several sources; choose with --source: other, tiny" in fails("sql", "select 1", "--root", root)
    query = "select source, count(*) as n from rows group by source order by n"
    assert [
        row["n"] for row in json.loads(run("sql", query, "--root", root, "--source", "tiny", "--json")[1])["rows"]
    ] == [30]
    both = run("sql", query, "--root", root, "--source", "tiny", "--source", "other", "--json")[1]
    assert json.loads(both)["rows"] == [{"source": "other", "n": 10}, {"source": "tiny", "n": 30}]


def test_strangers_cannot_steer_the_terminal(root):
    out = run("sql", "select chr(27) || '[2J' || chr(155) || 'x' || chr(10) || '[red]y' as a", "--root", root)[1]
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "\ufffd[2J\ufffdx\ufffd[red]y" in out
    assert "\x1b" not in fails("sql", "select '\x1b[2J' + \x1b[2J", "--root", root)


def test_a_long_answer_is_cut_and_says_so(root):
    out = run("sql", "select unnest(range(1000)) as n", "--root", root)[1]
    assert f"the first {answers.SHOWN} of 1,000 rows" in " ".join(out.split())


def test_export_of_what_was_published_and_of_a_recipe(root, toml, tmp_path):
    into = ("export", toml, "--root", root, "--to", tmp_path / "out", "--format", "csv")
    status, out, _ = run(*into)
    assert (status, out) == (0, f"20 pairs in {tmp_path / 'out'}\n")
    assert "as before: nothing was written" in run(*into)[1]
    assert "already exists and is not overwritten" in fails(*into, "--recipe", "everything")
    told = json.loads(run(*into[:-3], tmp_path / "all", "--format", "datasets", "--recipe", "everything", "--json")[1])
    assert (told["pairs"], told["new"]) == (29, True)
    assert run(*into[:-2])[0] == 2


def test_report(root, toml):
    status, out, _ = run("report", toml, "--root", root)
    assert status == 0
    page = root / "tiny" / "report.html"
    assert out.strip() == str(page)
    assert "<html" in page.read_text()


def test_a_manifest_is_chosen_by_the_beginning_of_its_id(root, toml):
    whole = json.loads(run("funnel", toml, "--root", root, "--json")[1].splitlines()[-1])["manifest"]
    assert run("funnel", toml, "--root", root, "--manifest", whole[:6])[0] == 0
    assert "0 manifests begin with 'zzz'" in fails("funnel", toml, "--root", root, "--manifest", "zzz")


@pytest.fixture
def labelled(toml):
    """Labels of all pairs of `tiny`, of which "sharp" drops the blurred ones and one more; the file's own catches."""
    labels = {number: "blurred" if number < 49 else "clean" for number in range(40, 70)}
    rows = [f"http://host/{number}.jpg,picture number {number},{label}" for number, label in labels.items()]
    path = toml.parent / "labels.csv"
    path.write_text("\n".join(["url,caption,label", *rows]) + "\n")
    toml.write_text(toml.read_text().replace('name = "sharp"', 'name = "sharp"\ncatches = ["blurred"]'))
    return path


def test_calibrate_prints_figures_and_toml(root, toml, labelled, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    before = toml.read_bytes()
    status, out, err = run("calibrate", toml, "--labels", labelled, "--root", root)
    assert (status, err) == (0, "")
    assert re.search(r"sharp +now +pixels_sharpness >= 50 +0.\d+ \[", out)
    assert 'sql = "pixels_sharpness >= 48.5"\n' in out
    assert "fewer than 20 good or bad pairs" in out
    assert "Nothing was changed" in out
    assert toml.read_bytes() == before
    told = json.loads(run("calibrate", toml, "--labels", labelled, "--root", root, "--json")[1].splitlines()[-1])
    assert told["filters"][0]["best"]["sql"] == "pixels_sharpness >= 48.5"


def test_calibrate_and_caught_without_labels(root, toml, labelled):
    assert "name them with --labels" in fails("calibrate", toml, "--root", root)
    assert "name them with --labels" in fails("caught", toml, "--root", root)
    assert "there is no labelled sample gone.csv" in fails("caught", toml, "--root", root, "--labels", "gone.csv")


def test_caught_prints_a_row_a_filter(root, toml, labelled):
    toml.write_text(toml.read_text() + '[calibration]\nlabels = "labels.csv"\n')
    status, out, err = run("caught", toml, "--root", root)
    assert (status, err) == (0, "")
    assert re.search(r"filter +clean +blurred", out)
    assert re.search(r"sharp +1 +8 +88.9%", out)
    assert re.search(r"worded +· +1 +100.0%", out)
    assert re.search(r"any +1 +8\s+of +21 +8\s+recall +4.8% +100.0%", out)
    assert re.search(r"blurred 1: http_404 1", out)
    assert json.loads(run("caught", toml, "--root", root, "--json")[1].splitlines()[-1])["kinds"][1]["dropped"] == 8


def test_forget_says_what_went_and_a_second_time_nothing_does(root, toml, tmp_path):
    (tmp_path / "gone.txt").write_text("http://host/45.jpg\n")
    words = ["forget", toml, "--file", tmp_path / "gone.txt", "--root", root]
    status, out, _ = run(*words, "--dry-run")
    assert (status, re.findall(r"pairs that are meant +(\d+)", out)) == (0, ["1"])
    status, out, _ = run(*words, "--json")
    assert status == 0
    done = json.loads(out)["sources"]["tiny"]
    assert (done["pairs"], done["pictures"], done["fault"]) == (1, 1, None)
    assert run(*words)[1].count(" 0\n") == 7  # all but the names in the list
    assert fails("diff", toml, "--root", root).count("no longer complete")
    status, _, err = run("forget", "--file", tmp_path / "gone.txt", "--root", root)
    assert (status, "name a SOURCE, or give --all" in err) == (2, True)
    assert run("forget", toml, "--root", root)[0] == 2
    assert "no pair failed with the cause 'timeot'" in fails("retry", toml, "--cause", "timeot", "--root", root)
    assert run("forget", "--all", "--file", tmp_path / "gone.txt", "--root", root)[0] == 0
    (tmp_path / "gone.txt").write_text("http://host/46.jpg\n")
    status, out, err = run("forget", "--all", "--file", tmp_path / "gone.txt", "--root", root)
    assert (status, "no source file is called 'tiny'" in err) == (1, True)


PATIENT = ("--deadline", "600")
"""For a busy machine, where a query's process takes long to start."""


def test_json_has_numbers_iso_dates_and_base64(root):
    query = """select sum(width) as total, sum(width::decimal(10, 2)) / 8 as share, 0.1::decimal(38, 1) as tenth,
        170141183460469231731687303715884105727::hugeint as huge, 12345678901234567890.5::decimal(38, 1) as long,
        340282366920938463463374607431768211455::uhugeint as unsigned, '101'::bit as bits, 'ab\\x00'::blob as blob,
        date '2024-02-29' as day, '10000-01-01'::date as far, 'infinity'::timestamp as never,
        timestamp '2024-02-29 10:00:00.5' as time, timestamptz '2024-02-29 10:00:00+02' as zoned,
        time '24:00:00' as midnight, '10:00:00+02'::timetz as clock, interval '14 months -3 days 1.5 seconds' as span,
        [date '2024-02-29', null] as days, {'a': 1.5, 'b': [1]} as struct, map {1: 'x'} as map,
        union_value(n := 5) as either, uuid '00000000-0000-0000-0000-000000000001' as id, 2147483647::timestamp_s as y
        from rows where status = 'ok'""".replace("2147483647::timestamp_s", "'2038-01-19 03:14:07'::timestamp_s")
    (row,) = json.loads(run("sql", query, "--root", root, "--json", *PATIENT)[1])["rows"]
    assert isinstance(row.pop("total"), int)
    assert isinstance(row.pop("share"), float)
    assert row == {
        "tenth": 0.1,
        "huge": "170141183460469231731687303715884105727",
        "long": "12345678901234567890.5",
        "unsigned": "340282366920938463463374607431768211455",
        "bits": "101",
        "blob": "YWIA",
        "day": "2024-02-29",
        "far": "10000-01-01",
        "never": "infinity",
        "time": "2024-02-29T10:00:00.5",
        "zoned": "2024-02-29T08:00:00Z",
        "midnight": "24:00:00",
        "clock": "10:00:00+02",
        "span": "P14M-3DT1.5S",
        "days": ["2024-02-29", None],
        "struct": {"a": 1.5, "b": [1]},
        "map": {"1": "x"},
        "either": 5,
        "id": "00000000-0000-0000-0000-000000000001",
        "y": "2038-01-19T03:14:07",
    }


def test_csv_of_dates_in_lists_and_of_bytes(root):
    query = (
        "select [date '2024-02-29'] as days, 'ab'::blob as blob, 1.50::decimal(4, 2) as price, 0::decimal(9, 8) as no"
    )
    out = run("sql", query, "--root", root, "--format", "csv", *PATIENT)[1]
    assert list(csv.reader(io.StringIO(out)))[1] == ['["2024-02-29"]', "YWI=", "1.50", "0.00000000"]


@pytest.mark.parametrize("columns", [60, 80, 120, None])
def test_a_wide_answer_cuts_no_number_on_any_terminal(root, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    query = "select *, 123456789012345678 as long, 1234567.25 as price, sum(1) over () as total from kept limit 2"
    out = run("sql", query, "--root", root, *PATIENT)[1]
    for text in ("uid", "pixels_sharpness", "123456789012345678", "1234567.25"):
        assert text in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= columns if columns else len(lines) == 4
    assert ("── row 2 ──" in lines) == (columns is not None)


def test_every_name_of_a_recipe_that_is_printed_can_be_typed(root, toml, no_server, tmp_path):
    own = json.loads(run("funnel", toml, "--root", root, "--json")[1])
    assert json.loads(run("funnel", toml, "--root", root, "--recipe", "tiny", "--json")[1]) == own
    assert run("audit", toml, "--root", root, "--recipe", "tiny")[0] == 0
    assert run("publish", toml, "--root", root, "--recipe", "tiny")[0] == 0
    text = re.sub(r"\[\[filters\]\][^\[]*", "", toml.read_text())
    toml.write_text('recipe = "everything"\n' + text)
    kept = json.loads(run("publish", toml, "--root", root, "--recipe", "tiny", "--json")[1])["counts"]["kept"]
    assert kept == 20  # the recipe of the source file before, which is in a manifest
    words = ["--to", tmp_path / "out", "--format", "csv", "--recipe", "tiny"]
    assert "20 pairs" in run("export", toml, "--root", root, *words)[1]
    assert "did you mean 'tiny'" in fails("funnel", toml, "--root", root, "--recipe", "tinny")
