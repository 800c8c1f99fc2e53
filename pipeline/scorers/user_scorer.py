"""A user's own scorer, in a Python file outside the project: `kind = "./my_scorer.py"`.

The file has `columns`, a dict of column names and types, and `score(batch)`, which returns a dict of these columns with
a value for each pair, or None. If it has `prepare(image)` as well, pictures are decoded, and `batch.images` holds its
results for RGB pictures. Other keys of the table in the source file are keyword arguments of `score`. The file runs
whenever the source file is read, so slow work belongs in its functions. It may import modules
that are beside it. What it prints goes to stderr, and an exit is an error of the scorer.
"""

import functools
import hashlib
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import Field, JsonValue, PrivateAttr, ValidationInfo, model_validator

from pipeline.process.user_code import contained
from pipeline.scorers.spec import Batch, Columns, Scorer, Spec
from pipeline.scorers.user_modules import Code, Helpers
from pipeline.settings.fields import COLUMN, existing_path
from pipeline.store.digests import canonical_json

VERSION = 1

TYPES: Mapping[str, pa.DataType] = {
    "float32": pa.float32(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
"""The types of columns, by the names that a file uses."""


def from_file(table: Any, info: ValidationInfo) -> Any:
    """The fields of `UserScorerSpec` for a table with `kind = "./my_scorer.py"`; other tables unchanged."""
    if not isinstance(table, dict) or not str(table.get("kind")).endswith(".py"):
        return table
    options = {key: value for key, value in table.items() if key != "kind"}
    return {"kind": ".py", "file": existing_path(Path(table["kind"]), info), "options": options}


class UserScorerSpec(Spec):
    """A user's own scorer: a file with `columns` and `score(batch)`. It is read once, with the source file."""

    reads_extra: ClassVar[bool] = True
    kind: Literal[".py"]
    file: Path
    options: dict[str, JsonValue] = Field({}, description="keyword arguments of score")
    _code: Code = PrivateAttr()

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self._code = Code.read(self.file)
        module, name = _run(self._code).module, self.file.name
        canonical_json(self.options)  # no infinity
        _check_columns(name, getattr(module, "columns", None))
        _check_function(name, "score(batch)", getattr(module, "score", None), self.options)
        _check_function(name, "prepare(image)", getattr(module, "prepare", _nothing), {})
        return self

    @property
    def looks_at_pictures(self) -> bool:  # type: ignore[override]
        """Whether the file has `prepare`."""
        return hasattr(_run(self._code).module, "prepare")

    def columns(self) -> Mapping[str, pa.DataType]:
        """The columns of the file, of type float32, int32, int64, uint64, bool or string."""
        return {name: TYPES[kind] for name, kind in _run(self._code).module.columns.items()}

    def identity(self) -> Mapping[str, Any]:
        """The digests of the file and of the modules beside it that it imports, and the options."""
        file, helpers = hashlib.sha256(self._code.source).hexdigest(), self._code.digests()
        more = {"helpers": helpers} if helpers else {}
        return {"version": VERSION, "file": file, "options": self.options} | more

    def load(self) -> Scorer:
        """The functions of the file."""
        return UserScorer(_run(self._code), self.columns(), self.options)


@dataclass(frozen=True)
class _Run:
    """The module of a file that was run, and its helpers."""

    module: ModuleType
    helpers: Helpers


class UserScorer:
    """Calls the functions of the file. Lists become Arrow arrays of the declared type."""

    embedding_dim = None

    def __init__(self, run: _Run, columns: Mapping[str, pa.DataType], options: Mapping[str, Any]) -> None:
        self._score, self._columns = functools.partial(run.module.score, **options), columns
        self._helpers = run.helpers
        if hasattr(run.module, "prepare"):
            self.prepare = contained()(run.module.prepare)

    def score(self, batch: Batch) -> Columns:
        """The result of `score` of the file. Raises TypeError if it is no dict, and ExitError."""
        with contained(), self._helpers.first():
            found = self._score(batch)
        return as_columns(found, self._columns)


def as_columns(found: Any, types: Mapping[str, pa.DataType]) -> Columns:
    """What a `score` returned, with lists as Arrow arrays of these types. Raises TypeError if it is no dict."""
    if not isinstance(found, Mapping):
        raise TypeError(f"score(batch) returned {type(found).__name__}, not a dict of columns")
    return {
        name: pa.array(values, types.get(name)) if isinstance(values, list) else values
        for name, values in found.items()
    }


_runs: dict[str, _Run] = {}
"""The files that this process ran, by the key of their code."""


def _run(code: Code) -> _Run:
    """Run the code, once in this process, without Python's bytecode cache. Raises ValueError if it fails."""
    key = code.key()
    if key not in _runs:
        _runs[key] = _first_run(code, f"winnow_scorer_{key[:16]}")
    return _runs[key]


def _first_run(code: Code, name: str) -> _Run:
    module, helpers = ModuleType(name), Helpers(code)
    module.__file__ = str(code.file)
    sys.modules[name] = module  # dataclasses and pickle look up their module
    if str(code.file.parent) not in sys.path:
        sys.path.append(str(code.file.parent))  # for what is imported under a computed name
    try:
        with contained(), helpers.first():
            exec(compile(code.source, code.file, "exec"), module.__dict__)  # noqa: S102 - the user names the file
    except Exception as error:
        del sys.modules[name]
        reason = str(error).splitlines()[0] if str(error) else ""
        raise ValueError(f"{code.file.name} does not run: {type(error).__name__}: {reason}") from error
    return _Run(module, helpers)


def _nothing(image: Any) -> None:
    """For a file without `prepare`."""


def _check_columns(file: str, columns: Any) -> None:
    if not isinstance(columns, dict) or not columns:
        raise ValueError(f'{file} needs columns, a dict like {{"green": "float32"}}')
    for name, kind in columns.items():
        if not re.fullmatch(COLUMN, str(name)):
            raise ValueError(f"{file}: column {name!r} must be lower-case letters, digits and _")
        if kind not in TYPES:
            raise ValueError(f"{file}: column {name!r} is {kind!r}; take one of {', '.join(TYPES)}")


def _check_function(file: str, called: str, function: Any, options: Mapping[str, Any]) -> None:
    if not callable(function):
        raise ValueError(f"{file} needs a function {called}")
    try:
        inspect.signature(function).bind(None, **options)
    except TypeError as error:
        raise ValueError(f"{file}: {called} does not fit its options: {error}") from None
