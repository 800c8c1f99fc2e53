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

from pipeline.bench import synthetic, weights
from pipeline.download import download
from pipeline.engine import local
from pipeline.scorers.clip import ClipSpec
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.store import tarfiles

THEIRS = """
import sys, time
from clip_retrieval.clip_inference.main import main
model, out, workers, *tars = sys.argv[1:]
def run(tars, out):
    main(input_dataset="{" + ",".join(tars) + "}", output_folder=out, input_format="webdataset", clip_model=model,
         use_jit=False, batch_size=64, num_prepro_workers=int(workers), wds_number_file_per_input_file=1000,
         output_partition_count=1)
run(tars[:2], out + "/first")  # loads the model, which is kept; a worker without a tar is an error
started = time.perf_counter()
run(tars[2:], out + "/all")
print("seconds", time.perf_counter() - started)
"""


def theirs(python, weights, model, tars, out):
    """Seconds, and the similarity of each caption. The first two tars only warm it up."""
    named = f"open_clip:{model}/{weights}"
    command = [python, "-c", THEIRS, named, str(out), "2", *map(str, tars)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds = float(done.stdout.rpartition("seconds ")[2])
    image, text = (np.load(out / f"all/{kind}_emb/{kind}_emb_0.npy").astype(np.float32) for kind in ("img", "text"))
    captions = pq.read_table(out / "all/metadata/metadata_0.parquet")["caption"].to_pylist()  # workers took turns
    return seconds, dict(zip(captions, (image * text).sum(axis=1), strict=True))


def ours(source, storage, listed, precision, model):
    """Seconds, and the similarity of each caption."""
    spec = ClipSpec.model_validate({"kind": "clip", "model": f"local-dir:{model}", "precision": precision})
    source = source.model_copy(update={"scorers": {"clip": spec}})
    work = Scoring(Plan.of(source), storage)
    work.load("clip")
    started = time.perf_counter()
    for _, error in local.run(lambda: work, listed):
        if error:
            raise error
    seconds = time.perf_counter() - started
    stage = Plan.of(source).scores["clip"]
    found = {}
    for shard in listed:
        path = storage.fetch(stage.item(shard.number, ".parquet"))
        captions = pq.read_table(storage.fetch(shard.key))["caption"].to_pylist()
        found |= zip(captions, pq.read_table(path)["clip_similarity"].to_numpy(), strict=True)
        path.unlink()
    return seconds, found


def with_captions(source, storage, listed):
    """Put captions beside the pictures, as clip-retrieval wants them; winnow passes them over.

    Gives two tars of one pair, and then those of all pairs.
    """
    tars, first = [], storage.root.parent
    for shard in listed:
        tar = storage.fetch(download.stage(source).item(shard.number, ".tar"))
        rows = pq.read_table(storage.fetch(shard.key))
        members = []
        for (name, content), caption in zip(list(tarfiles.read(tar)), rows["caption"].to_pylist(), strict=True):
            members += [(name, content), (name.replace(".jpg", ".txt"), caption.encode())]
        tarfiles.write(tar, members)
        tars.append(tar)
        tarfiles.write(first / tar.name, members[:2])
    return [first / tar.name for tar in tars] + tars


def main(environment, model="ViT-B-32", pairs="256", repeats="3"):
    python, count = str(Path(environment) / "bin/python"), int(pairs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, storage, listed = synthetic.source(folder, count, 224, -(-count // 2))
        tars = with_captions(source, storage, listed)
        model_folder = weights.random_model(model, folder / "model")
        rates = {"clip-retrieval": [], "float32": [], "bfloat16": []}
        for repeat in range(int(repeats)):
            file = model_folder / "open_clip_model.safetensors"
            seconds, expected = theirs(python, file, model, tars, folder / f"out{repeat}")
            rates["clip-retrieval"].append(count / seconds)
            for precision in ("float32", "bfloat16"):
                seconds, found = ours(source, storage, listed, precision, model_folder)
                rates[precision].append(count / seconds)
                apart = max(abs(found[caption] - expected[caption]) for caption in expected | found)
                ratio = rates[precision][-1] / rates["clip-retrieval"][-1]
                print(f"{repeat}: {precision:>8} {ratio:.2f} times as fast, similarities {apart:.1e} apart", flush=True)
        for what, each in rates.items():
            ratios = [one / other for one, other in zip(each, rates["clip-retrieval"], strict=True)]
            print(f"{what:>14} {median(each):6.1f} pairs/s, {median(ratios):.2f} times clip-retrieval")


if __name__ == "__main__":
    main(*sys.argv[1:])
