"""Tars as img2dataset and webdataset write them, small."""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(seed, size=(48, 40), kind="JPEG", **settings):
    """Noise: no two seeds look alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3)).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(data, kind, **settings)
    return data.getvalue()


def tar(path, members):
    """A tar of (name, content) pairs."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with tarfile.open(path, "w") as file:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def row(key, **values):
    """What img2dataset knows of a sample, of DataComp's."""
    number = int(key)
    return {
        "uid": f"{number:032x}",
        "url": f"http://host/{number}.jpg",
        "caption": f"picture number {number}",
        "key": key,
        "status": "success",
        "error_message": None,
        "width": 48,
        "height": 40,
        "sha256": f"{number:064x}",
    } | values


def img2dataset_shard(folder, number, rows, table=True, meta=True):
    """00000.tar with .jpg, .txt and .json of each row that is a success, and its table of all rows."""
    members = []
    for each in rows:
        if each["status"] != "success":
            continue
        members.append((f"{each['key']}.jpg", picture(int(each["key"]))))
        members.append((f"{each['key']}.txt", each["caption"].encode()))
        if meta:
            members.append((f"{each['key']}.json", json.dumps(each, indent=4).encode()))
    made = tar(folder / f"{number:05d}.tar", members)
    if table:
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{number:05d}.parquet")
    (folder / f"{number:05d}_stats.json").write_text(json.dumps({"count": len(rows)}))
    return made


def img2dataset_folder(folder, shards=2, size=4, failed=(), **settings):
    """Shards of `size` samples each; those of the numbers `failed` have no picture."""
    for number in range(shards):
        rows = [row(f"{number * size + each:09d}") for each in range(size)]
        for each in rows:
            if int(each["key"]) in failed:
                each |= {"status": "failed_to_download", "error_message": "HTTP Error 404: Not Found"}
        img2dataset_shard(folder, number, rows, **settings)
    return folder
