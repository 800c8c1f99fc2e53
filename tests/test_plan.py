"""`winnow plan`: the tables of docs/plan.md are those of today, and a store and a benchmark replace the defaults."""

import json
import re
import shlex
from pathlib import Path

import published_sources
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from filters.selections import SELECTIONS
from flows import cli
from pipeline.bench.estimate import Fleet, Work, estimate, fleet_within
from pipeline.bench.partly_run import known
from pipeline.bench.rates import Prices, Rates
from pipeline.errors import SourceError
from pipeline.scorers.clip import ClipSpec
from pipeline.scorers.duplicates import DuplicatesSpec
from pipeline.scorers.pixels import PixelsSpec
from pipeline.sources import loading
from pipeline.store.storage import Storage

DOC = (Path(__file__).parent.parent / "docs" / "plan.md").read_text()
TABLES = re.findall(r"```sh\n(winnow plan [^\n]+)\n```\n\n```text\n(.*?)```", DOC, re.DOTALL)


def run(*words):
    done = CliRunner().invoke(cli.app, [str(word) for word in words], prog_name="winnow")
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def work():
    return Work(10_000_000, 1000, loading.load("cc12m").scorers)


@pytest.mark.parametrize(("command", "table"), TABLES)
def test_the_tables_of_the_page_are_those_of_today(command, table, tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    status, out, _ = run(*shlex.split(command)[1:], "--root", tmp_path)
    assert status == 0
    assert out == table


def test_the_page_has_four_tables_and_the_figures_of_the_rates():
    assert len(TABLES) == 4
    rates = Rates.default()
    figures = [
        rates.pool.success,
        rates.pool.fetched_bytes,
        rates.download.core_seconds,
        rates.download.wait_seconds,
        rates.scorers["clip"].core_seconds,
        rates.scorers["clip"].gpu_pairs_per_second,
        rates.scorers["neg_clip_loss"].seconds_per_million,
        rates.rows.published,
    ]
    for figure in figures:
        assert f"{figure:,g}" in DOC or f"{figure:,.0f}" in DOC, figure


def test_the_hours_follow_the_formula(work):
    rates, prices = Rates.default(), Prices.read(None)
    found = {each.name: each for each in estimate(work, rates, prices, Fleet(machines=2)).steps}
    assert found["download"].hours == pytest.approx(10e6 * 1.0 / (32 * 16) / 2 / 3600)
    assert found["download"].bytes == pytest.approx(6.4e6 * (30_000 + 781) + 10e6 * 116)
    assert found["clip"].hours == pytest.approx(6.4e6 * 0.061 / 32 / 3600)
    assert found["clip"].money == pytest.approx(found["clip"].hours * 2 * 0.68)
    assert found["list"].hours == pytest.approx(86 / 3600)
    stored = sum(found[name].bytes for name in ("list", "download", "clip", "pixels", "captions", "publish"))
    assert found["storage"].money == pytest.approx(stored / 1e9 * 0.023)
    assert found["requests"].limit == "70,200 objects are written"
    assert found["egress"].money == pytest.approx(6.4e6 * 0.3 * 30_781 / 1e9 * 0.09)


def test_the_slowest_of_three_decides_a_download(work):
    prices = Prices.read(None)
    for core, wait, fetched, limit in (
        (1.0, 0.0, 1.0, "the processor"),
        (0.0, 9.0, 1.0, "waiting for servers"),
        (0.0, 0.0, 9e6, "the network"),
    ):
        rates = Rates.default().with_download(core).with_pool(fetched_bytes=fetched)
        rates = rates.model_copy(update={"download": rates.download.model_copy(update={"wait_seconds": wait})})
        download = estimate(work, rates, prices, Fleet()).steps[1]
        assert download.limit == limit


def test_as_few_machines_as_end_in_time(work):
    rates, prices = Rates.default(), Prices.read(None)
    for hours in (1.0, 3.0, 1000.0):
        fleet = fleet_within(work, rates, prices, Fleet(), hours)
        assert estimate(work, rates, prices, fleet).hours <= hours
        if fleet.machines > 1:
            fewer = Fleet(fleet.machines - 1)
            assert estimate(work, rates, prices, fewer).hours > hours
    with pytest.raises(SourceError, match="no number of machines ends within 0.01 hours"):
        fleet_within(work, rates, prices, Fleet(), 0.01)


def test_what_has_no_rate_is_named_and_not_counted():
    scorers = {
        "large": ClipSpec(kind="clip", model="ViT-L-14", weights="openai"),
        "same": ClipSpec(kind="clip", model="ViT-B-32-quickgelu", weights="openai"),
        "twins": DuplicatesSpec(kind="duplicates", of="pixels", radius=2),
        "pixels": PixelsSpec(kind="pixels"),
    }
    found = estimate(Work(1_000_000, 1000, scorers), Rates.default(), Prices.read(None), Fleet(machines=5))
    assert found.unknown == ["large"]
    twins = next(each for each in found.steps if each.name == "twins")
    assert (twins.machines, twins.limit) == (1, "one machine")
    assert twins.hours == pytest.approx(0.64 * 7.8 / 3600)


def test_a_mix_and_a_selection_are_in_the_sums(tmp_path):
    described = published_sources.listed(tmp_path, range(30), filters=(), more=published_sources.recorded(tmp_path))
    pq.write_table(pa.table({"uid": [f"{number:032x}" for number in range(30)]}), tmp_path / "good.parquet")
    more = (
        '[scorers.mixed]\nkind = "mixed"\nof = "recorded"\nmixes = ["pixels.sharpness", "captions.length"]\n'
        'reference.location = "good.parquet"\n[selection]\nkind = "density"\nof = "recorded"\nbudget = 0.5\n'
    )
    described.path.write_text(described.path.read_text() + more)
    status, out, _ = run("plan", described.path, "--root", tmp_path, "--rows", 1_000_000, "--success", 1, "--json")
    steps = {each["name"]: each for each in json.loads(out)["steps"]}
    assert status == 0
    assert steps["mixed"]["hours"] == pytest.approx((73 + 12) / 3600)
    assert steps["selection"]["hours"] == pytest.approx(64 / 3600)
    assert Rates.default().selections.keys() == SELECTIONS.keys()


def test_a_store_that_was_filled_in_part_says_what_its_pool_is_like(tmp_path):
    described = published_sources.listed(tmp_path, range(40, 70), filters=(published_sources.SHARP,))
    store = Storage(tmp_path / "data" / "tiny")
    assert known(described, store, Rates.default()) is None
    assert "say how many --rows it has" in run("plan", described.path, "--root", tmp_path / "data")[2]
    published_sources.finish(described, store, failed=(41, 42), without=(2,))
    found = known(described, store, Rates.default())
    assert (found.rows, found.shards, found.downloaded) == (30, 3, 2)
    assert found.rates.pool.success == 0.9
    assert found.rates.pool.fetched_bytes == 1000
    tars = sum(store.size(key) for key in store.find("shards-*/*.tar"))
    assert found.rates.pool.picture_bytes + found.rates.rows.tar == pytest.approx(tars / 18)
    published_sources.published(described, store, failed=(41, 42))
    found = known(described, store, Rates.default())
    assert found.rates.pool.kept == 20 / 28
    published = sum(map(store.size, [*store.find("rows/*.parquet"), *store.find("verdicts/*")]))
    assert found.rates.rows.published == published / 30
    assert found.scorer_bytes["pixels"] == sum(map(store.size, store.find("scores/pixels-*/*.parquet"))) / 30
    status, out, _ = run(
        "plan", described.path, "--root", tmp_path / "data", "--rows", 1000, "--success", 0.5, "--json"
    )
    told = json.loads(out)
    assert (status, told["pool"]["rows"], told["pool"]["pairs"]) == (0, 1000, 500)
    assert told["pool"]["kept"] == 20 / 28


def test_what_a_benchmark_measured_replaces_the_rates(tmp_path):
    scoring, download = tmp_path / "scoring.json", tmp_path / "download.json"
    plain = {"cores": 4, "device": "no GPU, x86_64", "plan": {"model": "ViT-L-14"}}
    scoring.write_text("a line before\n" + json.dumps(plain | {"pairs_per_second": 8.0}) + "\n")
    download.write_text(json.dumps({"cores": 4, "pictures_per_second": 400.0}))
    rates = Rates.default().measured([scoring, download])
    assert (rates.scorers["clip"].core_seconds, rates.scorers["clip"].model) == (0.5, "ViT-L-14")
    assert rates.download.core_seconds == 0.01
    scoring.write_text(json.dumps(plain | {"pairs_per_second": 900.0, "device": "a GPU"}))
    assert Rates.default().measured([scoring]).scorers["clip"].gpu_pairs_per_second == 900
    scoring.write_text("{}")
    assert "scoring.json has no rates" in run("plan", "cc12m", "--rows", 5, "--rates", scoring)[2]


def test_prices_of_a_file_and_their_faults(tmp_path):
    block = re.search(r'PRICES = """\n(.*?)"""', DOC, re.DOTALL)[1]
    path = tmp_path / "prices.toml"
    path.write_text(block)
    status, out, _ = run("plan", "cc12m", "--rows", 1_000_000, "--prices", path)
    assert status == 0
    assert "EUR" in out
    assert "prices of 2026-11" in out
    path.write_text(block.replace("hour = 0.9", "hour = -1"))
    assert "prices.toml: cpu.hour: input should be greater" in run("plan", "cc12m", "--rows", 5, "--prices", path)[2]
    assert "cannot be read" in run("plan", "cc12m", "--rows", 5, "--prices", tmp_path / "none.toml")[2]
