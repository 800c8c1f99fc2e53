"""A tiny source behind a loopback server, scored without a model: what the tests of flows and commands run."""

import io
import json

import numpy as np
from PIL import Image

COUNT, GONE = 30, 3


def picture(number):
    noise = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).resize((96, 80)).save(data, "JPEG")
    return data.getvalue()


def described(folder, served, count=COUNT, name="tiny", sql="captions_words > 2", more="", timeout=10):
    """The source file. Its list has `count` pictures, `GONE` that do not exist, and two repeated lines."""
    pictures, address = served
    for number in range(count):
        (pictures / f"{number}.jpg").write_bytes(picture(number))
    lines = [f"a thing of number {n}\t{address}/{n}.jpg" for n in range(count)]
    lines += [f"gone is number {n}\t{address}/gone-{n}.jpg" for n in range(GONE)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.tsv").write_text("\n".join([*lines, *lines[:2]]) + "\n")
    toml = folder / f"{name}.toml"
    toml.write_text(
        f"""
        {more}
        [pairs]
        location = "{name}.tsv"
        columns = ["caption", "url"]
        [download]
        shard_size = 10
        timeout = {timeout}
        allow_hosts = ["{address.removeprefix("http://")}"]
        [scorers.pixels]
        kind = "pixels"
        [scorers.captions]
        kind = "captions"
        [[filters]]
        name = "chosen"
        sql = {json.dumps(sql)}
        """
    )
    return toml
