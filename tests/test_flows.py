"""The flows against a Prefect server of their own: what they do, what a second run does not, what they tell."""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import served_sources

from flows import access, server
from pipeline.manifest.manifest import Manifest
from pipeline.store.storage import Storage


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    """A temporary server with a database of its own."""
    before = dict(os.environ)
    os.environ |= {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    try:
        with server.start(server.free_port(), "temporary") as address:
            yield address
    finally:
        os.environ.clear()
        os.environ |= before


class Late(SimpleHTTPRequestHandler):
    """The pictures of the last shard come when the first one has been scored."""

    def do_GET(self):
        number = re.search(r"/(\d+)\.jpg", self.path)
        end = time.monotonic() + 60
        while number and int(number[1]) >= 20 and not list(self.server.root.glob("late/scores/*/00000.parquet")):
            if time.monotonic() > end:
                return self.send_error(404)
            time.sleep(0.05)
        return super().do_GET()

    def log_message(self, *args):
        pass


@pytest.mark.slow
def test_a_shard_is_scored_while_others_are_downloaded(api, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Late, directory=str(pictures))) as web:
        web.root = tmp_path / "root"
        threading.Thread(target=web.serve_forever, daemon=True).start()
        served = pictures, f"http://127.0.0.1:{web.server_address[1]}"
        toml = served_sources.described(tmp_path / "lists", served, name="late", timeout=60)
        found = curated(toml, web.root)
        web.shutdown()
    assert (found["counts"]["kept"], found["counts"]["failed"]) == (served_sources.COUNT, served_sources.GONE)


def winnow(*words, check=True):
    """A command in a process of its own, as a person runs it: the environment names the server."""
    command = [sys.executable, "-m", "flows", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def curated(toml, root):
    return json.loads(winnow("curate", toml, "--root", root, "--json").stdout)


def events(api, of):
    """The payloads of the events that a source's manifests caused, as the server knows them."""
    wanted = {
        "filter": {"event": {"name": ["winnow.manifest.published"]}, "occurred": {"since": "2020-01-01T00:00:00Z"}}
    }
    found = (
        httpx.post(f"{api}/events/filter", json=wanted, headers=access.credentials(), trust_env=False)
        .raise_for_status()
        .json()["events"]
    )
    return [each["payload"] for each in found if each["resource"]["prefect.resource.id"] == f"winnow.source.{of}"]


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


@pytest.mark.slow
def test_curate_publishes_once_and_tells_once(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder)
    first = curated(toml, tmp_path / "root")
    assert first["new"]
    counts = first["counts"]
    assert (counts["input"], counts["repeated"], counts["failed"]) == (
        served_sources.COUNT + served_sources.GONE + 2,
        2,
        served_sources.GONE,
    )
    assert counts["kept"] == served_sources.COUNT
    told = wait_for(lambda: events(api, "tiny"))
    expected = {"source": str(toml), "root": str(tmp_path / "root"), "manifest": first["id"]}
    assert told == [expected]

    def state():
        return {path: path.stat().st_mtime_ns for path in (tmp_path / "root").rglob("*.*") if path.is_file()}

    before = state()
    again = curated(toml, tmp_path / "root")
    assert again == {**first, "new": False}
    assert state() == before
    assert events(api, "tiny") == [expected]

    toml.write_text(toml.read_text().replace("captions_words > 2", "captions_words > 99"))
    third = curated(toml, tmp_path / "root")
    assert third["new"]
    assert third["counts"]["kept"] == 0
    assert len(wait_for(lambda: len(events(api, "tiny")) == 2 and events(api, "tiny"))) == 2


@pytest.mark.slow
def test_a_union_fetches_nothing_that_its_members_have(api, tmp_path, httpserver_folder):
    """Half of one list and all of the other, which is the beginning of the former; the pictures are gone by then."""
    folder, root = tmp_path / "lists", tmp_path / "root"
    one = served_sources.described(folder, httpserver_folder, name="one")
    two = served_sources.described(folder, httpserver_folder, name="two", count=20)
    for toml in (one, two):
        curated(toml, root)
    for file in httpserver_folder[0].glob("*.jpg"):
        file.unlink()
    settings = one.read_text().partition("[download]")
    both = folder / "both.toml"
    both.write_text('[union]\n"one.toml" = 0.5\n"two.toml" = 1\n' + "".join(settings[1:]))
    done = curated(both, root)
    counts = done["counts"]
    assert (counts["failed"], counts["dropped"], counts["quarantined"]) == (served_sources.GONE, 0, 0)
    assert counts["input"] == counts["repeated"] + counts["kept"] + served_sources.GONE
    assert 20 < counts["kept"] < served_sources.COUNT
    with Manifest.open(Storage(root / "both")).connection() as con:
        assert con.execute("SELECT DISTINCT origin FROM rows WHERE kept ORDER BY 1").fetchall() == [("one",), ("two",)]
    assert curated(both, root) == {**done, "new": False}


@pytest.mark.slow
def test_publish_tells_the_server_that_stands(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="anew", sql="captions_words > 99")
    curated(toml, tmp_path / "root")
    told = json.loads(winnow("publish", toml, "--recipe", "everything", "--root", tmp_path / "root", "--json").stdout)
    assert (told["announced"], told["counts"]["kept"]) == (True, served_sources.COUNT)
    assert wait_for(lambda: told["id"] in [each["manifest"] for each in events(api, "anew")])


@pytest.mark.slow
def test_other_bytes_and_placeholders_are_told(api, tmp_path, httpserver_folder):
    served, address = httpserver_folder
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="seen")
    for number in range(6):
        (served / f"{number}.jpg").write_bytes(served_sources.picture(99))
    first = winnow("curate", toml, "--root", tmp_path / "root").stdout
    assert "1 pictures have 5 URLs or more each, 6 pairs in all: winnow sql @placeholders" in first
    assert "other bytes" not in first
    (served / "7.jpg").write_bytes(served_sources.picture(77))
    with (toml.parent / "seen.tsv").open("a") as file:
        file.write(f"another thing to see\t{address}/7.jpg\n")
    assert (
        "1 URLs gave other bytes than before: winnow sql @rewritten"
        in winnow("curate", toml, "--root", tmp_path / "root").stdout
    )
    (row,) = json.loads(winnow("sql", "@rewritten", "--root", tmp_path / "root", "--json").stdout)["rows"]
    digests = [hashlib.sha256(served_sources.picture(number)).hexdigest() for number in (7, 77)]
    assert (row["url"], row["first_seen"], row["last_seen"]) == (f"{address}/7.jpg", *digests)


@pytest.mark.slow
def test_a_takedown_tells_the_server_that_stands_and_strangers_are_asked_by_name(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="down")
    with (toml.parent / "down.tsv").open("a") as file:
        file.write("somebody's\thttp://127.0.0.1:9/a.jpg\n")
    done = winnow("curate", toml, "--root", tmp_path / "root")
    assert done.stderr.count("set contact under [download] in down.toml") == 1
    (tmp_path / "list.txt").write_text(f"{httpserver_folder[1]}/3.jpg\n")
    words = ["forget", toml, "--file", tmp_path / "list.txt", "--root", tmp_path / "root", "--json"]
    told = json.loads(winnow(*words).stdout)["sources"]["down"]
    assert told["new"]
    assert wait_for(lambda: told["manifest"] in [each["manifest"] for each in events(api, "down")])
    assert not json.loads(winnow(*words).stdout)["sources"]["down"]["new"]
    assert len(events(api, "down")) == 2


@pytest.mark.slow
def test_drift_beyond_the_bound_publishes_and_tells_nobody(api, tmp_path, httpserver_folder):
    bound = {"name": "drifts", "more": "[drift]\nmax_psi = 0.05"}
    first = curated(served_sources.described(tmp_path / "lists", httpserver_folder, **bound), tmp_path / "root")
    assert first["held"] is None
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, count=10, **bound)
    done = winnow("curate", toml, "--root", tmp_path / "root")
    assert "no training follows: inputs drifted beyond max_psi = 0.05" in " ".join(done.stdout.split())
    assert "pixels_sharpness (PSI" in " ".join(done.stdout.split())
    assert Manifest.open(Storage(tmp_path / "root" / "drifts")).id != first["id"]
    assert [each["manifest"] for each in wait_for(lambda: events(api, "drifts"))] == [first["id"]]


def asked(api, of, **wanted):
    """What the server has: "artifacts", "flow_runs" or "logs"."""
    answer = httpx.post(f"{api}/{of}/filter", json=wanted, headers=access.credentials(), trust_env=False)
    return answer.raise_for_status().json()


def shown(api, source):
    """The artifacts of a source by the end of their keys. Each key has one."""
    found = [each for each in asked(api, "artifacts") if (each["key"] or "").startswith(f"{source}-")]
    names = [each["key"].removeprefix(f"{source}-") for each in found]
    assert len(set(names)) == len(names)
    return dict(zip(names, found, strict=True))


@pytest.mark.slow
def test_the_pages_show_a_run_its_progress_and_its_manifest(api, tmp_path, httpserver_folder, monkeypatch):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="shown_here")
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL")
    done = winnow("curate", toml, "--root", tmp_path / "root", "--json")
    manifest = json.loads(done.stdout)["id"]
    found = shown(api, "shown-here")
    assert set(found) == {"download", "score", "counts", "funnel", "failures"}
    assert [found[step]["data"] for step in ("download", "score")] == [100, 100]
    assert found["score"]["description"] == "score: 4 of 4"
    assert json.loads(found["counts"]["data"])[0]["kept"] == served_sources.COUNT
    (step,) = json.loads(found["funnel"]["data"])
    assert (step["filter"], step["passes alone"], step["alone drops"]) == ("chosen", served_sources.COUNT, 0)
    assert json.loads(found["failures"]["data"]) == [
        {"cause": "http_404", "pairs": served_sources.GONE, "share of all": "9.1%"}
    ]
    assert all(manifest in found[name]["description"] for name in ("counts", "funnel", "failures"))
    (run,) = [each for each in asked(api, "flow_runs") if each["name"].startswith("shown_here")]
    assert run["name"] == f"shown_here {manifest[:12]}"
    lines = [each["message"] for each in asked(api, "logs", logs={"flow_run_id": {"any_": [run["id"]]}})]
    assert "shown_here: 35 rows in the list, 2 of them repeated; 33 pairs are new; 4 shards" in lines
    assert "4 shards with 33 pairs are downloaded, 0 failed" in lines
    assert f"shown_here: a new manifest, {manifest}: 30 kept, 0 dropped, 3 failed, 0 quarantined" in lines
    assert "rows in the list" not in done.stderr  # the log is for the pages alone


@pytest.mark.slow
def test_the_pages_link_the_report(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="linked")
    manifest = curated(toml, tmp_path / "root")["id"]
    program = f"from flows.retrain import retrain; retrain({str(toml)!r}, {str(tmp_path / 'root')!r})"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120, stderr=subprocess.DEVNULL)
    link = shown(api, "linked")["report"]
    report = tmp_path / "root" / "linked" / "report.html"
    assert report.is_file()
    assert f"({report.as_uri()})" in link["data"]
    assert manifest in link["description"]
    assert f"linked {manifest[:12]}" in [each["name"] for each in asked(api, "flow_runs")]


@pytest.mark.slow
def test_a_task_a_stage_and_block_of_shards(api, tmp_path, httpserver_folder):
    curated(served_sources.described(tmp_path / "lists", httpserver_folder, name="blocks"), tmp_path / "root")

    def names():
        """Without the random end that Prefect adds to the name of a task, but not to that of a block."""
        answer = httpx.post(f"{api}/task_runs/filter", json={}, headers=access.credentials(), trust_env=False)
        return {re.sub(r"^(\w+)-[0-9a-f]{3,}$", r"\1", each["name"]) for each in answer.raise_for_status().json()}

    wanted = {"update_ledger", "download_shards 00000-00003", "score_shards 00000-00003", "publish_manifest"}
    assert wait_for(lambda: wanted <= names())


@pytest.mark.slow
def test_a_quarantined_shard_stops_nothing(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="torn")
    root = tmp_path / "root"
    curated(toml, root)
    toml.write_text(toml.read_text().replace('kind = "pixels"', 'kind = "pixels"\n[scorers.more]\nkind = "pixels"'))
    tar = sorted((root / "torn").glob("shards-*/00001.tar"))[0]
    tar.write_bytes(tar.read_bytes()[:700])
    done = curated(toml, root)
    assert done["counts"]["quarantined"] == 10
    assert done["counts"]["kept"] == served_sources.COUNT - 10
    query = "select distinct status, error from rows where status = 'quarantined'"
    rows = json.loads(winnow("sql", query, "--root", root, "--json").stdout)["rows"]
    assert len(rows) == 1
    assert "score, shard 00001" in rows[0]["error"]


@pytest.mark.slow
def test_a_score_is_added_from_what_is_stored(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="added")
    root = tmp_path / "root"
    first = curated(toml, root)
    stored = {path: path.stat().st_mtime_ns for path in (root / "added").glob("s*/**/*.*") if path.is_file()}
    for picture in httpserver_folder[0].iterdir():
        picture.unlink()
    (toml.parent / "mine.py").write_text(
        'columns = {"width": "int32"}\nprepare = lambda image: image.width\n'
        'def score(batch, fault=0):\n    return {"width": [width // (1 - fault) for width in batch.images]}\n'
    )
    toml.write_text(toml.read_text() + '[scorers.mine]\nkind = "./mine.py"\nfault = 1\n')
    failed = winnow("score", toml, "--scorer", "mine", "--root", root, check=False)
    assert failed.returncode == 1
    assert "shard 00000: scorer 'mine', rows 0 to 9: ZeroDivisionError" in failed.stderr
    assert "nothing was published" in failed.stderr
    toml.write_text(toml.read_text().replace("fault = 1", ""))
    done = json.loads(winnow("score", toml, "--scorer", "mine", "--root", root, "--json").stdout)
    assert done["new"]
    assert done["counts"] == first["counts"]
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    query = "select distinct mine_width from rows where status = 'ok'"
    assert json.loads(winnow("sql", query, "--root", root, "--json").stdout)["rows"] == [{"mine_width": 96}]
    assert curated(toml, root) == {**{key: done[key] for key in first}, "new": False}


@pytest.mark.slow
def test_missing_weights_are_told_before_anything_is_fetched(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="lacking")
    (toml.parent / "empty").mkdir()
    text = '[scorers.clip]\nkind = "clip"\nmodel = "local-dir:empty"\n[scorers.captions]'
    toml.write_text(toml.read_text().replace("[scorers.captions]", text))
    done = winnow("curate", toml, "--root", tmp_path / "root", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("winnow: ")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "root").glob("*/ledger"))


@pytest.mark.slow
def test_two_runs_of_one_source(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="busy")
    with Storage(tmp_path / "root" / "busy").lock():
        done = winnow("curate", toml, "--root", tmp_path / "root", check=False)
    assert done.returncode == 1
    assert "another run is writing" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_an_empty_list_is_one_line(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="empty")
    (toml.parent / "empty.tsv").write_text("")
    done = winnow("curate", toml, "--root", tmp_path / "root", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("winnow: ")
    assert "has no rows" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_source_without_a_task_is_not_trained_on(api, tmp_path, httpserver_folder):
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="idle")
    curated(toml, tmp_path / "root")
    done = winnow("train", toml, "--root", tmp_path / "root", check=False)
    assert done.returncode == 1
    assert "there is no [task]" in done.stderr
    assert Manifest.open(Storage(tmp_path / "root" / "idle")).counts.kept == served_sources.COUNT


@pytest.mark.slow
def test_a_labelled_list_is_fetched_and_scored_once_for_calibration(api, tmp_path, httpserver_folder):
    """The labelled pairs are not the source's own: 25 short captions, and 25 longer ones."""
    toml = served_sources.described(tmp_path / "lists", httpserver_folder, name="rated")
    served, address = httpserver_folder
    rows = [f"{address}/{n}.jpg\ta thing\tshort\n{address}/{n}.jpg\ta thing that is {n}\tclean\n" for n in range(25)]
    rows.append(f"{address}/gone-9.jpg\tit is gone\tclean\n")
    (toml.parent / "labels.tsv").write_text("url\tcaption\tlabel\n" + "".join(rows))
    toml.write_text(toml.read_text() + 'catches = ["short"]\n[calibration]\nlabels = "labels.tsv"\n')
    root = tmp_path / "root"

    def calibrated():
        return json.loads(winnow("calibrate", toml, "--root", root, "--json").stdout)

    first = calibrated()
    (chosen,) = first["filters"]
    assert first["downloaded"] == 50
    assert (chosen["bad"], chosen["good"], chosen["best"]["f1"]) == (25, 25, 1.0)
    assert chosen["best"]["sql"] == "captions_words > 3"
    assert not (root / "rated" / "log").exists()
    assert not events(api, "rated-calibration")
    for path in served.iterdir():
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in root.rglob("*.*") if path.is_file()}
    assert calibrated() == first
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.*") if path.is_file()} == kept
