import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.demo import captions, pool, web
from pipeline.demo.hold import hold
from pipeline.demo.world import World, served
from pipeline.errors import SourceError
from pipeline.ledger import ingest
from pipeline.scenes import rendering, scenes
from pipeline.scorers import class_labels
from pipeline.settings.encoder import Hog
from pipeline.settings.pairs import Demo
from pipeline.settings.task import Learner, Task
from pipeline.sources import loading
from pipeline.sources.source import Source
from pipeline.store.storage import Storage
from training.demo import clip

SILENT = lambda done, total: None  # noqa: E731


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def small():
    classes = {name: tuple(words) for name, words in captions.SHAPE_WORDS.items()}
    task = Task(classes=classes, learners={"linear": Learner(head="linear", encoder=Hog(kind="hog"))})
    download = {"timeout": 1, "retries": 0}
    return Source(name="small", demo=Demo(pairs=60, test_images=50, port=free_port()), task=task, download=download)


@pytest.fixture(scope="module")
def storage(small, tmp_path_factory):
    """A store in which the small world stands."""
    store = Storage(tmp_path_factory.mktemp("root") / "small")
    World(small.demo, store).build(SILENT)
    return store


@pytest.fixture(scope="module")
def truth(small, storage):
    return pq.read_table(World(small.demo, storage).truth).to_pylist()


@pytest.fixture
def site(small, storage):
    with served(small, storage) as filled:
        yield filled


def urls(truth, fault):
    return [row["url"] for row in truth if row["label"] == fault]


def get(url, timeout=5):
    return urllib.request.urlopen(url, timeout=timeout)


def test_the_same_seed_draws_the_same_bytes_and_another_does_not():
    wanted = {3: pool.Shot(pool.POOL, 3), 4: pool.Shot(pool.POOL, 4, "blurred")}
    first = list(pool.files(7, wanted))
    assert first == list(pool.files(7, wanted))
    assert [name for name, _ in first] == ["000003.jpg", "000004.jpg"]
    others = [
        pool.files(8, wanted),
        *(pool.files(7, pool.clean(stream, (3, 4))) for stream in (pool.TEST, pool.TRAINING)),
    ]
    assert not {content for _, content in first} & {content for other in others for _, content in other}


def test_a_scene_is_a_picture_of_many_colours():
    picture = pool.photograph(7, pool.POOL, 3)
    assert picture.shape == (rendering.SIZE, rendering.SIZE, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2000


def test_every_shape_colour_floor_and_pattern_appears():
    drawn = [scenes.draw(np.random.default_rng(number)) for number in range(400)]
    assert {thing.shape for scene in drawn for thing in scene.things} == set(captions.SHAPE_WORDS)
    assert len({thing.colour for scene in drawn for thing in scene.things}) == 8
    assert len({scene.floor for scene in drawn}) == 6
    assert 0.1 < np.mean([len(scene.things) == 2 for scene in drawn]) < 0.3


def test_a_caption_names_the_main_shape_and_no_word_means_two():
    words = [word for each in captions.SHAPE_WORDS.values() for word in set(each)]
    assert len(words) == len(set(words))
    drawn = [scenes.draw(np.random.default_rng(number)) for number in range(300)]
    said = [captions.caption(scene, np.random.default_rng(number)) for number, scene in enumerate(drawn)]
    named = class_labels.classes_named(pa.array(said), captions.SHAPE_WORDS)
    names = list(captions.SHAPE_WORDS)
    assert all(row[names.index(scene.things[0].shape)] for row, scene in zip(named, drawn, strict=True))
    assert all(row.sum() == 1 for row, scene in zip(named, drawn, strict=True) if len(scene.things) == 1)
    assert len(set(said)) > 280


def test_the_filled_source_is_an_ordinary_one(site, small, storage):
    assert site.demo is None
    assert site.download.allow_hosts == (f"127.0.0.1:{small.demo.port}",)
    assert Source.model_validate(site.model_dump()).pairs == site.pairs
    ledger = ingest.update(site, storage)
    assert ledger.input == 60
    held_out = pq.read_table(site.task.test.location)
    assert len(held_out) == 250
    assert all((Path(site.task.test.folder) / name).is_file() for name in held_out["image"].to_pylist())


@pytest.mark.slow
def test_the_calibration_stream_has_other_scenes_and_no_test_set(small, storage, tmp_path):
    other = World(small.demo.model_copy(update={"stream": "calibration"}), Storage(tmp_path))
    other.build(SILENT)
    world = World(small.demo, storage)
    labels = [set(pq.read_table(each.truth)["label"].to_pylist()) for each in (world, other)]
    assert labels[0] == labels[1] | {"test_copy"}
    tars = [(each.folder / "pictures" / "00000.tar").read_bytes() for each in (world, other)]
    assert tars[0] != tars[1]
    assert not (other.folder / "test.parquet").exists()
    assert other.fill(small).task == small.task


def test_a_source_without_demo_is_left_alone(tmp_path):
    (tmp_path / "pairs.tsv").write_text("caption\turl\n")
    plain = Source(name="plain", pairs={"location": str(tmp_path / "pairs.tsv")})
    with served(plain, Storage(tmp_path / "root")) as same:
        assert same is plain


def test_addresses_tell_nothing_of_faults(site, truth):
    names = [row["url"].rpartition("/")[2] for row in truth]
    assert all(name.removesuffix(".jpg").isdigit() for name in names)
    assert "label" not in Path(site.pairs.location).read_text()


def test_good_addresses_give_whole_pictures(site, truth):
    for url in [*urls(truth, "clean")[:5], *(url for label in pool.FAULTS for url in urls(truth, label)[:2])]:
        with get(url) as answer:
            assert min(Image.open(BytesIO(answer.read())).convert("RGB").size) > 100


@pytest.mark.parametrize(("fault", "status"), [("http_404", 404), ("http_500", 500)])
def test_some_addresses_answer_with_an_error(site, truth, fault, status):
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(urls(truth, fault)[0])
    assert caught.value.code == status


def test_a_slow_drip_does_not_end_within_a_second(site, truth):
    begun, seen = time.monotonic(), 0
    with get(urls(truth, "slow")[0]) as answer:
        while time.monotonic() < begun + 1:
            seen += len(answer.read(1))
    assert 1 <= seen < 10 < int(answer.headers["Content-Length"])


def test_a_dead_connection_says_nothing(site, truth):
    url = urls(truth, "dead")[0]
    with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])), timeout=5) as line:
        line.sendall(f"GET /{url.rpartition('/')[2]} HTTP/1.0\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            line.recv(100)


def test_a_truncated_picture_ends_early(site, truth):
    with get(urls(truth, "truncated")[0]) as answer, pytest.raises(OSError, match="truncated"):
        Image.open(BytesIO(answer.read())).load()


def test_html_comes_as_a_picture(site, truth):
    with get(urls(truth, "html")[0]) as answer:
        assert answer.headers["Content-Type"] == "image/jpeg"
        assert answer.read().startswith(b"<!doctype html>")


def test_the_bomb_is_small_and_unpacks_to_144_million_pixels(site, truth):
    with get(urls(truth, "bomb")[0]) as answer:
        body = answer.read()
    assert len(body) < 200_000
    with pytest.warns(Image.DecompressionBombWarning):
        assert Image.open(BytesIO(body)).size == (pool.BOMB_SIDE, pool.BOMB_SIDE)


def test_the_redirect_leads_to_an_address_that_nobody_allowed(site, truth):
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args):
            return None

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(Stay).open(urls(truth, "private")[0], timeout=5)
    assert caught.value.headers["Location"] == web.PRIVATE
    assert web.PRIVATE.split("/")[2] not in site.download.allow_hosts


def test_an_opt_out_is_said_in_a_header(site, truth):
    with get(urls(truth, "opt_out")[0]) as answer:
        assert "noai" in answer.headers["X-Robots-Tag"]


def test_the_second_time_nothing_is_drawn(small, storage):
    world = World(small.demo, storage)
    before = {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")}
    begun = time.monotonic()
    with served(small, storage, progress=lambda done, total: pytest.fail("drawn again")):
        assert time.monotonic() - begun < 10
    assert {path: path.stat().st_mtime_ns for path in world.folder.rglob("*")} == before


@pytest.mark.slow
def test_after_a_kill_only_what_is_missing_is_drawn_and_the_same(small, storage):
    world = World(small.demo, storage)
    before = {path: path.read_bytes() for path in sorted(world.folder.rglob("*.*")) if path.is_file()}
    kept, lost = world.folder / "pictures" / "00000.tar", world.folder / "test-pictures" / "00000.tar"
    touched = kept.stat().st_mtime_ns
    lost.unlink()
    (world.folder / "key.json").unlink()
    told = []
    world.build(lambda done, total: told.append((done, total)))
    assert kept.stat().st_mtime_ns == touched
    assert told == [(59, 109), (109, 109)]
    assert {path: path.read_bytes() for path in sorted(world.folder.rglob("*.*")) if path.is_file()} == before


@pytest.mark.slow
def test_a_stranger_on_the_port_is_an_error_that_names_the_way_out(small, storage):
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        threading.Thread(target=_greet, args=(stranger,), daemon=True).start()
        port = stranger.getsockname()[1]
        world = World(small.demo, storage)
        with pytest.raises(SourceError, match=rf"port {port} is taken by another program.*\[demo\] port"):
            with hold(world.folder, port, world.stage.key):
                pass


def _greet(listener):
    while True:
        try:
            line, _ = listener.accept()
        except OSError:
            return
        with line:
            line.recv(1000)
            line.sendall(b"SSH-2.0-stranger\r\n")


@pytest.mark.slow
def test_another_world_on_the_port_is_an_error(small, storage, site):
    with pytest.raises(SourceError, match="another demo world"):
        with hold(World(small.demo, storage).folder, small.demo.port, "00000000"):
            pass


def test_two_runs_share_a_server_and_it_ends_with_the_last(small, storage, truth):
    url = urls(truth, "clean")[0]
    with served(small, storage):
        with served(small, storage):
            assert (
                get(f"http://127.0.0.1:{small.demo.port}/winnow-demo").read()
                == World(small.demo, storage).stage.key.encode()
            )
        time.sleep(0.6)
        assert get(url).status == 200
    _wait_until_gone(small.demo.port)


def test_the_server_dies_with_a_run_that_is_killed(small, storage, tmp_path):
    words = [sys.executable, "-c", _HOLDER, str(World(small.demo, storage).folder), str(small.demo.port)]
    with subprocess.Popen([*words, World(small.demo, storage).stage.key], stdout=subprocess.PIPE) as run:
        assert run.stdout.readline() == b"up\n"
        assert get(f"http://127.0.0.1:{small.demo.port}/winnow-demo").status == 200
        os.kill(run.pid, signal.SIGKILL)
    _wait_until_gone(small.demo.port)


_HOLDER = """
import sys, time
from pathlib import Path
from pipeline.demo.hold import hold
with hold(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]):
    print("up", flush=True)
    time.sleep(60)
"""


def _wait_until_gone(port):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    pytest.fail("the server is still there")


@pytest.mark.slow
def test_the_download_tells_every_fault_by_its_cause(small, storage, truth, tmp_path):
    from pipeline.download import download
    from pipeline.engine import local

    store = Storage(tmp_path / "run")
    fault = {row["url"]: row["label"] for row in truth}
    with served(small, storage) as filled:
        ledger = ingest.update(filled, store)
        errors = [error for _, error in local.run_wide(download.Downloading(filled, store), ledger.shards)]
    assert errors == [None]
    made = pq.read_table(store.fetch(download.stage(filled).item(0, ".parquet"))).to_pylist()
    asked = pq.read_table(store.fetch(ledger.shards[0].key)).to_pylist()
    causes = {}
    for row, pair in zip(made, asked, strict=True):
        causes.setdefault(fault[pair["url"]], set()).add(row["cause"])
    assert causes == {
        **{label: {None} for label in ("clean", *pool.FAULTS)}, "http_404": {"http_404"}, "http_500": {"http_500"},
        "slow": {"timeout"}, "dead": {"reset"}, "truncated": {"undecodable"}, "html": {"undecodable"},
        "bomb": {"too_many_pixels"}, "private": {"blocked_address"}, "opt_out": {"opt_out"},
    }  # fmt: skip


@pytest.mark.slow
def test_the_demo_clip_tells_matched_from_swapped_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matched, swapped = clip.similarities(clip.FOLDER, 200)
    assert clip.auc(matched, swapped) >= 0.95
    assert sum(path.stat().st_size for path in clip.FOLDER.iterdir()) <= 5_000_000


def test_the_demo_source_file_is_valid_and_names_the_words_of_the_captions():
    demo = loading.load("demo")
    assert demo.demo == Demo()
    assert {name: set(words) for name, words in demo.task.classes.items()} == {
        name: set(words) for name, words in captions.SHAPE_WORDS.items()
    }
    assert [each.name for each in demo.own_recipe.filters]
