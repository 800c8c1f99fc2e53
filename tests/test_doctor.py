import json
import subprocess
import sys
from importlib.metadata import PathDistribution

import pyarrow as pa
import pytest

from flows import doctor
from pipeline.store.parquet import put_parquet
from pipeline.store.storage import Storage


def installed(folder, name, files=(), version="1.0"):
    """A distribution as pip leaves it."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files))
    return PathDistribution(info)


@pytest.mark.parametrize(
    ("found", "state"),
    [((3, 10, 9), "fault"), ((3, 11, 0), "ok"), ((3, 12, 4), "ok"), ((3, 13, 0), "fault")],
)
def test_python(found, state):
    finding = doctor.python(found)
    assert finding.state == state
    assert bool(finding.fix) == (state == "fault")


def test_two_owners_of_pil_are_a_fault(tmp_path):
    both = [installed(tmp_path, name, ["PIL/Image.py"]) for name in ("pillow", "pillow-simd")]
    finding = doctor.pillow([*both, installed(tmp_path, "other", ["other/Image.py"])])
    assert finding.state == "fault"
    assert "pillow and pillow-simd" in finding.found
    assert "uninstall -y pillow pillow-simd" in finding.fix


def test_nobody_owns_pil(tmp_path):
    assert doctor.pillow([installed(tmp_path, "other")]).state == "fault"


def test_the_backport_is_found(tmp_path):
    assert doctor.backport([str(tmp_path)]).state == "ok"
    installed(tmp_path, "dataclasses", version="0.6")
    finding = doctor.backport([str(tmp_path)])
    assert finding.state == "fault"
    assert finding.fix.endswith("pip uninstall -y dataclasses")


@pytest.mark.parametrize(
    ("check", "found", "state"),
    [
        (doctor.fastapi, "0.150.0", "ok"),
        (doctor.fastapi, "0.165.1", "fault"),
        (doctor.fastapi, None, "fault"),
        (doctor.sqlalchemy, "2.0.58", "ok"),
        (doctor.sqlalchemy, "2.1.9", "fault"),
        (doctor.sqlalchemy, None, "fault"),
    ],
)
def test_versions_that_prefect_cannot_live_with(check, found, state):
    assert check(found).state == state


def test_disk(tmp_path):
    assert doctor.disk(tmp_path / "not" / "there", 1).state == "ok"
    scarce = doctor.disk(tmp_path, 1 << 60)
    assert scarce.state == "note"
    assert "--root" in scarce.fix


@pytest.mark.slow
def test_a_broken_source_file_is_a_fault_and_missing_weights_are_a_note(tmp_path, monkeypatch):
    folder = tmp_path / "data_manifests"
    folder.mkdir()
    (folder / "broken.toml").write_text("[pairs\n")
    (folder / "fine.toml").write_text('[pairs]\nlocation = "http://127.0.0.1:1/list.tsv"\n')
    (folder / "blurred.toml").write_text(
        '[pairs]\nlocation = "http://127.0.0.1:1/list.tsv"\n[download]\nblur_faces = true\n'
    )
    (folder / "remote.toml").write_text(
        '[pairs]\nlocation = "http://127.0.0.1:1/list.tsv"\n'
        '[scorers.clip]\nkind = "clip"\nmodel = "ViT-B-32-quickgelu"\nweights = "openai"\n'
    )
    (folder / "trained.toml").write_text(
        '[pairs]\nlocation = "http://127.0.0.1:1/list.tsv"\n[task.classes]\na = ["a"]\nb = ["b"]\n'
        '[task.learners.linear]\nhead = "linear"\n'
        'encoder = { kind = "open_clip", model = "ViT-B-32-quickgelu", weights = "openai" }\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    program = (
        "import json; from flows import doctor as doctor; from pipeline.extras import EXTRAS, Extra; "
        "EXTRAS['faces'] = Extra('faces', ('no_such_module',)); "
        "print(json.dumps([[each.what, each.state, each.fix] for each in doctor.sources()]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    states = {what: (state, fix) for what, state, fix in json.loads(done.stdout.splitlines()[-1])}
    assert states["source broken"] == ("fault", f"edit {folder / 'broken.toml'}")
    assert states["source fine"][0] == "ok"
    assert states["source remote"][0] == "note"
    assert "winnow curate remote" in states["source remote"][1]
    assert states["source blurred"] == ("note", 'uv pip install -e ".[faces]"')
    assert states["source trained"][0] == "note"
    assert "winnow train trained" in states["source trained"][1]


def test_deep_names_every_object_that_is_not_what_its_name_says(tmp_path):
    store = Storage(tmp_path / "tiny")
    (tmp_path / "tiny" / "log").mkdir(parents=True)
    rows = [put_parquet(store, "rows", pa.schema({"n": pa.int64()}), [pa.table({"n": [n]})]) for n in range(2)]
    assert [finding.state for finding in doctor.stored(tmp_path)] == ["ok"]
    store.fetch(rows[0].key).write_bytes(b"other bytes")
    (finding,) = doctor.stored(tmp_path)
    assert (finding.state, finding.fix) == ("fault", f"rm {tmp_path / 'tiny' / rows[0].key}; winnow curate tiny")
