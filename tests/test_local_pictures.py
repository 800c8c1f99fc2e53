"""The main job over pictures on this machine: the example of docs/local-pictures.md, and one list in many forms."""

import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import winnow

PAGE = (Path(__file__).parent.parent / "docs/local-pictures.md").read_text()
PIXELS = '\n[scorers.pixels]\nkind = "pixels"\n'


def picture(number, form="JPEG"):
    """A picture of stripes, of 40 pixels."""
    drawn = Image.linear_gradient("L").resize((40, 40)).rotate(37 * number).convert("RGB")
    content = io.BytesIO()
    drawn.save(content, form)
    return content.getvalue()


def curated(folder, name, pairs):
    file = folder / f"{name}.toml"
    file.write_text(f"[pairs]\n{pairs}\n{PIXELS}")
    return winnow.curate(file, folder / "results")


def test_the_example_of_the_page(tmp_path):
    """Its files make its rows, as `winnow sql` shows them."""
    files, shown = re.findall(r"```text\n(photos/.*?|place .*?)```", PAGE, re.DOTALL)
    for line in files.splitlines():
        name, content = re.match(r"(\S+)\s*(.*)", line).groups()
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_bytes(content.encode() or picture(len(name)))
    pairs = re.search(r"```toml\n\[pairs\]\n(.*?)```", PAGE, re.DOTALL)[1]
    manifest = curated(tmp_path, "own", pairs)
    found = manifest.sql("SELECT place, caption, votes, status, cause FROM rows ORDER BY place, uid").to_pylist()
    heads, _, *lines = shown.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", heads)]
    cells = [
        [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)] for line in lines
    ]
    assert sorted(cells) == sorted([value or "" for value in row.values()] for row in found)


@pytest.mark.slow
def test_one_list_in_many_forms_has_the_same_scores(tmp_path):
    forms = {
        "folder": 'folder = "photos"',
        "beside": 'folder = "beside"',
        "table": 'location = "data/*.parquet"\nimage = "image"',
        "names": 'location = "photos/captions.csv"\nimage = "file_name"',
        "tars": 'shards = "tars/{00000..00001}.tar"',
    }
    for name in ("photos", "beside", "data", "tars"):
        (tmp_path / name).mkdir()
    pictures = {f"{number}.jpg": picture(number) for number in range(7)} | {"7.jpg": picture(7, "PNG")}
    captions = {name: f"stripes number {name}" for name in pictures}
    for name, content in pictures.items():
        (tmp_path / "photos" / name).write_bytes(content)
        (tmp_path / "beside" / name).write_bytes(content)
        (tmp_path / "beside" / name).with_suffix(".json").write_text(json.dumps({"caption": captions[name]}))
    lines = ["file_name,caption", *(f"{name},{caption}" for name, caption in captions.items())]
    (tmp_path / "photos/captions.csv").write_text("\n".join(lines))
    table = pa.table({"image": list(pictures.values()), "caption": list(captions.values())})
    pq.write_table(table, tmp_path / "data/part.parquet", row_group_size=3)
    for number in range(2):
        with tarfile.open(tmp_path / f"tars/{number:05d}.tar", "w") as tar:
            for name in list(pictures)[number::2]:
                for member, content in ((name, pictures[name]), (f"{name[0]}.txt", captions[name].encode())):
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    query = "SELECT caption, status, sha256, bytes, width, height, COLUMNS('pixels_.*') FROM rows ORDER BY caption"
    tables = {}
    for name, pairs in forms.items():
        manifest = curated(tmp_path, name, pairs)
        tables[name] = manifest.sql(query)
        assert curated(tmp_path, name, pairs).id == manifest.id
    assert tables["folder"]["status"].to_pylist() == ["ok"] * 8
    assert all(found == tables["folder"] for found in tables.values())


@pytest.mark.slow
@pytest.mark.skipif("WINNOW_DATA" not in os.environ, reason="WINNOW_DATA names no folder of real data")
def test_every_file_of_a_hostile_folder_is_a_row(tmp_path):
    hostile = Path(os.environ["WINNOW_DATA"]) / "hostile"
    shutil.copytree(hostile / "files", tmp_path / "odd/files")
    manifest = curated(tmp_path, "own", 'folder = "odd"\ntemplate = "a photo of {label}"')
    status = {row["place"]: row["status"] for row in manifest.sql("SELECT place, status FROM rows").to_pylist()}
    index = pq.read_table(hostile / "index.parquet").to_pylist()
    assert len(status) == len(index)
    wrong = [
        row["file"] for row in index if row["strict"] and (status[row["file"]] == "ok") != (row["expected"] == "ok")
    ]
    assert wrong == []
