"""Does curation help a model that answers questions? WINNOW_DATA=... python tests/benchmarks/vqa_curation.py FOLDER

The training questions of daquar and daquar_more, whose photographs `winnow curate` fetches over loopback HTTP, with two
filters: questions with one answer only, and photographs that are not among the least sharp. `winnow train` measures a
model on all of them, on the kept ones and on a random subset of that size. FOLDER keeps the source and all results.
"""

import subprocess
import sys
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import Quiet
from vqa import DATA, IMAGES

PORT = 8397
ADDRESS = f"http://127.0.0.1:{PORT}"
MODEL = f"""
image = "timm:tf_efficientnet_lite0@{IMAGES["lite0"]["weights"]}"
text = "transformers:{DATA / "weights/minilm_l6_v2"}"
pooling = "mean"
head = "concatenation"
decay = 0.3
dropout = 0.5
"""
SOURCE = f"""
[pairs]
location = "questions.parquet"
question = "question"
answer = "answer"
[download]
allow_hosts = ["127.0.0.1:{PORT}"]
[scorers.pixels]
kind = "pixels"
[[filters]]
name = "one-answer"
sql = "answer NOT LIKE '%,%'"
[[filters]]
name = "sharp"
sql = "pixels_sharpness >= 150"
[vqa.small]
{MODEL}
[task]
kind = "vqa"
[task.test]
location = "test.parquet"
folder = "{DATA}"
[task.learners.small]
vqa = "small"
[task.budget]
seeds = 5
steps = 372
batch = 64
augmented_views = 1
"""


def write_source(folder):
    """questions.parquet with addresses, test.parquet with paths, and the source file."""
    rows = {"train": [], "test": []}
    for name in ("daquar", "daquar_more"):
        for row in pq.read_table(DATA / name / "qa.parquet").to_pylist():
            path = f"{name}/images/{row['image']}"
            asked = {"question": row["question"], "answer": row["answer"]}
            if row["split"] in rows:
                place = {"url": f"{ADDRESS}/{path}"} if row["split"] == "train" else {"image": path}
                rows[row["split"]].append(place | asked)
    pq.write_table(pa.Table.from_pylist(rows["train"]), folder / "questions.parquet")
    pq.write_table(pa.Table.from_pylist(rows["test"]), folder / "test.parquet")
    (folder / "daquar.toml").write_text(SOURCE)


def winnow(folder, *words):
    """Run a command as a user does, and print what it takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "flows", *words, "--root", "data"], cwd=folder, check=True)
    print(f"winnow {' '.join(words)}: {time.perf_counter() - started:,.0f} s", flush=True)


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    write_source(folder)
    with ThreadingHTTPServer(("127.0.0.1", PORT), partial(Quiet, directory=str(DATA))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        winnow(folder, "curate", "daquar.toml")
        server.shutdown()
    winnow(folder, "train", "daquar.toml")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
