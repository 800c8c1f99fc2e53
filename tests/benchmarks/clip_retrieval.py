"""winnow beside clip-retrieval: python tests/benchmarks/clip_retrieval.py ENVIRONMENT [MODEL] [PAIRS] [REPEATS]

ENVIRONMENT is what clip_retrieval.sh made. Both tools score the same tars with the same random weights, in turn, and
loading is not counted. Prints pairs a second, the ratios, and how far the similarities are apart.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq

from pipeline import bench, download, engine, score, shards, synthetic
from pipeline.scorers.clip import ClipSpec

THEIRS = """
import sys, time
from clip_retrieval.clip_inference.main import main
model, out, workers, *tars = sys.argv[1:]
def run(tars, out):
    tars = "{" + ",".join(tars) + "}" if len(tars) > 1 else tars[0]
    main(input_dataset=tars, output_folder=out, input_format="webdataset", clip_model=model, use_jit=False,
         batch_size=64, num_prepro_workers=int(workers), wds_number_file_per_input_file=1000, output_partition_count=1)
run(tars[:1], out + "/first")  # loads the model, which is kept
started = time.perf_counter()
run(tars, out + "/all")
print("seconds", time.perf_counter() - started)
"""


def theirs(python, weights, model, tars, out):
    """Seconds, and the similarities in the order of the tars."""
    named = f"open_clip:{model}/{weights}"
    command = [python, "-c", THEIRS, named, str(out), "2", *map(str, tars)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds = float(done.stdout.rpartition("seconds ")[2])
    image, text = (np.load(out / f"all/{kind}_emb/{kind}_emb_0.npy").astype(np.float32) for kind in ("img", "text"))
    return seconds, (image * text).sum(axis=1)


def ours(source, storage, listed, precision, model):
    """Seconds, and the similarities in the order of the tars."""
    spec = ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{model}", "precision": precision})
    source = source.model_copy(update={"scorers": {"clip": spec}})
    work = score.make(source, storage)
    work.load("clip")
    started = time.perf_counter()
    for _, error in engine.run(lambda: work, listed):
        if error:
            raise error
    seconds = time.perf_counter() - started
    stage = score.stages(source, download.stage(source))["clip"]
    found = []
    for shard in listed:
        path = storage.fetch(stage.item(shard.number, ".parquet"))
        found.append(pq.read_table(path)["clip_similarity"].to_numpy())
        path.unlink()
    return seconds, np.concatenate(found)


def with_captions(source, storage, listed):
    """Put each picture's caption beside it, as clip-retrieval wants it; winnow passes it over. Gives the tars."""
    tars = []
    for shard in listed:
        tar = storage.fetch(download.stage(source).item(shard.number, ".tar"))
        rows = pq.read_table(storage.fetch(shard.key))
        members = []
        for (name, content), caption in zip(list(shards.read(tar)), rows["caption"].to_pylist(), strict=True):
            members += [(name, content), (name.replace(".jpg", ".txt"), caption.encode())]
        shards.write(tar, members)
        tars.append(tar)
    return tars


def main(environment, model="ViT-B-32", pairs="256", repeats="3"):
    python, count = str(Path(environment) / "bin/python"), int(pairs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, storage, listed = synthetic.source(folder, count, 224, -(-count // 2))
        tars = with_captions(source, storage, listed)
        weights = bench.random_model(model, folder / "model")
        rates = {"clip-retrieval": [], "float32": [], "bfloat16": []}
        for repeat in range(int(repeats)):
            file = weights / "open_clip_model.safetensors"
            seconds, expected = theirs(python, file, model, tars, folder / f"out{repeat}")
            rates["clip-retrieval"].append(count / seconds)
            for precision in ("float32", "bfloat16"):
                seconds, found = ours(source, storage, listed, precision, weights)
                rates[precision].append(count / seconds)
                apart = np.abs(found - expected).max()
                ratio = rates[precision][-1] / rates["clip-retrieval"][-1]
                print(f"{repeat}: {precision:>8} {ratio:.2f} times as fast, similarities {apart:.1e} apart", flush=True)
        for what, each in rates.items():
            ratios = [one / other for one, other in zip(each, rates["clip-retrieval"], strict=True)]
            print(f"{what:>14} {median(each):6.1f} pairs/s, {median(ratios):.2f} times clip-retrieval")


if __name__ == "__main__":
    main(*sys.argv[1:])
