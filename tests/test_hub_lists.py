"""Datasets of a hub: fetched by the real `datasets` from a hub on loopback, or refused in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served_dataset import REVISION, served

from pipeline.errors import SourceError
from pipeline.ledger import lists
from pipeline.sources import loading

READ = """
import json, sys, tempfile
from pathlib import Path
asked = set()
sys.addaudithook(lambda event, args: asked.add(args[0]) if event == "socket.getaddrinfo" else None)
from pipeline.errors import SourceError
from pipeline.files.read import Reader
from pipeline.ledger import lists
from pipeline.sources import loading

file = Path(sys.argv[1], "own.toml")
for toml in sys.argv[2:]:
    file.write_text("[pairs]\\n" + toml)
    try:
        pairs = loading.load(file).pairs
        rows = [row for batch in lists.read(pairs, Path(tempfile.mkdtemp())) for row in batch.to_pylist()]
        reader = Reader(pairs.base, 1000, pairs.symlinks, pairs.image)
        found = [[row["place"], row["caption"], reader.read(row["place"]).decode()] for row in rows]
    except SourceError as error:
        found = str(error)
    print("found", json.dumps(found), flush=True)
assert asked <= {"127.0.0.1", "datasets-server.127.0.0.1"}, asked  # the second is the hub's, too
"""


def read(folder, address, *sources):
    """What a new process, whose libraries know this hub, lists: place, caption and bytes of each row, or the error."""
    home = Path(__file__).parent.parent
    known = {"HF_ENDPOINT": address, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | known
    command = [sys.executable, "-c", READ, folder, *sources]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return [json.loads(line.partition(" ")[2]) for line in done.stdout.splitlines() if line.startswith("found ")]


@pytest.mark.slow
def test_a_dataset_of_a_hub(tmp_path):
    table = tmp_path / "repository/data/train-00000-of-00001.parquet"
    table.parent.mkdir(parents=True)
    feature = {"info": {"features": {"image": {"_type": "Image"}, "text": {"_type": "Value", "dtype": "string"}}}}
    pictures = [{"bytes": b"one", "path": "1.jpg"}, {"bytes": b"two", "path": "2.jpg"}]
    made = pa.table({"image": pictures, "text": ["a", "b"]})
    pq.write_table(made.replace_schema_metadata({"huggingface": json.dumps(feature)}), table)
    with served(tmp_path / "repository", "me/toys") as (address, requests):
        toys = 'dataset = "hf://me/toys"'
        first, second, split, config, missing = read(
            tmp_path,
            address,
            toys,
            f'dataset = "hf://me/toys@{REVISION}"',
            f'{toys}\nsplit = "test"',
            'dataset = "hf://me/toys/odd"',
            'dataset = "hf://me/none"',
        )
    place = f"datasets/me___toys/default/0.0.0/{REVISION}/toys-train.arrow"
    assert first == second == [[f"{place}!0", "a", "one"], [f"{place}!1", "b", "two"]]
    assert sum(request.startswith("GET") and request.endswith(".parquet") for request in requests) == 1
    assert "no split 'test'" in split
    assert "'odd' not found" in config
    assert "me/none" in missing
    assert "doesn't exist" in missing
    assert not any("\n" in each for each in (split, config, missing))


@pytest.mark.slow
def test_a_hub_s_folder_of_pictures(tmp_path):
    """The library keeps paths into its cache, which links there."""
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (repository / name).write_bytes(name.encode())
    (repository / "metadata.csv").write_text("file_name,text\n1.jpg,a\n2.jpg,b\n")
    with served(repository, "me/photos") as (address, _):
        (rows,) = read(tmp_path, address, 'dataset = "hf://me/photos"')
    assert [row[1:] for row in rows] == [["a", "1.jpg"], ["b", "2.jpg"]]


def test_a_dataset_of_a_hub_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "own.toml").write_text('[pairs]\ndataset = "hf://me/toys"\n')
    source = loading.load(tmp_path / "own.toml")
    assert lists.extra_columns(source) is None
    with pytest.raises(SourceError, match=r'hf://me/toys needs the package datasets: pip install "datasets>=4"'):
        list(lists.read(source.pairs, tmp_path))
    (tmp_path / "own.toml").write_text('[pairs]\ndataset = "hf://me/toys?x=1"\n')
    with pytest.raises(SourceError, match="is no dataset of a hub: write hf://ORGANISATION/NAME"):
        loading.load(tmp_path / "own.toml")
