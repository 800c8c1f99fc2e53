"""The formats of an export: webdataset tars, Parquet for `datasets`, a CSV for open_clip, uids, embeddings."""

from collections.abc import Mapping

from pipeline.export import lists, parquet, subset, tars, vectors
from pipeline.export.format import Format, Records
from pipeline.schema import SOURCE_UID

_PARQUET = "application/x-parquet"

FORMATS: Mapping[str, Format] = {
    "webdataset": Format(
        tars.names,
        tars.write,
        files="Tars of `UID.jpg`, `UID.txt` (the caption) and `UID.json` (all columns); beside each a Parquet file of "
        "its columns, as img2dataset has it; `sizes.json`, the number of pairs of each tar.",
        load="import glob\n\nimport webdataset\n\n"
        'tars = sorted(glob.glob("DIR/[0-9]*.tar"))\n'
        'pairs = webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("jpg", "txt", "json")\n',
        stale=("[0-9]*.tar", "[0-9]*.parquet"),
        end=tars.end,
        data="[0-9]*.tar",
        columns=tars.columns,
        meanings={tars.KEY: "names the sample of the tar: the uid, and -1, -2 and so on for further copies of a pair"},
        features=tars.features,
        records=Records("[0-9]*.parquet", _PARQUET),
    ),
    "datasets": Format(
        parquet.names,
        parquet.write,
        files="Parquet files with the picture in `image`, the caption in `caption`, and all columns.",
        load='from datasets import load_dataset\n\npairs = load_dataset("DIR", split="train")\n',
        stale=("data/train-*.parquet",),
        data="data/train-*-of-{pieces:05d}.parquet",
        columns=parquet.columns,
        meanings={parquet.IMAGE: "the picture as it is stored: a JPEG"},
        records=Records("data/train-*-of-{pieces:05d}.parquet", _PARQUET, parquet.IMAGE),
    ),
    "csv": Format(
        lists.names,
        lists.write,
        files="`train.csv`, separated by tabs, with the absolute paths of the pictures in `images/`.",
        load='import pandas\n\npairs = pandas.read_csv("DIR/train.csv", sep="\\t")\n',
        stale=("images/*",),
        end=lists.end,
        data=lists.LIST,
        settings={"sep": lists.SEPARATOR},
        repeats="together",
        columns=lists.columns,
        meanings=dict(zip(lists.COLUMNS.names, ("the absolute path of the picture", "the caption"), strict=False)),
        features=lists.features,
        records=Records(lists.LIST, "text/tab-separated-values"),
    ),
    "uids": Format(
        subset.names,
        subset.write,
        files='`uids.npy`: a sorted array of dtype "u8,u8", the subset file of DataComp\'s resharder. They are those '
        "of the source's own data if its pairs have such (`source_uid`), else winnow's.",
        load='import numpy\n\nuids = numpy.load("DIR/uids.npy", mmap_mode="r")\n'
        'first = f"{uids[0][0]:016x}{uids[0][1]:016x}"\n',
        stale=(),
        columns=lambda rows: rows.empty_table().select([]).schema,
        piece=None,
        needs=("uid", SOURCE_UID),
        repeats="together",
    ),
    "embeddings": Format(
        vectors.names,
        vectors.write,
        files="Embeddings in clip-retrieval's layout, float16 and of length 1: `img_emb/` of pictures, `text_emb/` of "
        "captions, `metadata/` with the columns, aligned by row.",
        load="import numpy\nimport pandas\n\n"
        'pictures = numpy.load("DIR/img_emb/img_emb_{first}.npy", mmap_mode="r")\n'
        'pairs = pandas.read_parquet("DIR/metadata/metadata_{first}.parquet")  # row i is of pictures[i]\n',
        stale=("img_emb/*", "text_emb/*", "metadata/*"),
        data="metadata/*.parquet",
        columns=vectors.columns,
        meanings={vectors.PATH: "names the picture: the uid", vectors.TIMES: "how often the recipe keeps the pair"},
        records=Records("metadata/*.parquet", _PARQUET),
        piece=vectors.PIECE,
        repeats="once",
    ),
}
"""By name. DIR in `load` is the folder."""
