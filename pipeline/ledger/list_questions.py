"""Lists of two data sets of questions about pictures, in their own files: VQAv2's JSON, and DAQUAR's text."""

import gzip
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import SourceError
from pipeline.settings.pairs import Pairs
from pipeline.store.parquet import ROW_GROUP

_DAQUAR = re.compile(r"(?P<question>.*?)\s+in (?:the )?image\s*(?P<image>\d+)\s*\??\s*$", re.IGNORECASE)
"""A line of DAQUAR that asks: "what is on the table in the image3 ?"."""


def question_batches(path: Path, pairs: Pairs) -> Iterator[pa.RecordBatch]:
    """The batches of a list: url, caption (the question), question, and answer, a JSON list for several people.

    The URL of a picture is `pairs.pictures` with its number. Raises SourceError for a file that is not of that format.
    """
    rows = _vqav2(path, pairs) if pairs.file_format == "vqav2" else _daquar(path, pairs)
    names = ["url", "caption", "question", "answer"]
    while block := list(islice(rows, ROW_GROUP)):
        whole = [(_url(pairs, image), asked, asked, answer) for image, asked, answer in block]
        columns = list(zip(*whole, strict=True))
        yield pa.record_batch([pa.array(column, pa.string()) for column in columns], names=names)


def _vqav2(path: Path, pairs: Pairs) -> Iterator[tuple[int, str, str]]:
    """Number of the picture, question, and the JSON list of answers. A question without an annotation has none."""
    assert pairs.annotations is not None
    questions = _json(path, "questions", pairs)
    annotated = {each["question_id"]: each for each in _json(pairs.annotations, "annotations", pairs)}
    for each in questions:
        answers = annotated.get(each["question_id"], {}).get("answers", [])
        yield each["image_id"], each["question"], json.dumps([str(one["answer"]) for one in answers])


def _daquar(path: Path, pairs: Pairs) -> Iterator[tuple[int, str, str]]:
    """Number of the picture, question and answer: two lines each, the question first."""
    lines = [line for line in _text(path).splitlines() if line.strip()]
    for number, (asked, answer) in enumerate(zip(lines[::2], lines[1::2], strict=False)):
        found = _DAQUAR.fullmatch(asked)
        if found is None:
            raise SourceError(
                f"{pairs.safe_location}, question {number + 1}: {asked[:80]!r} names no picture: a question of DAQUAR "
                "ends in the image1 ?"
            )
        yield int(found["image"]), found["question"].strip(), answer.strip()
    if len(lines) % 2:
        raise SourceError(f"{pairs.safe_location}: the last question has no answer: DAQUAR has two lines a question")


def _json(path: Path, key: str, pairs: Pairs) -> list[dict[str, Any]]:
    try:
        found = json.loads(_text(path))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{pairs.safe_location}: {path.name} has no list {key!r}: is it VQAv2's own file?") from error
    if not isinstance(found, list):
        raise SourceError(f"{pairs.safe_location}: {key!r} in {path.name} is no list: is it VQAv2's own file?")
    return found


def _text(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8", "replace")


def _url(pairs: Pairs, image: int) -> str:
    assert pairs.pictures is not None
    return pairs.pictures.format(image=image)
