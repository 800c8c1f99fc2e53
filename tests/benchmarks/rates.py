"""What `winnow plan` needs of a machine beside `winnow bench`: `WINNOW_DATA=... python tests/benchmarks/rates.py`.

It gives the captions and URLs of CC3M's validation list photographs of Flickr8k, scores and publishes them, and prints
bytes of a row by kind of object, seconds of one core by scorer, and seconds of the list and of publishing.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
from published_sources import put, put_table

from pipeline.download import download
from pipeline.download.job import COLUMNS
from pipeline.ledger import ingest
from pipeline.manifest import publish
from pipeline.scoring.plan import Plan
from pipeline.scoring.run import Scoring
from pipeline.sources.source import Source
from pipeline.store import tarfiles
from pipeline.store.storage import Storage

SCORED = 2
"""Shards whose pictures are scored. The others have copies of their scores, so that publishing has more rows."""


def main() -> None:
    data = Path(os.environ["WINNOW_DATA"])
    photographs = [path.read_bytes() for path in sorted((data / "flickr8k" / "images").glob("*.jpg"))[:1000]]
    with tempfile.TemporaryDirectory() as folder:
        described = Source.model_validate(
            {
                "name": "rates",
                "pairs": {"location": str(data / "urls" / "cc3m_val.tsv.gz"), "columns": ["caption", "url"]},
                "scorers": {"pixels": {"kind": "pixels"}, "captions": {"kind": "captions"}},
                "recipe": "everything",
            }
        )
        storage = Storage(Path(folder) / "rates")
        started = time.perf_counter()
        ledger = ingest.update(described, storage)
        seconds = {"list": time.perf_counter() - started}
        plan = Plan.of(described)
        stage = download.stage(described)
        for shard in ledger.shards:
            members, rows = table(pq.read_table(storage.fetch(shard.key)), photographs)
            put(storage, stage.item(shard.number, ".tar"), lambda path, members=members: tarfiles.write(path, members))
            put_table(storage, stage.item(shard.number, ".parquet"), rows)
        scoring = Scoring(plan, storage)
        spent = {}
        for name in described.scorers:
            alone = Scoring(Plan.of(described.model_copy(update={"scorers": {name: described.scorers[name]}})), storage)
            alone(ledger.shards[0])  # loads
            started = time.process_time()
            alone(ledger.shards[1])
            spent[name] = (time.process_time() - started) / ledger.shards[1].rows
        for shard in ledger.shards[SCORED:]:
            scoring(shard)
        started = time.perf_counter()
        publish.publish(plan, storage, ledger, {})
        seconds["publish"] = time.perf_counter() - started
        total = {}
        for pattern in (
            "pairs/*",
            "shards-*/*.parquet",
            "rows/*.parquet",
            "verdicts/*",
            *(f"{each.folder}/*.parquet" for each in plan.scores.values()),
        ):
            total[pattern] = round(sum(map(storage.size, storage.find(pattern))) / ledger.rows, 1)
        tars = sum(map(storage.size, storage.find("shards-*/*.tar")))
        picture = sum(map(len, photographs)) / len(photographs)
    print(
        json.dumps(
            {
                "rows": ledger.rows,
                "bytes_per_row": total,
                "tar_bytes_beside_a_picture": round(tars / ledger.rows - picture),
                "core_seconds_per_pair": {name: round(each, 5) for name, each in spent.items()},
                "seconds_per_million": {name: round(1e6 * each / ledger.rows, 1) for name, each in seconds.items()},
                "load": os.getloadavg()[0],
            },
            indent=1,
        )
    )


def table(rows: pa.Table, photographs: list[bytes]) -> tuple[list[tuple[str, bytes]], pa.Table]:
    pictures = [photographs[number % len(photographs)] for number in rows["url_number"].to_pylist()]
    members = [tarfiles.member_name(number) for number in rows["url_number"].to_pylist()]
    made = {
        "uid": rows["uid"],
        "status": ["ok"] * len(rows),
        "cause": [None] * len(rows),
        "error": [None] * len(rows),
        "sha256": [hashlib.sha256(url.encode()).hexdigest() for url in rows["url"].to_pylist()],
        "width": [224] * len(rows),
        "height": [224] * len(rows),
        "bytes": list(map(len, pictures)),
        "member": members,
    }
    return list(dict(zip(members, pictures, strict=True)).items()), pa.table(made, schema=COLUMNS)


if __name__ == "__main__":
    main()
