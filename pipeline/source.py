"""One `data_manifests/*.toml`, read and checked before anything runs."""

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, Field, ValidationError, ValidationInfo, model_validator

from filters import catalog
from filters.core import Distinct, Filter, Recipe
from pipeline.errors import SourceError, nearest
from pipeline.score import Spec
from pipeline.scorers import AnySpec, decoders
from pipeline.scorers.duplicates import DuplicatesSpec
from pipeline.scorers.leaks import LeaksSpec
from pipeline.scorers.semantic import SemanticSpec
from pipeline.secrets import hidden
from pipeline.settings import ExistingPath, Table, existing
from pipeline.task import Task

MADE = pa.schema(
    {
        "uid": pa.string(),
        "url": pa.string(),
        "caption": pa.string(),
        "status": pa.string(),  # ok, failed or quarantined
        "cause": pa.string(),  # why it failed, one word: http_404, timeout, opt_out, undecodable ...; NULL where ok
        "error": pa.string(),  # the same in the words of whatever said so
        "sha256": pa.string(),  # of the bytes that were fetched
        "width": pa.int32(),  # as fetched, after EXIF orientation
        "height": pa.int32(),
        "bytes": pa.int64(),  # as fetched
        "shard": pa.int32(),
        "member": pa.string(),  # of the shard's tar; NULL where there is no picture
    }
)
"""Columns of `rows` that winnow makes itself."""

ORIGIN = "origin"
"""The column of a union's rows that names the source each comes from. `source` is, in SQL, whose rows they are now."""

RESERVED = frozenset(MADE.names) | {"entry", "url_number", "kept", "dropped_by", "unknown", "source", ORIGIN}
"""Names that no extra column may take."""


def _located(location: str, info: ValidationInfo) -> str:
    return location if location.startswith(("http://", "https://")) else str(existing(Path(location), info))


class Pairs(Table):
    """Where the (URL, caption) rows come from, and which columns mean what."""

    location: Annotated[str, AfterValidator(_located)] = Field(
        description="a file (relative to this one) or an http(s) address; .gz is unpacked"
    )
    format: Literal["tsv", "csv", "parquet", "jsonl"] | None = Field(None, description="by the file's ending if unset")
    columns: tuple[str, ...] | None = Field(None, description="the columns of a TSV or CSV without a header line")
    url: str = "url"
    caption: str = "caption"
    extra: tuple[str, ...] = Field((), description="columns that travel along: labels, keys, answers")

    @property
    def shown(self) -> str:
        """`location` as a message may have it."""
        return hidden(self.location)

    @property
    def kind(self) -> str:
        """The format, as said or by the ending. Raises SourceError if neither tells."""
        if self.format:
            return self.format
        name = urlsplit(self.location).path.removesuffix(".gz")
        ending = name.rpartition(".")[2].lower()
        kinds = {"tsv": "tsv", "csv": "csv", "parquet": "parquet", "jsonl": "jsonl", "ndjson": "jsonl"}
        if ending not in kinds:
            raise SourceError(
                f"{self.shown}: no format is known for this ending; set format = tsv, csv, parquet or jsonl"
            )
        return kinds[ending]


class Demo(Table):
    """The embedded source: scenes rendered on this machine and served over HTTP on loopback, badly."""

    pairs: int = Field(2500, ge=50, le=1_000_000)
    test_images: int = Field(400, ge=50)
    seed: int = 7
    stream: Literal["pool", "calibration"] = Field("pool", description="two streams of one seed share no scene")
    port: int = Field(8377, ge=1024, le=65535)


OPT_OUTS: tuple[Literal["noai", "noimageai", "noindex", "noimageindex"], ...] = (
    "noai",
    "noimageai",
    "noindex",
    "noimageindex",
)
"""X-Robots-Tag directives that are honoured unless a source says otherwise: img2dataset's."""


class Download(Table):
    """How pictures are fetched, and how much of the network's word is believed."""

    shard_size: int = Field(1000, ge=1, le=100_000, description="pairs in a shard")
    image_size: int = Field(
        256, ge=32, le=4096, description="shorter side of the stored JPEG; smaller pictures are kept as they are"
    )
    quality: int = Field(95, ge=50, le=100, description="of the stored JPEG")
    threads: int = Field(32, ge=1, le=512)
    timeout: float = Field(10, gt=0, description="seconds for one whole request, redirects included")
    retries: int = Field(2, ge=0, le=10, description="for 429, 5xx, resets and DNS; never for 404 or an opt-out")
    max_bytes: int = Field(20_000_000, ge=1000, description="of one body")
    max_pixels: int = Field(50_000_000, ge=1000, description="by the header, before decoding")
    shard_seconds: float = Field(900, gt=0, description="a shard that takes longer is stopped and quarantined")
    allow_hosts: tuple[str, ...] = Field((), description="host:port that may be a private address")
    per_host: int = Field(16, ge=1, le=512, description="requests at once to one host")
    robots: tuple[Literal["robots.txt", "noai", "noimageai", "noindex", "noimageindex", "none"], ...] = Field(
        OPT_OUTS, description="of a site's wishes those that are honoured: its robots.txt, words of X-Robots-Tag"
    )
    user_agent: str = Field("winnow/0.1 (image-text curation)", pattern=r"^[\x20-\x7e]+$")
    contact: str | None = Field(
        None, pattern=r"^[\x21-\x7e]+$", description="an address or page at which site owners reach you"
    )

    @property
    def agent(self) -> str:
        """The User-Agent header."""
        return f"{self.user_agent}; +{self.contact}" if self.contact else self.user_agent


class FilterRow(Table):
    """A filter of the source's own."""

    name: str
    sql: str
    why: str = ""
    catches: tuple[str, ...] = Field((), description="labels of the pairs that it is there to drop, for calibration")


class Calibration(Table):
    """A labelled sample: pairs of which somebody knows what is wrong with them."""

    labels: ExistingPath | None = Field(None, description="a list with the columns url, caption and label")
    good: tuple[str, ...] = Field(
        ("clean",), min_length=1, description="labels of the pairs that are as they should be"
    )


def _plain(number: float) -> float:
    """6 and 6.0 are one radius, and make one manifest."""
    return int(number) if number.is_integer() else number


class DistinctRow(Table):
    """The end of the recipe: of duplicates among the pairs that pass all filters the best is kept."""

    radius: Annotated[float, AfterValidator(_plain)] = Field(
        ge=0, le=64, description="bits of 64 in which the perceptual hashes may differ, or 1 - cosine; 0 for a column"
    )
    best_by: str = Field(description="SQL over the columns of rows; the highest value is kept")
    of: str = Field("duplicates", description="the scorer that found the neighbours, or a column such as sha256")


class DriftRow(Table):
    """How far the inputs of a new manifest may lie from those before, for training to follow by itself."""

    max_psi: float | None = Field(None, gt=0, description="of every column; 0.1 is a small change, 0.25 a large one")


class Source(Table):
    """Everything winnow knows about one source. Read it with `load`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,40}$")
    schedule: str | None = Field(None, description="cron, in UTC")
    pairs: Pairs | None = None
    demo: Demo | None = None
    union: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(
        {}, description="by name or file other sources, and the share of each one's pairs that is drawn"
    )
    download: Download = Download()
    decoder: decoders.Name = Field("pillow", description="of the stored pictures; the others resize faster")
    scorers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], AnySpec] = Field({}, description="by name")
    recipe: str | None = Field(None, description="a named recipe")
    filters: tuple[FilterRow, ...] | None = Field(None, description="or a list of filters of its own")
    distinct: DistinctRow | None = Field(None, description="what a recipe or the filters may end in")
    calibration: Calibration = Calibration()
    drift: DriftRow = DriftRow()
    task: Task | None = None
    path: Path = Field(Path(), exclude=True)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if [self.pairs is None, self.demo is None, not self.union].count(False) != 1:
            raise ValueError(
                "name where the pairs come from: [pairs], or [demo] for the embedded source, or [union] of others"
            )
        if self.recipe is not None and self.filters is not None:
            raise ValueError("give recipe or filters, not both")
        if self.recipe is not None and self.recipe not in catalog.recipes():
            raise ValueError(f"recipe {self.recipe!r} is unknown{nearest(self.recipe, catalog.recipes())}")
        for name in self.pairs.extra if self.pairs else ():
            if name.lower() in RESERVED:  # SQL does not tell URL from url
                raise ValueError(f"pairs.extra: winnow makes a column {name.lower()!r} itself; rename it in the source")
        for name, spec in self.scorers.items():
            for of in spec.builds_on:
                if of not in self.scorers:
                    raise ValueError(f"scorers.{name}: there is no scorer {of!r}{nearest(of, self.scorers)}")
        for row in self.filters or ():
            for label in set(row.catches) & set(self.calibration.good):
                raise ValueError(
                    f"filter {row.name!r} is there to catch {label!r}, which calibration.good says is good"
                )
        _ = self.chosen  # a bad filter name or a double one is an error of the file
        return self

    @property
    def neighbours(self) -> Mapping[str, DuplicatesSpec | SemanticSpec]:
        """The scorers that find near-duplicates, by name."""
        return {name: spec for name, spec in self.scorers.items() if isinstance(spec, DuplicatesSpec | SemanticSpec)}

    @property
    def chosen(self) -> Recipe:
        """The recipe that this source publishes; without one, every downloaded pair is kept."""
        if self.filters is not None:
            recipe = Recipe(self.name, tuple(Filter(row.name, row.sql, row.why) for row in self.filters))
        else:
            recipe = catalog.recipes()[self.recipe or "everything"]
        if self.distinct is None:
            return recipe
        name = recipe.name if self.filters is not None else f"{recipe.name}-distinct"
        return replace(recipe, name=name, distinct=Distinct(**self.distinct.model_dump()))


def row_columns(extra: pa.Schema, scorers: Mapping[str, Spec]) -> pa.Schema:
    """The columns of `rows` before any verdict: what winnow makes, the source's extra columns, and every score."""
    scores = [
        pa.field(f"{name}_{column}", kind) for name, spec in scorers.items() for column, kind in spec.columns().items()
    ]
    return pa.schema([*MADE, *extra, *scores])


def members(source: Source) -> list[tuple[Source, float]]:
    """The sources of a union, each with the share of its pairs that is drawn; of any other source none.

    Raises SourceError for one that cannot be read, or has no list of its own.
    """
    found: list[tuple[Source, float]] = []
    for name, share in source.union.items():
        try:
            member = _read(find(str(source.path.parent / name) if name.endswith(".toml") else name))
            if member.pairs is None:
                raise SourceError("it has no [pairs] of its own")
            if member.name in [known.name for known, _ in found]:
                raise SourceError(f"there are two sources called {member.name}")
        except SourceError as error:
            raise SourceError(f"{source.path.name}: union.{name}: {error}") from None
        found.append((member, share))
    return found


def extra_names(source: Source) -> tuple[str, ...]:
    """The columns of the list that travel along; of a union those of all its members, and `ORIGIN`."""
    if source.pairs is not None:
        return source.pairs.extra
    named = [name for member, _ in members(source) for name in extra_names(member)]
    return (ORIGIN, *dict.fromkeys(named)) if source.union else ()


def with_test(source: Source) -> Source:
    """The source whose leaks are looked for in the test set of its task, too."""
    if source.task is None or source.task.test is None:
        return source
    test = {"test": source.task.test}
    known = {
        name: spec.model_copy(update=test) if isinstance(spec, LeaksSpec) and spec.test is None else spec
        for name, spec in source.scorers.items()
    }
    return source.model_copy(update={"scorers": known})


def find(path_or_name: str) -> Path:
    """The source file meant by a path, or by a name: "cc3m" is data_manifests/cc3m.toml. Raises SourceError."""
    if path_or_name.endswith(".toml"):
        if not Path(path_or_name).is_file():
            raise SourceError(f"there is no source file {path_or_name}")
        return Path(path_or_name).resolve()
    known = {path.stem: path for folder in _FOLDERS for path in sorted(folder.glob("*.toml"))}
    if path_or_name not in known:
        raise SourceError(f"no source is called {path_or_name!r}{nearest(path_or_name, known)}; a path ends in .toml")
    return known[path_or_name].resolve()


def every() -> list[Path]:
    """All source files of data_manifests/, the template left out, sorted by name."""
    known = {path.stem: path for folder in _FOLDERS for path in folder.glob("*.toml")}
    return [path.resolve() for name, path in sorted(known.items()) if name != "template"]


def load(path_or_name: str | Path) -> Source:
    """Read and check a source file: keys, types, files, filter names. Raises SourceError with the first fault."""
    source = _read(find(str(path_or_name)))
    members(source)
    return with_test(source)


def _read(path: Path) -> Source:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path.name}: this is no TOML: {error}") from None
    table.setdefault("name", path.stem)
    try:
        return Source.model_validate(table | {"path": path}, context={"folder": path.parent})
    except ValidationError as error:
        raise SourceError(_first_fault(path, error)) from None


_FOLDERS = (Path(__file__).parent.parent / "data_manifests", Path("data_manifests"))


def _first_fault(path: Path, error: ValidationError) -> str:
    """File, key, what is wrong, and the nearest valid name."""
    faults = error.errors()  # a misspelt key is also a missing one: tell the misspelling
    fault = next((each for each in faults if each["type"] == "extra_forbidden"), faults[0])
    place = fault["loc"]
    key = ".".join(str(part) for part in _untagged(place))
    if fault["type"] == "extra_forbidden":
        return f"{path.name}: unknown key {key}{nearest(str(place[-1]), _keys_at(place[:-1]))}"
    if fault["type"] == "union_tag_invalid":
        kinds = [kind.strip("' ") for kind in fault["ctx"]["expected_tags"].split(",")]
        return f"{path.name}: {key}.kind: {fault['ctx']['tag']!r} is unknown{nearest(fault['ctx']['tag'], kinds)}"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path.name}: {key + ': ' if key else ''}{message}"


def _untagged(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Less the tag that says which kind of scorer or encoder was meant: the file has no such key."""
    at = (
        2 if place[:1] == ("scorers",) else 4 if place[:2] == ("task", "learners") and "encoder" in place[3:4] else None
    )
    return place if at is None or len(place) <= at else place[:at] + place[at + 1 :]


def _unnamed(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Less the name that the file gives to a scorer or a learner: it may be that of a kind."""
    at = 1 if place[:1] == ("scorers",) else 2 if place[:2] == ("task", "learners") else len(place)
    return place[:at] + place[at + 1 :]


def _keys_at(place: tuple[int | str, ...]) -> set[str]:
    """The keys that a table of the source file may have."""
    here: list[type[BaseModel]] = [Source]
    for part in _unnamed(place):
        below = [_models(model.model_fields[part].annotation) for model in here if part in model.model_fields]
        tagged = [
            model
            for model in here
            if "kind" in model.model_fields and part in get_args(model.model_fields["kind"].annotation)
        ]
        here = [model for models in below for model in models] or tagged or here
    return {name for model in here for name in model.model_fields} - {"path"}


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
