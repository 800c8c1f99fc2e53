"""Lists a folder of many files: python tests/benchmarks/folders.py COUNT [FOLDER]

With `names COUNT` only the names of so many pictures are sorted, without files; with a .txt for each; and without nine
in ten, which a table names.

In a new process each: `template`, COUNT files without content in one class folder, and `beside`, COUNT pictures with a
.txt each. Prints rows a second and the peak of memory in MiB. FOLDER is where the files are made; a tmpfs is best
(/dev/shm).
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.files.walk import BLOCK
from pipeline.ledger import lists
from pipeline.ledger.folder_index import indexed
from pipeline.settings.pairs import Pairs


def make(folder, count):
    (folder / "template/class").mkdir(parents=True)
    (folder / "beside").mkdir()
    for number in range(count):
        name = f"{number * 7919 % count:08d}"  # not in their order
        (folder / "template/class" / f"{name}.jpg").touch()
        (folder / "beside" / f"{name}.jpg").touch()
        (folder / "beside" / f"{name}.txt").write_text("a caption")


def read(folder, way):
    pairs = Pairs.model_validate(
        {"folder": folder / way} | ({"template": "a {label}"} if way == "template" else {}),
    )
    before = peak()
    with tempfile.TemporaryDirectory() as scratch:
        started, rows, last = time.perf_counter(), 0, ""
        for batch in lists.read(pairs, Path(scratch)):
            rows += len(batch)
            places = batch.column("place").to_pylist()
            assert places == sorted(places)
            assert last < places[0]
            last = places[-1]
        seconds = time.perf_counter() - started
    print(f"{way}: {rows:,} rows, {rows / seconds:,.0f} a second, peak {peak():.0f} MiB, before it {before:.0f}")


def names(count, endings):
    for start in range(0, count, BLOCK):
        numbers = range(start, min(count, start + BLOCK))
        yield [f"class/{number * 7919 % count:08d}.{ending}" for number in numbers for ending in endings]


def sort(count, way):
    before, started = peak(), time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        table = Path(scratch, "named.parquet")
        with pq.ParquetWriter(table, pa.schema({"place": pa.string()})) as writer:
            for block in names(count if way == "table" else 0, ["jpg"]):
                writer.write_batch(pa.record_batch([[name for name in block if name[-5] != "0"]], names=["place"]))
        endings = ["jpg", "txt"] if way == "beside" else ["jpg"]
        with indexed(Path("class"), names(count, endings), Path(scratch)) as index:
            reading = {"template": index.places, "beside": index.with_captions}
            rows = sum(map(len, index.places_without(table) if way == "table" else reading[way]()))
    seconds = time.perf_counter() - started
    print(f"names, {way}: {rows:,} rows, {seconds:.0f} s, peak {peak():.0f} MiB, before it {before:.0f}")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1] == "read":
        read(Path(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "sort":
        sort(int(sys.argv[2]), sys.argv[3])
    elif sys.argv[1] == "names":
        for way in ("template", "beside", "table"):
            subprocess.run([sys.executable, __file__, "sort", sys.argv[2], way], check=True)
    else:
        with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as made:
            make(Path(made), int(sys.argv[1]))
            for way in ("template", "beside"):
                subprocess.run([sys.executable, __file__, "read", made, way], check=True)
