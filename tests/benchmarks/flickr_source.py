"""What the whole job says of real photographs, 30 % of whose captions are swapped:
PYTHONPATH=tests WINNOW_DATA=... python tests/benchmarks/flickr_source.py [SEEDS]

A source file, curate, then the gain with captions augmented, and both (two versions of each pair; budget and learners
are those of flickr.py), then encoders side by side, networks trained end to end as well. There is no guard: WINNOW_DATA
has recorded embeddings, and no CLIP that could look at a picture that was augmented.
"""

import json
import sys
import tempfile
from pathlib import Path

import flickr_photographs
import main_job
from rich.console import Console

from flows.console import encoders
from flows.console import gain as gains
from pipeline.settings import encoder
from pipeline.sources import loading
from training.studies import comparison, gain

SWAPPED = 0.3


def main(seeds, folder):
    spent = {"seeds": seeds, "steps": 300, "batch": 64, "augmented_views": 2, "augmentations": ["text", "both"]}
    with flickr_photographs.served() as host:
        toml, _ = flickr_photographs.source(folder, host, SWAPPED, **spent)
        main_job.run(toml, folder / "store")
    described, storage, console = loading.load(toml), main_job.storage_of(toml, folder / "store"), Console(width=160)
    measured = gain.measure(described, storage)
    console.print(gains.table(measured))
    print(
        json.dumps({name: measured[name] for name in ("counts", "test", "versions", "seconds")}, indent=1), flush=True
    )
    chosen = [flickr_photographs.mobilenet(), encoder.parse_encoder("hog"), encoder.parse_encoder("pixels")]
    console.print(encoders.table(comparison.compare(described, storage, chosen, comparison.Scope(finetuned=True))))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(int((sys.argv[1:] or ["10"])[0]), Path(scratch))
