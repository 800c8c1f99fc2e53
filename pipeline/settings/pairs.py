"""Where pairs come from: the tables `[pairs]` and `[demo]`."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from pipeline.errors import SourceError
from pipeline.redact import redact
from pipeline.settings.dialect import check_delimiter, check_encoding, check_quote
from pipeline.settings.fields import ExistingPath, Table
from pipeline.settings.locations import ADDRESS, format_of, list_files
from pipeline.settings.pictures import (
    HUB,
    LABEL,
    check_folder,
    check_keys,
    check_template,
    common_folder,
    find_captions,
    find_dataset,
    hub_cache,
)
from pipeline.settings.questions import with_questions
from pipeline.settings.shard_names import KEYS, list_tars

Format = Literal["tsv", "csv", "parquet", "arrow", "jsonl", "vqav2", "daquar"]


def _texts(location: object) -> object:
    if (
        location is None
        or isinstance(location, str)
        or (isinstance(location, list | tuple) and all(isinstance(x, str) for x in location))
    ):
        return location
    raise ValueError("write one text, or a list of texts")


def _several(location: object) -> object:
    return (location,) if isinstance(location, str) else _texts(location)


def _location(location: str | tuple[str, ...] | None, info: ValidationInfo) -> str | tuple[str, ...] | None:
    if location is None:
        return None
    files = list_files(location, info.data.get("format"), info)
    return files[0] if len(files) == 1 else files


def _shards(texts: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
    return None if texts is None else list_tars(texts, Path((info.context or {}).get("folder", Path())).resolve())


class Pairs(Table):
    """Where the (URL, caption) rows come from, and which columns mean what."""

    format: Format | None = Field(None, description="by the file's ending if unset")
    location: Annotated[str | tuple[str, ...] | None, BeforeValidator(_texts), AfterValidator(_location)] = Field(
        None,
        description="a file, a folder or a glob (relative to this file), an http(s) address, or a list of these, which "
        "are read as one list, sorted; .gz is unpacked",
    )
    shards: Annotated[tuple[str, ...] | None, BeforeValidator(_several), AfterValidator(_shards)] = Field(
        None,
        description="instead of location: tars of webdataset, by file, folder, glob or braces, or a list of these",
    )
    folder: Annotated[ExistingPath | None, AfterValidator(check_folder)] = Field(
        None, description="instead of location: a folder of pictures"
    )
    captions: Annotated[str | None, AfterValidator(find_captions)] = Field(
        None,
        description="the table of a folder's captions; its own captions.csv, or .txt or .json beside each, if unset",
    )
    template: Annotated[str, AfterValidator(check_template)] | None = Field(
        None, description="captions for a folder of class folders: {label} is the name of a picture's folder"
    )
    dataset: Annotated[str | None, AfterValidator(find_dataset)] = Field(
        None, description="instead of location: a folder of Hugging Face's datasets, or hf://ORGANISATION/NAME"
    )
    split: str | None = Field(None, description="of a dataset; needed if it has several")
    image: str | None = Field(
        None, description="the column of pictures on this machine: bytes, Hugging Face's images, or names of files"
    )
    symlinks: bool = Field(False, description="whether links may lead out of the folder of pictures")
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
    encoding: Annotated[str, AfterValidator(check_encoding)] | None = Field(
        None, description="of a text list, as Python names it; by its byte order mark, or else UTF-8, if unset"
    )
    delimiter: Annotated[str, AfterValidator(check_delimiter)] | None = Field(
        None, description="between the fields of a TSV or CSV; by the header line if unset"
    )
    quote: Annotated[str, AfterValidator(check_quote)] | None = Field(
        None, description='around fields of a TSV or CSV; "" for none; by the format and the first lines if unset'
    )

    _base: Path = PrivateAttr(Path())

    @model_validator(mode="wrap")
    @classmethod
    def _located(cls, table: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """The settings, with the folder that places are in, which the files that exist today do not tell."""
        if isinstance(table, dict):
            if table.keys() <= cls.model_fields.keys():  # else the unknown key is the fault
                check_keys(table)
            if table.get("folder") and table.get("template") and isinstance(table.get("extra", ()), list | tuple):
                table = {**table, "extra": tuple(dict.fromkeys((LABEL, *table.get("extra", ()))))}
            if table.get("shards") and isinstance(table.get("extra", ()), list | tuple):
                table = {**table, "extra": tuple(dict.fromkeys((*KEYS, *table.get("extra", ()))))}
        pairs = handler(table)
        if isinstance(table, dict):
            where = table.get("location") or table.get("shards")
            folder = Path((info.context or {}).get("folder", Path())).resolve()
            named = pairs.folder or (Path(pairs.dataset) if pairs.dataset else None)
            if pairs.shards and pairs.format:
                raise ValueError("shards are tars: remove format")
            pairs._base = hub_cache() if pairs.is_hub else named or common_folder(where, folder)
        return pairs

    @model_validator(mode="before")
    @classmethod
    def _asked(cls, table: Any) -> Any:
        """Question and answer travel along, and the question is read as the caption."""
        return with_questions(table) if isinstance(table, dict) else table

    @property
    def files(self) -> tuple["Pairs", ...]:
        """These settings for each file or address of the list, in order."""
        if not isinstance(self.location, tuple):
            return (self,)
        return tuple(self.model_copy(update={"location": each}) for each in self.location)

    @property
    def safe_location(self) -> str:
        """`location` without secrets, for messages."""
        files = self.location or self.shards
        if not isinstance(files, tuple):
            return redact(str(files or self.folder or self.dataset))
        return redact(files[0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")

    @property
    def is_address(self) -> bool:
        """Whether the list, or a file of it, is behind an http(s) address."""
        return any(str(each.location).startswith(ADDRESS) for each in self.files)

    @property
    def is_local(self) -> bool:
        """Whether the pictures are on this machine: each row then has a `place`."""
        return self.location is None or self.image is not None or self.dataset is not None

    @property
    def is_hub(self) -> bool:
        """Whether the pairs are a dataset of a hub."""
        return self.dataset is not None and self.dataset.startswith(HUB)

    @property
    def base(self) -> Path:
        """The absolute folder that places are relative to. Files that are added later do not change it."""
        return self._base

    @property
    def file_format(self) -> str:
        """`format`, or else the format that the ending of the file means. Raises SourceError for an unknown ending."""
        first = str(self.files[0].location)  # a file may have a ? in its name
        known = self.format or format_of(urlsplit(first).path if self.is_address else first)
        if known is None:
            raise SourceError(f"{self.safe_location}: unknown ending; set format = tsv, csv, parquet, arrow or jsonl")
        return known


class Demo(Table):
    """The embedded source: scenes rendered on this machine and served over loopback HTTP with planted faults."""

    pairs: int = Field(2500, ge=50, le=1_000_000)
    test_images: int = Field(400, ge=50)
    seed: int = 7
    stream: Literal["pool", "calibration"] = Field("pool", description="two streams of one seed share no scene")
    port: int = Field(8377, ge=1024, le=65535)
