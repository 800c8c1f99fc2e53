"""Where pairs come from: the tables `[pairs]` and `[demo]`."""

import codecs
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from pipeline.errors import SourceError
from pipeline.redact import redact
from pipeline.settings.fields import ExistingPath, Table
from pipeline.settings.locations import ADDRESS, format_of, list_files

Format = Literal["tsv", "csv", "parquet", "jsonl", "vqav2", "daquar"]

QUESTIONS = ("vqav2", "daquar")
"""Formats of data sets of questions, whose files have no columns to name."""


def _texts(location: object) -> object:
    if isinstance(location, str) or (isinstance(location, list | tuple) and all(isinstance(x, str) for x in location)):
        return location
    raise ValueError("write one text, or a list of texts")


def _location(location: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
    files = list_files(location, info.data.get("format"), info)
    return files[0] if len(files) == 1 else files


def _encoding(name: str) -> str:
    try:
        known = codecs.lookup(name)
        fits = known.incrementaldecoder(errors="replace").decode("url,\n".encode(known.name), final=True) == "url,\n"
    except (LookupError, ValueError, TypeError):
        fits = False
    if not fits or known.name in ("idna", "punycode", "unicode_escape", "raw-unicode-escape"):
        raise ValueError(
            f"{name!r} is no text encoding that Python knows; examples: gb18030, cp1252, shift_jis, utf-16"
        )
    return name


def _delimiter(text: str) -> str:
    if len(text) != 1 or text in '\r\n"\0':
        raise ValueError(f'{text!r} cannot delimit fields: write one character, such as ";" or "\\t"')
    return text


def _quote(text: str) -> str:
    if len(text) > 1 or text in ("\r", "\n", "\0"):
        raise ValueError(f'{text!r} cannot quote fields: write one character, or "" if nothing is quoted')
    return text


def _asked_columns(table: dict[str, Any]) -> dict[str, Any]:
    """The columns of a data set of questions. Raises ValueError for keys that it does not have, and those it needs."""
    named = {"columns", "url", "caption", "question", "answer", "extra"} & table.keys()
    if named - {"question", "answer"} and table.get("caption") != "question":
        raise ValueError(f"format = {table['format']} has columns of its own: remove {', '.join(sorted(named))}")
    if (table.get("annotations") is None) == (table["format"] == "vqav2"):
        raise ValueError("annotations is the second file of format = vqav2, which needs it; no other format has one")
    try:
        whole = str(table.get("pictures") or "")
        written = whole.format(image=1)
    except (KeyError, ValueError, IndexError):
        written = whole
    if written == whole:
        raise ValueError(
            'pictures is the address of a picture, with {image} for its number: "http://host/{image:012d}.jpg"'
        )
    return {"caption": "question", "extra": ("question", "answer")}


class Pairs(Table):
    """Where the (URL, caption) rows come from, and which columns mean what."""

    format: Format | None = Field(None, description="by the file's ending if unset")
    location: Annotated[str | tuple[str, ...], BeforeValidator(_texts), AfterValidator(_location)] = Field(
        description="a file, a folder or a glob (relative to this file), an http(s) address, or a list of these, which "
        "are read as one list, sorted; .gz is unpacked"
    )
    columns: tuple[str, ...] | None = Field(None, description="the columns of a TSV or CSV without a header line")
    url: str = "url"
    caption: str = "caption"
    question: str | None = Field(None, description="the column of questions: the caption is question and answer")
    answer: str | None = Field(
        None, description="the column of answers: a text, or a list where several people answered"
    )
    annotations: ExistingPath | None = Field(None, description="vqav2: the file of annotations; location has questions")
    pictures: str | None = Field(None, description="vqav2, daquar: a picture's address, with {image} for its number")
    extra: tuple[str, ...] = Field((), description="columns that travel along: labels, keys, answers")
    encoding: Annotated[str, AfterValidator(_encoding)] | None = Field(
        None, description="of a text list, as Python names it; by its byte order mark, or else UTF-8, if unset"
    )
    delimiter: Annotated[str, AfterValidator(_delimiter)] | None = Field(
        None, description="between the fields of a TSV or CSV; by the header line if unset"
    )
    quote: Annotated[str, AfterValidator(_quote)] | None = Field(
        None, description='around fields of a TSV or CSV; "" for none; by the format and the first lines if unset'
    )

    @model_validator(mode="before")
    @classmethod
    def _asked(cls, table: Any) -> Any:
        """Question and answer travel along, and the question is read as the caption."""
        if isinstance(table, dict) and table.get("format") in QUESTIONS:
            return {**table, "question": "question", "answer": "answer", **_asked_columns(table)}
        if not isinstance(table, dict) or not (table.get("question") or table.get("answer")):
            return table
        question, answer = table.get("question"), table.get("answer")
        if not (question and answer):
            raise ValueError("question and answer belong together: name the columns of both")
        if table.get("caption", question) != question:
            raise ValueError("the caption of a question is the question and its answer: remove caption")
        extra = table.get("extra", ())
        more = (
            tuple(each for each in extra if each not in (question, answer)) if isinstance(extra, list | tuple) else ()
        )
        return {**table, "caption": question, "extra": (question, answer, *more)}

    @property
    def files(self) -> tuple["Pairs", ...]:
        """These settings for each file or address of the list, in order."""
        if isinstance(self.location, str):
            return (self,)
        return tuple(self.model_copy(update={"location": each}) for each in self.location)

    @property
    def safe_location(self) -> str:
        """`location` without secrets, for messages."""
        if isinstance(self.location, str):
            return redact(self.location)
        return f"{redact(self.location[0])} and {len(self.location) - 1} more"

    @property
    def is_address(self) -> bool:
        """Whether the list, or a file of it, is behind an http(s) address."""
        return any(str(each.location).startswith(ADDRESS) for each in self.files)

    @property
    def file_format(self) -> str:
        """`format`, or else the format that the ending of the file means. Raises SourceError for an unknown ending."""
        first = str(self.files[0].location)  # a file may have a ? in its name
        known = self.format or format_of(urlsplit(first).path if self.is_address else first)
        if known is None:
            raise SourceError(f"{self.safe_location}: unknown ending; set format = tsv, csv, parquet or jsonl")
        return known


class Demo(Table):
    """The embedded source: scenes rendered on this machine and served over loopback HTTP with planted faults."""

    pairs: int = Field(2500, ge=50, le=1_000_000)
    test_images: int = Field(400, ge=50)
    seed: int = 7
    stream: Literal["pool", "calibration"] = Field("pool", description="two streams of one seed share no scene")
    port: int = Field(8377, ge=1024, le=65535)
