"""What breaks, through the whole job: nothing is lost, and every row is counted."""

import threading
from functools import partial
from http.server import ThreadingHTTPServer

import main_job
import numpy as np
import pytest
from conftest import Quiet
from PIL import Image

from pipeline.download import download
from pipeline.sources import loading


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(30):
        noise = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def described(folder, host, lines, shard_size=10):
    (folder / "list.tsv").write_bytes(b"".join(line + b"\n" for line in lines))
    toml = folder / "bad.toml"
    toml.write_text(
        f"""
        [pairs]
        location = "list.tsv"
        columns = ["caption", "url"]
        [download]
        shard_size = {shard_size}
        threads = 64
        retries = 0
        allow_hosts = ["{host}"]
        [scorers.pixels]
        kind = "pixels"
        [scorers.captions]
        kind = "captions"
        """
    )
    return toml


def good(host, numbers):
    return [f"a picture of noise, the {number}th\thttp://{host}/{number}.jpg".encode() for number in numbers]


@pytest.mark.slow
def test_one_row(tmp_path, pictures):
    counts = main_job.run(described(tmp_path, pictures, good(pictures, [7])), tmp_path / "root").counts
    assert (counts.input, counts.kept) == (1, 1)


@pytest.mark.slow
def test_lines_that_are_no_pairs_and_bytes_that_are_no_text_are_counted(tmp_path, pictures):
    lines = [
        *good(pictures, range(4)),
        b"no tab at all",
        b"three\tcolumns\there",
        b"caf\xe9 \xff\thttp://%s/5.jpg" % pictures.encode(),
        b"not a URL\tUNLIKELY",
        b"half a host\thttp://",
        b"a file\tfile:///etc/passwd",
    ]
    counts = main_job.run(described(tmp_path, pictures, lines), tmp_path / "root").counts
    assert (counts.input, counts.kept, counts.failed) == (10, 5, 5)


@pytest.mark.slow
def test_a_tar_that_was_cut_short_is_quarantined_and_mended_by_the_next_run(tmp_path, pictures):
    toml, root = described(tmp_path, pictures, good(pictures, range(30))), tmp_path / "root"
    expected = main_job.run(toml, root)
    storage = main_job.storage_of(toml, root)
    tar = storage.root / download.stage(loading.load(toml)).item(1, ".tar")
    for scored in (storage.root / "scores").glob("pixels-*/00001.parquet"):
        scored.unlink()
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    torn = main_job.run(toml, root)
    assert (torn.counts.input, torn.counts.kept, torn.counts.quarantined) == (30, 20, 10)
    tar.unlink()
    mended = main_job.run(toml, root)
    assert mended.id == expected.id
    assert mended.counts.kept == 30


@pytest.mark.slow
def test_a_hundred_thousand_rows_whose_every_url_is_dead(tmp_path):
    """Nobody listens on the port; and a source that is nothing but dead is still published, row by row."""
    lines = [f"a caption of number {number}\thttp://127.0.0.1:9/{number}.jpg".encode() for number in range(100_000)]
    published = main_job.run(described(tmp_path, "127.0.0.1:9", lines, shard_size=5000), tmp_path / "root")
    counts = published.counts
    assert (counts.input, counts.failed, counts.kept, counts.quarantined) == (100_000, 100_000, 0, 0)
    assert not main_job.run(tmp_path / "bad.toml", tmp_path / "root").new
