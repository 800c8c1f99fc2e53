"""Small CLIPs on real photographs: WINNOW_DATA=... python tests/benchmarks/small_clips.py FOLDER [SWEEP ...]

Pairs: flickr8k_more's training photographs with five captions each, fetched over HTTP on loopback by `winnow curate`.
Gallery: its 1,000 test photographs with 5,000 captions. `winnow fit` makes one model, `winnow sweep` trains all others,
and a Markdown table shows every setting. Settings are chosen by the validation loss of training photographs, never by
the test. FOLDER keeps the source and all results: what has run is not run again.
"""

import json
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pyarrow.parquet as pq
import sweeps
from conftest import Quiet
from sweeps import HEAD, LITE0, MOBILENET, TEXT

PORT = 8395
TOWERS = f'[{LITE0}, {MOBILENET}, "timm:resnet10t@random"]'
SOURCE = f"""{HEAD}
[download]
allow_hosts = ["127.0.0.1:{PORT}"]

[models.small]
preset = "small-clip"
image = {LITE0}
text = {TEXT}
dropout = 0.0
[sweeps.first]
model = "small"
[sweeps.first.grid]
head_rate = [1e-3]
[sweeps.short]
model = "small"
seeds = 1
steps = 300
[sweeps.short.grid]
dropout = [0.0, 0.3, 0.6]
weight_decay = [1e-2, 1.0]
head_rate = [1e-3, 3e-3]
[sweeps.long]
model = "small"
seeds = 1
[sweeps.long.grid]
dropout = [0.6, 0.8]
weight_decay = [1e-2, 1.0]
[sweeps.best]
model = "small"
[sweeps.best.grid]
dropout = [0.6]
weight_decay = [1.0]
[sweeps.second]
model = "small"
steps = 300
[sweeps.second.grid]
image = [{MOBILENET}]
dropout = [0.3]
weight_decay = [1.0]
[sweeps.hard]
model = "small"
steps = 300
[sweeps.hard.grid]
pruning = ["none", "hard"]
masking = [0.9]
dropout = [0.3]
head_rate = [3e-3]
[sweeps.heads]
model = "small"
seeds = 1
[sweeps.heads.grid]
objective = ["softmax", "sigmoid"]
head = ["linear", "residual"]
dim = [256, 512]
[sweeps.finetuned]
model = "small"
seeds = 1
[sweeps.finetuned.grid]
text_blocks = [1, 2]
text_rate = [1e-4]
precision = ["bfloat16"]

[models.study]
preset = "small-clip-study"
image = {LITE0}
text = {TEXT}
image_size = 96
context = 20
[models.study_frozen]
preset = "small-clip-study"
image = {LITE0}
text = {TEXT}
pooling = "mean"
image_size = 96
context = 32
image_blocks = 0
text_blocks = 0
batch_norm = "eval"
[models.works]
preset = "small-clip"
image = {LITE0}
text = {TEXT}
image_size = 96
dropout = 0.0
[sweeps.study]
model = "study"
seeds = 1
steps = 100
[sweeps.study.grid]
image = {TOWERS}
[sweeps.study_frozen]
model = "study_frozen"
steps = 100
[sweeps.study_frozen.grid]
image = {TOWERS}
[sweeps.works]
model = "works"
steps = 100
[sweeps.works.grid]
image = {TOWERS}
batch = [16, 256]
"""
NAMES = ("first", "short", "long", "best", "second", "hard", "heads", "finetuned", "study", "study_frozen", "works")


def write_source(folder):
    lines = (
        f"{' '.join(each['caption'].split())}\thttp://127.0.0.1:{PORT}/{each['image']}"
        for each in sweeps.photographs("train").to_pylist()
    )
    (folder / "list.tsv").write_text("\n".join(lines) + "\n")
    pq.write_table(sweeps.photographs("test"), folder / "test.parquet")
    (folder / "flickr.toml").write_text(SOURCE)


def winnow(folder, *words):
    """Run a command as a user does, and print what it takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "flows", *words, "--root", "data"], cwd=folder, check=True)
    print(f"winnow {' '.join(words)}: {time.perf_counter() - started:,.0f} s", flush=True)


def row(sweep, cell):
    """A line of the table: what was varied, size, cost, losses, and ranks with the interval of Rank@1."""
    varied = ", ".join(f"{name} {value}" for name, value in {**cell["values"], **cell["tuned"]}.items())
    ways = []
    for each in cell["directions"]:
        first, *more = each["recalls"]
        recalls = "/".join(f"{at['value']:.3f}"[1:] for at in (first, *more))
        spread = f"[{first['low']:.3f}, {first['high']:.3f}]"
        ways.append(f"{recalls} {spread} x{first['times_chance']:.0f}, median {each['median']['value']:.0f}")
    seen = cell["steps"] * cell["batch"]
    size = f"{cell['parameters'] / 1e6:.1f} M | {cell['flops'] / 1e9:.2f}"
    cost = f"{size} | {cell['steps']:,} x {cell['batch']} | {cell['seconds']:.0f} | {seen / cell['seconds']:,.0f}"
    losses = f"{cell['train_loss']:.2f} / {cell['validation_loss']:.2f}"
    return f"| {sweep}: {varied} | {cost} | {losses} | {' | '.join(ways)} |"


def report(folder):
    """One Markdown table of all sweeps that have run."""
    columns = ("sweep, setting", "parameters", "GFLOP a picture", "steps x batch", "s", "images/s")
    columns += ("train / validation loss", "text to image R@1/5/10", "image to text")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_bytes())
        if path.stem == found["name"]:
            print(*(row(found["name"], cell) for cell in found["cells"]), sep="\n")


def main(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    write_source(folder)
    with ThreadingHTTPServer(("127.0.0.1", PORT), partial(Quiet, directory=str(sweeps.PACK / "images"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        winnow(folder, "curate", "flickr.toml")
        server.shutdown()
    winnow(folder, "fit", "flickr.toml", "small")
    for name in names or NAMES:
        winnow(folder, "sweep", "flickr.toml", name)
    report(folder / "data" / "flickr" / "sweeps")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
